from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import NonFiniteError
from goalposts.benchmark.experiment.suite import get_suite
from goalposts.benchmark.loading import MITIGATIONS, registered
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.loop import Trainer
from tests.small import MOSTLY_SLOW
from tests.toy import Toy, going_on, trainer

PARAMETERS = {plan.task: plan.parameters for plan in get_suite("quick").tasks}
SMALL = {"buffer_size": 16}
"""Hyperparameters with which a curriculum leaves its first phase within a few iterations."""

each_kind = pytest.mark.parametrize("task_id", MOSTLY_SLOW)


def made(
    task_id: str,
    name: str,
    *,
    alpha: float = 0.0,
    seed: int = 0,
    hyperparameters: Mapping[str, Any] = SMALL,
    **changes: Any,
) -> Trainer:
    cls = load_plugin(name).cls
    small = {key: value for key, value in hyperparameters.items() if key in cls.defaults()}
    task = make_task(task_id, **PARAMETERS.get(task_id, {}))
    if (lack := cls.inapplicable(task)) is not None:
        pytest.skip(f"{name} does not apply to {task_id}, which has {lack}")
    rate = alpha if cls.fixed_alpha is None else cls.fixed_alpha
    return trainer(cls(**small), task, alpha=rate, seed=seed, name=name, env_steps=8 * 48, **changes)


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by their path, tensors as their bytes."""
    if isinstance(tree, dict):
        return {key: value for name, part in tree.items() for key, value in flat(part, f"{path}/{name}").items()}
    if isinstance(tree, list | tuple):
        return flat(dict(enumerate(tree)), path)
    if isinstance(tree, Tensor):
        return {path: (str(tree.dtype), tuple(tree.shape), tree.contiguous().view(-1).view(torch.uint8).tolist())}
    return {path: tree}


def trained(subject: Trainer, iterations: int) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Return the whole state after ``iterations``, and their metrics."""
    metrics = [subject.iterate() for _ in range(iterations)]
    return flat(subject.state_dict()), metrics


@pytest.mark.parametrize(
    ("task_id", "name", "bf16"), [("corner", "none", True), ("fraud", "none", True), ("corner", "accel", False)]
)
def test_resuming_equals_never_having_stopped(task_id: str, name: str, bf16: bool, tmp_path: Path) -> None:
    """Metrics included; the conformance suite does it for every mitigation."""
    straight, metrics = trained(made(task_id, name, bf16=bf16), 8)
    stopped = made(task_id, name, bf16=bf16)
    for _ in range(5):
        trained(stopped, 1)
        stopped = going_on(made(task_id, name, bf16=bf16), stopped, tmp_path)
    resumed, rest = trained(stopped, 3)
    assert resumed == straight
    assert rest == metrics[5:]


@pytest.mark.parametrize("name", sorted(registered(MITIGATIONS)))
def test_the_stream_decides_everything(name: str) -> None:
    first, metrics = trained(made("corner", name), 2)
    torch.rand(5)
    assert trained(made("corner", name), 2) == (first, metrics)
    other, _ = trained(made("corner", name, seed=1), 2)
    drawn = [key for key in first if key.endswith("trunk.1.weight") or key.startswith("/generators/")]
    assert len(drawn) > 2
    assert not any(other[key] == first[key] for key in drawn)


def test_training_in_one_call_equals_iterating(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    subject = trainer()
    digest = subject.train(tmp_path, log_metrics=rows.append)
    straight, metrics = trained(trainer(), 4)
    assert flat(subject.state_dict()) == straight
    assert rows == metrics
    assert [row["env_steps"] for row in rows] == [48, 96, 144, 192]

    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert (loaded[1], loaded[2]) == (192, digest)
    again = trainer()
    assert again.train(tmp_path, resume_from=loaded, log_metrics=rows.append) == digest
    assert flat(again.state_dict()) == straight
    assert len(rows) == 4


@pytest.mark.parametrize(("env_steps", "iterations"), [(1, 1), (48, 1), (49, 2)])
def test_ends_with_the_first_update_at_or_past_the_budget(tmp_path: Path, env_steps: int, iterations: int) -> None:
    rows: list[dict[str, float]] = []
    trainer(env_steps=env_steps).train(tmp_path, log_metrics=rows.append)
    assert len(rows) == iterations


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_the_time_between_checkpoints_has_no_influence(tmp_path: Path, checkpoint_seconds: float) -> None:
    digest = trainer().train(tmp_path / "one", checkpoint_seconds=checkpoint_seconds)
    assert digest == trainer().train(tmp_path / "other", checkpoint_seconds=5.0)


def first_levels(subject: Trainer) -> list[int]:
    rollout = subject.collector.collect()
    return rollout.levels[: subject.config.num_envs].hashes().tolist()


@each_kind
def test_mitigations_start_from_the_same_levels(task_id: str) -> None:
    classes = {name: load_plugin(name).cls for name in registered(MITIGATIONS)}
    task = make_task(task_id)
    same = [name for name, cls in classes.items() if cls.fixed_alpha is None and cls.inapplicable(task) is None]
    assert len(same) > 1
    still = {**SMALL, "rate": 0.0}  # Who moves goals moves none.
    assert len({tuple(first_levels(made(task_id, name, hyperparameters=still))) for name in same}) == 1


@each_kind
def test_a_fixed_rate_is_the_baseline_at_that_rate(task_id: str) -> None:
    fixed = [name for name in registered(MITIGATIONS) if (load_plugin(name).cls.fixed_alpha) == 1.0]
    assert fixed
    baseline = trained(made(task_id, "none", alpha=1.0), 4)
    for name in fixed:
        state, metrics = trained(made(task_id, name), 4)
        private = "/generators/mitigation"
        assert {**state, private: None} == {**baseline[0], private: None}
        assert state[private] != baseline[0][private]
        assert metrics == baseline[1]


@pytest.mark.parametrize("sampling", ["sampled", "greedy"])
def test_policy_samples_or_takes_the_best(sampling: Any) -> None:
    subject = trainer()
    with torch.no_grad():
        subject.network.policy_head.bias.copy_(torch.tensor([1.0, 0.0]))
    act = subject.agent(sampling).policy(torch.Generator().manual_seed(0))
    actions, asks = act(torch.zeros(2000, 2))
    assert asks is None
    share = 0.0 if sampling == "greedy" else float(torch.tensor([1.0, 0.0]).softmax(0)[1])
    assert float(actions.double().mean()) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("head", ["policy_head", "value_head"])
def test_an_agent_that_is_not_finite_is_named_at_evaluation(head: str) -> None:
    subject = trainer()
    with torch.no_grad():
        getattr(subject.network, head).bias.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="evaluation"):
        subject.agent("sampled").policy(torch.Generator())(torch.zeros(4, 2))


class Remembers(Mitigation):
    def after_rollout(self, rollout: Any) -> None:
        self.rollout = rollout


def test_advantages_are_normalized_for_the_learner_alone() -> None:
    mitigation = Remembers()
    subject = trainer(mitigation, Toy())
    seen: list[Tensor] = []
    subject.learner.extra_loss = lambda batch, outputs: seen.append(batch["advantages"])  # type: ignore[func-returns-value]
    subject.iterate()
    shown = torch.cat(seen)
    assert float(shown.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(shown.std()) == pytest.approx(1.0, abs=0.02)
    raw = mitigation.rollout.advantages
    assert float(raw.std()) != pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(mitigation.rollout.value_targets, raw + mitigation.rollout.values)
