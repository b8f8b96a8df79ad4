"""Proxy adversary: searches for the levels on which the agent serves an anticipated proxy instead of the goal.

A method of our own. A level's score says how far the two come apart for the current agent: the discounted return that
its episodes would have earned had they been rewarded for a proxy, for the proxy that earns most, minus what they earned
for the goal. It is positive where the agent mistakes the proxy for the goal, 0 where it serves both at once or neither,
and negative where it serves the goal alone. No critic and no planner is asked: goals are compared by their events.

Every rollout plays three kinds of levels side by side: new ones of the training distribution; levels replayed from a
buffer of those scored before, by rank and staleness as in prioritized level replay (Jiang et al. 2021a); and one edited
child of each replayed level (unrestricted edits, as in Parker-Holder et al. 2022). All are trained on and scored, and
all enter the buffer if their score is high enough. The children are trained on because the levels that mislead the
agent most hold no reward that it would ever find; among their neighbours are some that do.
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
    """Trains on new levels and on those found, by editing, to set an anticipated proxy against the goal."""

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
    """Share of each rollout's levels that are replayed; as many are their children, the rest are new."""
    buffer_size: int = 1000
    """Levels kept."""
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
    """Return what each step would have earned had the episode been rewarded for ``goal``, ``float32[T, N]``.

    Where the goal is ``terminal`` its first event would have ended the episode, so that what follows earns nothing.
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
