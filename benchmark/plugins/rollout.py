"""A rollout: the experience of one iteration, as hooks see it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from goalposts.benchmark.tasks.levels import Levels


@dataclasses.dataclass
class Rollout:
    """Experience of one iteration. ``T`` is ``num_steps``, ``N`` is ``num_envs``."""

    levels: Levels
    """All levels that were played."""
    level_index: Tensor
    """``int64[T, N]``: the row of ``levels`` that each transition belongs to."""
    observations: Tensor
    """``[T, N, *observation_shape]``, as the task returns them, before ``observe``."""
    told_goals: Tensor
    """``int64[T, N]``: the goal each episode is rewarded for."""
    actions: Tensor
    """``int64[T, N]``"""
    logits: Tensor
    """``float32[T, N, num_actions]``"""
    log_probs: Tensor
    """``float32[T, N]`` of the actions taken."""
    values: Tensor
    """``float32[T, N]``"""
    rewards: Tensor
    """``float32[T, N]``"""
    events: Tensor
    """``bool[T, N, num_goals]``; columns of goals that the mitigation did not declare are False."""
    terminated: Tensor
    """``bool[T, N]``"""
    truncated: Tensor
    """``bool[T, N]``"""
    final_values: Tensor
    """``float32[T, N]``: the value of the state where an episode was truncated, 0 elsewhere."""
    last_values: Tensor
    """``float32[N]``: the value of the state after the last step."""
    importance: Tensor
    """``float32[T, N]``: the probability of each action under the new goal, divided by its probability under the goal
    it was played for. It is 1 where ``relabel`` left the goal unchanged."""
    final_observations: Tensor
    """``[K, *observation_shape]``: the last state of each of the ``K`` episodes that ended."""
    final_rows: Tensor
    """``int64[K]``: the transition that ended each of them, as ``t * N + n``."""
    last_observations: Tensor
    """``[N, *observation_shape]``: the state after the last step; the next episode's first state if one ended there."""
    advantages: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    """``float32[T, N]``, not normalized. Filled in after ``relabel``."""
    value_targets: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    """``float32[T, N]``. Filled in after ``relabel``."""

    @property
    def done(self) -> Tensor:
        """Return where an episode ended, ``bool[T, N]``."""
        return self.terminated | self.truncated
