"""Results of evaluated episodes: outcome, length and return of each, and the counts of each split."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from goalposts.benchmark.tasks.environment import BatchedEnv
from goalposts.benchmark.tasks.episodes import MakePolicy, watched_episodes
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import ASKED, LOST


@dataclasses.dataclass(frozen=True)
class Episodes:
    """The results of one episode on each level."""

    outcome: Tensor
    """``int64[num_levels]``, outcome codes."""
    length: Tensor
    """``int64[num_levels]``, in steps."""
    discounted_return: Tensor
    """``float64[num_levels]``, for the rewarded goal. By default that is the aligned one."""
    timed_out: Tensor
    """``bool[num_levels]``: the episode ended at the time limit. Other lost episodes ended in death."""

    def count(self, code: int) -> int:
        """Return how many episodes had the outcome ``code``."""
        return int((self.outcome == code).sum())


def play(
    task: Task[Any],
    levels: Levels,
    make_policy: MakePolicy,
    *,
    gamma: float = 1.0,
    ask_share: float = 1.0,
    goal: int = 0,
    device: torch.device | str = "cpu",
) -> Episodes:
    """Play one episode on every level.

    Args:
        task: the task of the levels.
        levels: what to play on.
        make_policy: builds the policy after the episodes have started.
        gamma: discount of the returns.
        ask_share: largest share of simultaneous episodes that may receive help, first come, first served.
        goal: the rewarded goal.
        device: where to play.

    Raises:
        NonFiniteError: an observation holds NaN or infinity.
    """
    most = task.evaluation_traits.together or len(levels)
    parts = []
    env = task.make_env(min(most, len(levels)), device)
    for first in range(0, len(levels), most):
        batch = levels[first : first + most].to(device)
        if len(batch) < env.num_envs:
            env = task.make_env(len(batch), device)
        parts.append(_play_together(task, batch, env, make_policy, gamma, ask_share, goal))
    return Episodes(
        *(torch.cat([getattr(part, field.name) for part in parts]).cpu() for field in dataclasses.fields(Episodes))
    )


def _play_together(
    task: Task[Any],
    levels: Levels,
    env: BatchedEnv[Any],
    make_policy: MakePolicy,
    gamma: float,
    ask_share: float,
    goal: int,
) -> Episodes:
    count, device = len(levels), levels.device
    asked = torch.zeros(count, dtype=torch.bool, device=device)
    timed_out = torch.zeros_like(asked)
    length = torch.zeros(count, dtype=torch.int64, device=device)
    total = torch.zeros(count, dtype=torch.float64, device=device)
    history = torch.zeros(task.time_limit, count, len(task.goals), dtype=torch.bool, device=device)
    goals = torch.full_like(length, goal)
    for moment in watched_episodes(task, levels, env, make_policy, goals=goals, ask_share=ask_share):
        history[moment.time] = moment.events
        reward = moment.events[:, goal].double() - moment.cost
        total += gamma**moment.time * torch.where(moment.played, reward, 0.0)
        length += moment.played
        asked |= moment.asked
        timed_out |= moment.truncated
    outcome = task.outcome(levels, history)
    outcome = torch.where(asked & (outcome == LOST), ASKED, outcome)
    return Episodes(outcome, length, total, timed_out)
