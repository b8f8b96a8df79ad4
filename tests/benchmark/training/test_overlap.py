"""Collecting beside the update: which weights play, what waits, and an exact resumption from the middle of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.training.loop import Trainer
from goalposts.benchmark.training.overlap import can_overlap
from tests.toy import going_on, trainer

ITERATIONS = 5


def made() -> Trainer:
    return trainer(overlap=True, env_steps=8 * 6 * ITERATIONS)


def test_a_rollout_is_played_with_the_weights_from_before_the_last_update() -> None:
    subject = made()
    assert subject.overlapped is not None
    weights, rollouts = [], []
    collect = subject.overlapped.collect

    def observed(*, last: bool) -> Rollout:
        weights.append({name: tensor.clone() for name, tensor in subject.network.state_dict().items()})
        rollouts.append(collect(last=last))
        return rollouts[-1]

    subject.overlapped.collect = observed  # type: ignore[method-assign]
    lags = [subject.iterate()["policy_lag"] for _ in range(ITERATIONS)]
    assert lags == [0.0, *[1.0] * (ITERATIONS - 1)]
    probe = trainer()
    for k, rollout in enumerate(rollouts):
        probe.network.load_state_dict(weights[max(k - 1, 0)])
        outputs = probe.collector.policy(rollout.observations.flatten(0, 1), rollout.told_goals.flatten())
        torch.testing.assert_close(outputs["action_dist_inputs"].view_as(rollout.logits), rollout.logits)
        if k > 1:
            probe.network.load_state_dict(weights[k])
            other = probe.collector.policy(rollout.observations.flatten(0, 1), rollout.told_goals.flatten())
            assert not torch.equal(other["action_dist_inputs"].view_as(rollout.logits), rollout.logits)


def test_without_overlap_nothing_lags() -> None:
    subject = trainer()
    assert subject.overlapped is None
    assert [subject.iterate()["policy_lag"] for _ in range(3)] == [0.0] * 3


@pytest.mark.parametrize("stopped_after", [1, 3, ITERATIONS - 1])
def test_resuming_is_exact(stopped_after: int, tmp_path: Path) -> None:
    straight = made()
    for _ in range(ITERATIONS):
        straight.iterate()
    stopped = made()
    for _ in range(stopped_after):
        stopped.iterate()
    resumed = going_on(made(), stopped, tmp_path)
    for _ in range(ITERATIONS - stopped_after):
        resumed.iterate()
    for name, weight in straight.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name])


class Reading(Mitigation):
    def after_rollout(self, rollout: Rollout) -> None:
        """Read it."""


class Restarting(Mitigation):
    restart_rollouts = True


def test_mitigations_that_see_rollouts_are_not_overlapped() -> None:
    assert can_overlap(Mitigation)
    assert not can_overlap(Reading)
    assert not can_overlap(Restarting)
    assert trainer(Reading(), overlap=True).overlapped is None


def test_a_failure_in_the_thread_reaches_the_loop() -> None:
    subject = made()
    assert subject.overlapped is not None

    def broken() -> Rollout:
        raise RuntimeError("the game broke")

    subject.collector.collect = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the game broke"):
        subject.iterate()
