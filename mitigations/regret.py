"""Regret estimates: the gap between the agent's return on a level and the best possible return there.

A rollout scores each level as a whole: every environment plays one level repeatedly (``restart_rollouts``). Returns are
those of complete episodes. The episode that the rollout's end cuts off is left out, because it would look like a
failure. If no episode was completed, the unfinished one counts with what it has earned so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from goalposts import Context, Rollout


class Returns(NamedTuple):
    """Discounted returns on each level."""

    mean: Tensor
    """``float32[N]``: over the latest rollout's episodes."""
    best: Tensor
    """``float32[N]``: the greatest of them, or the greatest ever seen if a buffer remembers it."""


def episode_returns(rewards: Tensor, done: Tensor, gamma: float) -> Returns:
    """Return the mean and the greatest discounted return of each environment's episodes.

    The reward of an episode's step d, counted from 1, is discounted by γ^(d−1).

    Args:
        rewards: ``float32[T, N]``.
        done: ``bool[T, N]``, whether an episode ended.
        gamma: the discount factor.
    """
    running, total = torch.zeros_like(rewards[0]), torch.zeros_like(rewards[0])
    discount, best = torch.ones_like(running), torch.full_like(running, -torch.inf)
    for reward, ended in zip(rewards, done, strict=True):
        running = running + discount * reward
        total = torch.where(ended, total + running, total)
        best = torch.where(ended, torch.maximum(best, running), best)
        discount = torch.where(ended, 1.0, discount * gamma)
        running = torch.where(ended, 0.0, running)
    completed = done.sum(dim=0)
    none = completed == 0
    return Returns(torch.where(none, running, total / completed.clamp(min=1)), torch.where(none, running, best))


def positive_value_loss(context: Context, rollout: Rollout, returns: Returns) -> Tensor:
    """Return the mean positive part of each level's generalized advantages, ``float32[N]``.

    Jiang et al. 2021b (Replay-Guided Adversarial Environment Design), section 4. It counts every step of the rollout.
    If an episode is cut off, the critic's value stands for the rest.
    """
    return rollout.advantages.clamp(min=0).mean(dim=0)


def max_latest(context: Context, rollout: Rollout, returns: Returns) -> Tensor:
    """Return the best return ever seen on each level minus the mean of the latest, ``float32[N]``.

    Abdel Sadek et al. 2025 (Mitigating Goal Misgeneralization via Minimax Regret), section 5.3. It is the maximum Monte
    Carlo estimate of Jiang et al. 2021b with the latest returns in place of the critic's values.
    """
    return returns.best - returns.mean


def oracle(context: Context, rollout: Rollout, returns: Returns) -> Tensor:
    """Return the optimal discounted return on each level minus the mean of the latest, ``float32[N]``.

    Abdel Sadek et al. 2025, section 5.3, "oracle-latest". It needs ``planner``.
    """
    return context.optimal_return(rollout.levels).float() - returns.mean


ESTIMATES: dict[str, Callable[[Context, Rollout, Returns], Tensor]] = {
    "positive_value_loss": positive_value_loss,
    "max_latest": max_latest,
    "oracle": oracle,
}
"""The estimates, by the value of the hyperparameter ``regret``."""
