"""Proxy adversary: searches for levels on which the agent serves an anticipated proxy instead of the goal.

This is our own method. A level's score is the discounted return that the agent's episodes would have earned for a proxy
minus the return they earned for the goal. With several proxies, the one that earns most counts. The score is positive
if the agent mistakes the proxy for the goal, 0 if it serves both at once or neither, and negative if it serves the goal
alone. It needs no critic and no planner, because goals are compared by their events.

Every rollout plays three kinds of levels side by side:

- new levels of the training distribution;
- levels replayed from a buffer of scored levels, by rank and staleness as in prioritized level replay (Jiang et al.
  2021a);
- one edited child of each replayed level (unrestricted edits, as in Parker-Holder et al. 2022).

All are trained on and scored, and enter the buffer if their score is high enough. The agent would never find a reward
on the levels that mislead it most. Some of their children hold a reward that it does find, so it trains on the children
too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from goalposts import Context, Knowledge, Levels, Mitigation, Rollout

from .level_buffer import LevelBuffer
from .regret import episode_returns


@dataclasses.dataclass(eq=False)
class ProxyAdversary(Mitigation):
    """Trains on new levels, and on levels found by editing that set an anticipated proxy against the goal."""

    uses = frozenset({Knowledge.PROXY_GOALS, Knowledge.LEVEL_EDITOR, Knowledge.LEVEL_GENERATOR})
    author = "Goalposts"
    licence = "MIT"
    restart_rollouts = True
    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "replay_share": {"low": 0.05, "high": 0.45},
        "temperature": {"low": 0.05, "high": 4.0, "log": True},  # See level_buffer.
        "num_edits": {"low": 1, "high": 20, "log": True},
    }

    replay_share: float = 0.25
    """Share of each rollout's levels that are replayed. Equally many are their children, and the rest are new."""
    buffer_size: int = 1000
    """Number of levels kept."""
    temperature: float = 0.3
    """β of the rank prioritization."""
    staleness_coeff: float = 0.3
    """ρ: weight of staleness in the replay distribution."""
    num_edits: int = 5
    """Elementary edits in each child."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.replay_share <= 0.5:
            raise ValueError(f"replay_share is {self.replay_share!r}; give 0 to 0.5, as the children double it")

    def setup(self, context: Context) -> None:
        super().setup(context)
        device = context.generator.device
        self.buffer = LevelBuffer(self.buffer_size, self.temperature, self.staleness_coeff, device)
        self.buffer.check_capacity(context.training.num_envs)

    def sample_levels(self, num_levels: int) -> Levels:
        num_replayed = min(int(self.replay_share * num_levels), len(self.buffer))
        if not num_replayed:
            return self.context.sample_levels(num_levels)
        assert self.buffer.levels is not None
        parents = self.buffer.levels[self.buffer.sample(num_replayed, self.context.generator)]
        children = self.context.edit_levels(parents, self.num_edits, restricted=False)
        num_new = num_levels - 2 * num_replayed
        new = [self.context.sample_levels(num_new)] if num_new else []
        return type(parents).concatenate([*new, parents, children])

    def after_rollout(self, rollout: Rollout) -> None:
        """Score the levels and record them."""
        gamma = self.context.training.gamma
        earned = episode_returns(rollout.events[..., 0].float(), rollout.done, gamma)
        forgone = torch.stack(
            [
                episode_returns(_rewards(rollout, proxy, terminal), rollout.done, gamma).mean
                for proxy, terminal in zip(self.context.proxy_goals, self.context.terminal_proxies, strict=True)
            ]
        )
        self.buffer.record(rollout.levels, forgone.amax(dim=0) - earned.mean, earned.best)

    def state_dict(self) -> dict[str, Any]:
        return {"buffer": self.buffer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.buffer.load_state_dict(state["buffer"], self.context.levels_type)


def _rewards(rollout: Rollout, goal: int, terminal: bool) -> Tensor:
    """Return the reward of each step if the episode were rewarded for ``goal``, ``float32[T, N]``.

    If the goal is ``terminal``, its first event would have ended the episode. Later steps then earn nothing.
    """
    rewards = rollout.events[..., goal].float()
    if not terminal:
        return rewards
    over = torch.zeros_like(rewards[0], dtype=torch.bool)
    for reward, ended in zip(rewards, rollout.done, strict=True):
        achieved = reward > 0
        reward[over] = 0.0
        over = (over | achieved) & ~ended
    return rewards
