"""Reward normalization: rewards divided by the running standard deviation of their discounted sum.

As in Procgen's agents (Cobbe et al. 2020, appendix), after OpenAI Baselines' ``VecNormalize``. The statistics are
updated once per rollout instead of once per step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from goalposts.benchmark.plugins.rollout import Rollout

EPSILON = 1e-8
CLIP = 10.0
"""Largest magnitude of a normalized reward."""


class RewardScale:
    """The standard deviation of the discounted sums of rewards seen so far.

    Args:
        num_envs: environments of a rollout.
        gamma: discount factor of the sums.
        device: device of the rewards.
    """

    def __init__(self, num_envs: int, gamma: float, device: torch.device) -> None:
        self.gamma = gamma
        self.sums = torch.zeros(num_envs, dtype=torch.float64, device=device)
        """``float64[num_envs]``: the discounted sum of each running episode's rewards so far."""
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64, device=device)
        self.squares = torch.zeros((), dtype=torch.float64, device=device)
        """Sum of squared distances from the mean (Chan et al. 1979)."""

    def update(self, rollout: Rollout, *, restarted: bool = False) -> None:
        """Add a rollout's rewards to the statistics; ``restarted`` if it continues no episode of the last one."""
        if restarted:
            self.sums = torch.zeros_like(self.sums)
        seen = torch.empty(rollout.rewards.shape, dtype=torch.float64, device=self.sums.device)
        for t, (reward, done) in enumerate(zip(rollout.rewards, rollout.done, strict=True)):
            self.sums = self.sums * self.gamma + reward
            seen[t] = self.sums
            self.sums = torch.where(done, 0.0, self.sums)
        fresh, mean = seen.numel(), seen.mean()
        total, delta = self.count + fresh, mean - self.mean
        self.squares = self.squares + (seen - mean).square().sum() + delta.square() * self.count * fresh / total
        self.mean = self.mean + delta * fresh / total
        self.count = total

    def normalized(self, rewards: Tensor) -> Tensor:
        """Return rewards divided by the deviation and clipped to ``CLIP``; unchanged before the first update."""
        if self.count == 0:
            return rewards
        deviation = (self.squares / self.count + EPSILON).sqrt().float()
        return (rewards / deviation).clamp(-CLIP, CLIP)

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics as tensors and numbers."""
        return {"sums": self.sums, "count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the statistics that :meth:`state_dict` returned."""
        device = self.sums.device
        self.sums, self.mean, self.squares = (state[name].to(device) for name in ("sums", "mean", "squares"))
        self.count = state["count"]
