"""Agents: what they say and do, their files, and that none of it needs Ray."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from goalposts.benchmark.agent import Agent, build_agent
from goalposts.benchmark.errors import HookError, NonFiniteError, RequestError
from goalposts.benchmark.experiment.agents import export_agent, load_agent
from goalposts.benchmark.experiment.evaluation import evaluate
from goalposts.benchmark.experiment.run_cell import make_trainer, run_cell
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import EMBEDDINGS, LOGITS, VALUES, Mitigation, ModuleSpec
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tensor_files import parse_state, state_bytes
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.loop import Trainer
from tests.cluster.helpers import job, tiny_cell
from tests.toy import Toy, config, trainer, unreserved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished cell."""
    subject = job(tiny_cell(), tmp_path_factory.mktemp("run"))
    assert run_cell(subject).error is None
    return subject.folder.path


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    """Return the file of its agent."""
    path = folder.parent / "agent.safetensors"
    export_agent(folder, path)
    return path


def trained(folder: Path) -> Trainer:
    """Return the cell's trainer as it was when it ended."""
    loaded = checkpoint.load(folder / "checkpoint")
    assert loaded is not None
    subject = make_trainer(tiny_cell())
    subject.load_state_dict(loaded[0])
    return subject


def seen(task: Task[Any], count: int = 6) -> Tensor:
    levels = task.sample_levels(count, 0.5, torch.Generator().manual_seed(0))
    return task.make_env(count).reset(levels)


def built(task: Task[Any], mitigation: Mitigation | None = None, **changes: Any) -> Agent:
    """Return an agent with fresh weights, by way of a trainer's."""
    fresh = trainer(mitigation, task, **changes)
    weights = fresh.network.state_dict()
    again = type(mitigation)() if mitigation is not None else Mitigation()
    return build_agent(task, again, config(**changes), weights, fresh.hooks.state_dict())


@pytest.mark.parametrize("sampling", ["sampled", "greedy"])
def test_a_rebuilt_agent_acts_like_the_trainer_s(sampling: Any) -> None:
    subject = trainer(task=Toy())
    subject.iterate()
    rebuilt = build_agent(
        subject.task, Mitigation(), subject.config, subject.network.state_dict(), {}, sampling=sampling
    )
    observations, own = seen(subject.task, 50), subject.agent(sampling)
    assert torch.equal(own.outputs(observations).logits, rebuilt.outputs(observations).logits)
    assert torch.equal(own.outputs(observations).values, rebuilt.outputs(observations).values)
    one, other = (agent.act(observations, torch.Generator().manual_seed(3)) for agent in (own, rebuilt))
    assert torch.equal(one[0], other[0])
    assert one[1] is other[1] is None
    if sampling == "greedy":
        assert torch.equal(one[0], own.outputs(observations).logits.argmax(dim=1))


def test_outputs_have_their_shapes() -> None:
    task = Toy()
    outputs = built(task).outputs(seen(task))
    assert (outputs.logits.shape, outputs.values.shape) == ((6, task.num_actions), (6,))
    assert outputs.logits.dtype == outputs.values.dtype == torch.float32


def test_an_agent_is_told_the_aligned_goal_unless_another_is_given() -> None:
    class Tells(Mitigation):
        uses = frozenset({Knowledge.GOAL_INPUT})

        def observe(self, observation: Tensor, told_goal: Tensor) -> Tensor:
            return torch.cat([observation, told_goal.unsqueeze(1).float()], dim=1)

    task = Toy()
    agent, observations = built(task, Tells()), seen(task)
    default, aligned, proxy = (
        agent.outputs(observations, told).logits for told in (None, torch.zeros(6).long(), torch.ones(6).long())
    )
    assert torch.equal(default, aligned)
    assert not torch.equal(default, proxy)


@pytest.mark.parametrize("network", ["mlp", "conv", "strided", "patches", "impala"])
@pytest.mark.parametrize("bf16", [False, True])
def test_activations_are_those_of_every_layer_of_the_trunk(network: str, bf16: bool) -> None:
    task = make_task("corner_full", size=8)
    agent = built(task, network=network, hidden_sizes=(12, 10), bf16=bf16)
    observations = seen(task)
    found = agent.activations(observations)
    assert set(found) == {f"trunk.{name}" for name, _ in agent.network.trunk.named_modules() if name}
    assert all(len(tensor) == 6 and tensor.dtype == torch.float32 for tensor in found.values())
    last = len(agent.network.trunk) - 1
    assert found[f"trunk.{last}"].shape == found[f"trunk.{last - 1}"].shape == (6, 10)
    assert found[f"trunk.{last - 2}"].shape == found[f"trunk.{last - 3}"].shape == (6, 12)
    assert torch.equal(found[f"trunk.{last}"], found[f"trunk.{last - 1}"].relu())
    with torch.no_grad():
        assert torch.equal(found[f"trunk.{last}"], agent.network(observations)[EMBEDDINGS])
    assert not any(module._forward_hooks for module in agent.network.modules())


class Recurrent(nn.Module):
    """A network of another make: no trunk, and a layer that returns more than a tensor."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__()
        self.memory = nn.GRU(2, 7, batch_first=True)
        self.policy = nn.Linear(7, spec.num_actions)

    def forward(self, observation: Tensor) -> dict[str, Tensor]:
        remembered, _ = self.memory(observation.unsqueeze(1))
        return {LOGITS: self.policy(remembered[:, 0]), VALUES: remembered[:, 0, 0]}


def test_a_network_without_a_trunk_is_taken_as_a_whole() -> None:
    class Other(Mitigation):
        def build_module(self, spec: ModuleSpec) -> nn.Module:
            return Recurrent(spec)

    task = Toy()
    agent = built(task, Other())
    found = agent.activations(seen(task))
    assert list(found) == ["policy"]
    assert torch.equal(found["policy"], agent.outputs(seen(task)).logits)


@pytest.mark.parametrize("shape", [(6, 3), (6,), (2,), (6, 1, 2)])
@pytest.mark.parametrize("ask", ["outputs", "act", "activations"])
def test_observations_of_another_shape_are_refused(ask: str, shape: tuple[int, ...]) -> None:
    agent = built(Toy())
    arguments = (torch.Generator(),) if ask == "act" else ()
    with pytest.raises(RequestError, match=r"have the shape \(.*\); task 'toy' has \(n, 2\)"):
        getattr(agent, ask)(torch.zeros(shape), *arguments)


def test_weights_that_are_not_finite_are_named() -> None:
    agent = built(Toy())
    with torch.no_grad():
        agent.network.value_head.bias.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="vf_preds hold NaN"):
        agent.outputs(torch.zeros(3, 2))


def test_an_agent_at_test_plays_no_rollouts() -> None:
    class Asks(Mitigation):
        def act(self, outputs: Any, generator: torch.Generator) -> Any:
            assert self.context.steps_left() == 0
            return self.context.rollout(unreserved(8))

    with pytest.raises(HookError, match="not in training"):
        built(Toy(), Asks()).act(torch.zeros(3, 2), torch.Generator())


def test_a_cell_s_agent_is_its_trainer_s(folder: Path) -> None:
    own, loaded = trained(folder).agent("sampled"), load_agent(folder)
    observations = seen(own.task)
    assert torch.equal(own.outputs(observations).logits, loaded.outputs(observations).logits)
    assert (loaded.record.cell, loaded.changed, loaded.sampling) == (tiny_cell().key, False, "sampled")
    assert loaded.name == "none α=0 seed 0"


def test_an_exported_agent_is_the_same_agent(folder: Path, file: Path) -> None:
    one, other = load_agent(folder), load_agent(file)
    observations = seen(one.task)
    for found, expected in zip(one.outputs(observations), other.outputs(observations), strict=True):
        assert torch.equal(found, expected)
    assert one.record == other.record
    assert sorted(one.network.state_dict()) == sorted(other.network.state_dict())


def test_evaluating_an_agent_gives_the_counts_of_its_record(folder: Path, file: Path) -> None:
    agent = load_agent(file)
    found = evaluate(agent)
    assert found.equals_record is True
    assert found.splits == agent.record.splits
    assert (found.capability, found.verdict) == (agent.record.capability, agent.record.verdict)
    with torch.no_grad():
        agent.network.policy_head.bias[0] += 3.0
    assert evaluate(agent).equals_record is False


def test_other_levels_are_not_compared_with_the_record(file: Path) -> None:
    assert evaluate(load_agent(file), episodes=20).equals_record is None


def test_another_salt_is_not_compared_with_the_record(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOALPOSTS_EVAL_SALT", "0123456789abcdef" * 2)
    assert evaluate(load_agent(file)).equals_record is None


def test_an_agent_acts_without_ray(file: Path) -> None:
    program = (
        "import sys, torch, goalposts\n"
        "agent = goalposts.load_agent(sys.argv[1])\n"
        "actions, asks = agent.act(torch.zeros(3, *agent.task.observation_shape), torch.Generator())\n"
        "agent.outputs(torch.zeros(3, *agent.task.observation_shape))\n"
        "agent.activations(torch.zeros(3, *agent.task.observation_shape))\n"
        "assert actions.shape == (3,)\n"
        "assert 'ray' not in sys.modules\n"
    )
    found = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


def changed(file: Path, **changes: Any) -> bytes:
    return state_bytes({**parse_state(file.read_bytes()), **changes})


def damaged(file: Path, kind: str, place: Path) -> Path:
    """Return a file that holds no agent."""
    if kind == "pickle":
        torch.save({"network": Bomb()}, place)
    elif kind == "text":
        place.write_text("an agent\n")
    elif kind == "empty":
        place.write_bytes(b"")
    elif kind == "cut off":
        place.write_bytes(file.read_bytes()[:-100])
    elif kind == "another state":
        place.write_bytes(state_bytes({"weights": torch.zeros(3)}))
    elif kind == "later format":
        place.write_bytes(changed(file, goalposts_agent="2"))
    elif kind == "no record":
        place.write_bytes(changed(file, record="{}"))
    elif kind == "altered record":
        state = parse_state(file.read_bytes())
        place.write_bytes(changed(file, record=str(state["record"]).replace('"seed":0', '"seed":1')))
    elif kind == "weights of another":
        place.write_bytes(changed(file, network={"trunk.1.weight": torch.zeros(3, 3)}))
    elif kind == "folder":
        place.mkdir()
    return place


@pytest.mark.parametrize(
    "kind",
    [
        "pickle",
        "text",
        "empty",
        "cut off",
        "another state",
        "later format",
        "no record",
        "altered record",
        "weights of another",
        "folder",
        "nothing",
    ],
)
def test_what_is_no_agent_is_refused_in_one_line(file: Path, tmp_path: Path, kind: str) -> None:
    place = damaged(file, kind, tmp_path / "other.safetensors")
    with pytest.raises(RequestError, match=r"other\.safetensors") as caught:
        load_agent(place)
    assert "\n" not in str(caught.value)


def test_an_agent_of_another_task_or_mitigation_is_refused(file: Path) -> None:
    with pytest.raises(RequestError, match="plays 'fraud', not 'corner'"):
        load_agent(file, task="corner")
    with pytest.raises(RequestError, match="was trained with 'none', not with 'accel'"):
        load_agent(file, mitigation="accel")
    with pytest.raises(RequestError, match="plays 'fraud', not 'corner'"):
        evaluate(load_agent(file), "corner")


def test_the_folder_of_a_run_names_its_cells(folder: Path) -> None:
    with pytest.raises(RequestError, match=f"is a whole run; give one of its cells.*{folder.name}"):
        load_agent(folder.parents[1])


def test_a_checkpoint_that_the_record_does_not_name_is_refused(folder: Path, tmp_path: Path) -> None:
    other = trained(folder)
    with torch.no_grad():
        other.network.policy_head.bias[0] += 1.0
    (tmp_path / "record.json").write_bytes((folder / "record.json").read_bytes())
    with pytest.raises(RequestError, match="no longer has a checkpoint"):
        load_agent(tmp_path)
    checkpoint.save(tmp_path / "checkpoint", other.state_dict(), other.env_steps)
    with pytest.raises(RequestError, match="is not the one its record names"):
        load_agent(tmp_path)


def test_evaluation_is_json(file: Path) -> None:
    found = evaluate(load_agent(file))
    assert {field.name for field in dataclasses.fields(found)} == set(found.json())
    assert found.json()["equals_record"] is True
