"""What every registered mitigation owes; a new one is picked up by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import RequestError, UndeclaredKnowledgeError
from goalposts.benchmark.loading import MITIGATIONS, registered
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.loop import Trainer
from tests.small import TENSOR_TASKS
from tests.toy import Toy, ToyEnv, context, trainer

each_task = pytest.mark.parametrize("task_id", TENSOR_TASKS)


@pytest.fixture(params=sorted(registered(MITIGATIONS)))
def cls(request: pytest.FixtureRequest) -> type[Mitigation]:
    return load_plugin(request.param).cls


def begun(cls: type[Mitigation], task_id: str) -> Trainer:
    task = make_task(task_id)
    if cls.inapplicable(task) is not None:
        with pytest.raises(RequestError, match=f"does not apply to task '{task_id}'") as caught:
            trainer(cls(), task)
        assert "\n" not in str(caught.value)
        pytest.skip(str(caught.value))
    return trainer(cls(), task)


def test_registered() -> None:
    assert {
        "none", "domain_randomization", "goal_position_randomization", "visual_randomization", "accel",
        "goal_told", "goal_multi", "goal_hindsight", "proxy_erasure", "ensemble", "ask_for_help",
    } <= set(registered(MITIGATIONS))  # fmt: skip


def test_declares_what_it_is(cls: type[Mitigation]) -> None:
    assert issubclass(cls, Mitigation)
    assert cls.uses <= set(Knowledge)
    assert all([cls.version, cls.author, cls.licence, cls.__doc__])
    assert json.loads(json.dumps(cls.defaults())) == cls.defaults()
    cls(**cls.defaults())


def test_context_refuses_what_is_not_declared(cls: type[Mitigation]) -> None:
    task = make_task("corner", size=5)
    levels = task.sample_levels(2, 0.0, torch.Generator().manual_seed(0))
    given = context(task, *cls.uses)
    asks = {
        Knowledge.LEVEL_GENERATOR: lambda: (given.randomized_levels(2), given.place_goals(levels)),
        Knowledge.LEVEL_EDITOR: lambda: given.edit_levels(levels, 1),
        Knowledge.CANDIDATE_REWARDS: lambda: given.candidate_goals,
        Knowledge.PROXY_GOALS: lambda: given.proxy_goals,
        Knowledge.PLANNER: lambda: given.optimal_return(levels),
    }
    for knowledge, ask in asks.items():
        if knowledge in cls.uses:
            ask()
        else:
            with pytest.raises(UndeclaredKnowledgeError):
                ask()


@each_task
def test_levels_and_goals(cls: type[Mitigation], task_id: str) -> None:
    hooks = begun(cls, task_id).hooks
    for _ in range(3):
        levels = hooks.sample_levels(8)
        assert bool(hooks.task.valid(levels).all())
        goals = hooks.goals(levels)
        assert goals.shape == (8,)
        assert bool(hooks.known_goals[goals].all())


@each_task
def test_observe_looks_at_each_row_by_itself(cls: type[Mitigation], task_id: str) -> None:
    subject = begun(cls, task_id)
    observation = subject.collector.collect().observations[0]
    told = torch.tensor([0, 0, 0, 0, *subject.hooks.task.candidates, 0, 0, 0, 0][:8])
    whole = subject.hooks.observe(observation, told)
    assert whole.dtype == observation.dtype
    assert torch.equal(whole[3:5], subject.hooks.observe(observation[3:5], told[3:5]))
    assert torch.equal(whole, subject.hooks.observe(observation, told))


@each_task
def test_rollout_hooks_keep_their_shapes(cls: type[Mitigation], task_id: str) -> None:
    subject = begun(cls, task_id)
    for _ in range(2):
        rollout = subject.collector.collect()
        shape = rollout.rewards.shape
        rollout = subject.hooks.relabel(rollout)
        rollout.advantages = rollout.value_targets = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        subject.hooks.after_rollout(rollout)
        weights = subject.hooks.sample_weights(rollout)
        assert weights is None or weights.shape == shape
        assert all(column.shape[:2] == shape for column in subject.hooks.batch_columns(rollout).values())
        for name in ("rewards", "log_probs", "values", "told_goals", "level_index", "terminated"):
            assert getattr(rollout, name).shape == shape


@each_task
def test_trains_and_acts(cls: type[Mitigation], task_id: str) -> None:
    subject = begun(cls, task_id)
    metrics = [subject.iterate() for _ in range(2)]
    assert all(row["env_steps"] > 0 for row in metrics)
    observation = torch.zeros(5, *subject.hooks.task.observation_shape)
    actions, asks = subject.agent("sampled").policy(torch.Generator().manual_seed(0))(observation)
    assert actions.shape == (5,)
    assert bool(((actions >= 0) & (actions < subject.hooks.task.num_actions)).all())
    assert asks is None or asks.dtype == torch.bool


class Picture(Toy):
    """The toy as a picture of bytes."""

    observation_shape = (3, 6, 7)

    def make_env(self, num_envs: int, device: torch.device | str = "cpu") -> ToyEnv:
        return PictureEnv(self, num_envs, device)


class PictureEnv(ToyEnv):
    def _observe(self, state: dict[str, Tensor]) -> Tensor:
        shades = torch.stack([state["number"], 40 * state["elapsed"], state["number"] // 4], dim=1) % 256
        return shades.to(torch.uint8).view(-1, 3, 1, 1).expand(-1, 3, 6, 7)


def test_trains_on_pictures_of_bytes(cls: type[Mitigation]) -> None:
    subject = trainer(cls(), Picture(), network="conv")
    rollout = subject.collector.collect()
    assert subject.hooks.observe(rollout.observations[0], rollout.told_goals[0]).dtype == torch.uint8
    for _ in range(3):
        subject.iterate()
    actions, _ = subject.agent("sampled").policy(torch.Generator().manual_seed(0))(rollout.observations[0])
    assert actions.shape == (8,)


@each_task
def test_state_is_tensors_and_json(cls: type[Mitigation], task_id: str, tmp_path: Path) -> None:
    subject = begun(cls, task_id)
    subject.iterate()
    state: dict[str, Any] = subject.hooks.state_dict()
    digest = checkpoint.save(tmp_path, state, 1)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    fresh = begun(cls, task_id)
    fresh.hooks.load_state_dict(loaded[0])
    assert checkpoint.save(tmp_path, fresh.hooks.state_dict(), 1) == digest
