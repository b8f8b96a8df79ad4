"""Reward normalization against the plain formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.training.rewards import CLIP, RewardScale
from tests.toy import rollout


def discounted_sums(rewards: Tensor, done: Tensor, gamma: float) -> Tensor:
    """Return each environment's discounted sum at each step, begun anew after an end."""
    sums = torch.zeros(rewards.shape, dtype=torch.float64)
    for env in range(rewards.shape[1]):
        total = 0.0
        for t in range(rewards.shape[0]):
            total = total * gamma + float(rewards[t, env])
            sums[t, env] = total
            if bool(done[t, env]):
                total = 0.0
    return sums


def rollouts() -> list[Rollout]:
    random = torch.Generator().manual_seed(0)
    made = []
    for _ in range(3):
        rewards = torch.rand(7, 4, generator=random) * 3 - 1
        ends = torch.rand(7, 4, generator=random) < 0.3
        made.append(rollout(7, 4, rewards=rewards, terminated=ends))
    return made


def test_rewards_are_in_units_of_the_deviation_of_their_discounted_sums() -> None:
    parts = rollouts()
    scale = RewardScale(4, 0.9, torch.device("cpu"))
    for part in parts:
        scale.update(part)
    rewards, done = torch.cat([part.rewards for part in parts]), torch.cat([part.done for part in parts])
    deviation = discounted_sums(rewards, done, 0.9).std(unbiased=False)
    torch.testing.assert_close(scale.normalized(rewards), (rewards / deviation).float())


def test_before_the_first_update_nothing_changes() -> None:
    rewards = torch.tensor([[1.0, -2.0]])
    assert torch.equal(RewardScale(2, 0.9, torch.device("cpu")).normalized(rewards), rewards)


def test_outliers_are_clipped() -> None:
    scale = RewardScale(4, 0.9, torch.device("cpu"))
    scale.update(rollouts()[0])
    assert scale.normalized(torch.tensor([1e6, -1e6])).tolist() == [CLIP, -CLIP]


def test_a_rollout_that_restarts_goes_on_with_no_episode_of_the_last() -> None:
    scale = RewardScale(4, 1.0, torch.device("cpu"))
    ones = rollout(8, 4, rewards=torch.ones(8, 4), terminated=torch.zeros(8, 4, dtype=torch.bool))
    for _ in range(50):
        scale.update(ones, restarted=True)
    deviation = torch.arange(1.0, 9.0).std(unbiased=False)
    torch.testing.assert_close(scale.normalized(torch.ones(1)), 1 / deviation.view(1))


def test_goes_on_from_its_state() -> None:
    first, *rest = rollouts()
    straight, stopped = RewardScale(4, 0.9, torch.device("cpu")), RewardScale(4, 0.9, torch.device("cpu"))
    straight.update(first)
    stopped.update(first)
    resumed = RewardScale(4, 0.9, torch.device("cpu"))
    resumed.load_state_dict(stopped.state_dict())
    for part in rest:
        straight.update(part)
        resumed.update(part)
    rewards = torch.ones(1)
    assert torch.equal(straight.normalized(rewards), resumed.normalized(rewards))
    assert straight.count == resumed.count == pytest.approx(3 * 28)
