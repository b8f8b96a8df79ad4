"""Generalized advantage estimation on batches of rollouts."""

from __future__ import annotations

import torch
from torch import Tensor

from goalposts.benchmark.plugins.rollout import Rollout


def generalized_advantages(rollout: Rollout, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Return advantages and value targets, both ``float32[T, N]`` (Schulman et al. 2016, equation 16).

    After termination the value is zero. After truncation it is the value of the final state. Where goals were
    relabelled, later rewards count in proportion to how likely their actions are for the new goal: per-decision
    importance sampling (Precup et al. 2000), truncated at 1 like the traces of V-trace (Espeholt et al. 2018,
    equation 1). The ratio of an action itself is left to the weight of its transition.
    """
    going_on = ~rollout.done
    next_values = torch.cat([rollout.values[1:], rollout.last_values.unsqueeze(0)])
    next_values = torch.where(going_on, next_values, rollout.final_values)
    errors = rollout.rewards + gamma * next_values - rollout.values
    carry = gamma * gae_lambda * going_on
    carry[:-1] *= rollout.importance[1:].clamp(max=1.0)
    advantages = torch.empty_like(errors)
    running = torch.zeros_like(errors[0])
    for t in range(len(errors) - 1, -1, -1):
        running = errors[t] + carry[t] * running
        advantages[t] = running
    return advantages, advantages + rollout.values
