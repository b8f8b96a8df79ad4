"""The one loop that plays episodes outside training: for agents, reference policies, certificates and pictures.

Training has its own loop, which continues across episodes and learns from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from goalposts.benchmark.errors import NonFiniteError
from goalposts.benchmark.tasks.environment import BatchedEnv
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import PLANNING_GAMMA

Policy = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Maps observations to ``int64[n]`` actions and, optionally, to the episodes that ask for help, ``bool[n]``."""
MakePolicy = Callable[[BatchedEnv[Any]], Policy]
"""Builds a policy after the episodes have started. Reference policies read the environment, agents do not."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """One step of all episodes. Finished episodes no longer take part."""

    time: int
    """Steps before this one."""
    actions: Tensor
    """``int64[n]``"""
    asked: Tensor
    """``bool[n]``: the episodes that received help at this step. They ended before it."""
    played: Tensor
    """``bool[n]``: the episodes that took this step."""
    events: Tensor
    """``bool[n, num_goals]``, False for episodes that took no step."""
    cost: Tensor
    """``float[n]``"""
    truncated: Tensor
    """``bool[n]``: the time limit ended the episode at this step."""
    going_on: Tensor
    """``bool[n]``: the episodes that continue after this step."""


def watched_episodes(
    task: Task[Any],
    levels: Levels,
    env: BatchedEnv[Any],
    make_policy: MakePolicy,
    *,
    goals: Tensor | None = None,
    ask_share: float = 1.0,
    settle: bool = True,
) -> Iterator[Moment]:
    """Play one episode on every level, and yield each step until the last episode ends.

    Args:
        task: the task of the levels.
        levels: what to play on, on the environment's device.
        env: as many environments as there are levels.
        make_policy: builds the policy after the episodes have started.
        goals: ``int64[n]``, the goal each episode is rewarded for. By default the aligned one.
        ask_share: largest share of the episodes that may receive help, first come, first served. An episode that asks
            later continues with the chosen action.
        settle: end an episode with the event that names it, if the task says so.

    Raises:
        NonFiniteError: an observation holds NaN or infinity.
    """
    count, device = len(levels), levels.device
    env.watched = True
    observation = env.reset(levels, goals=goals)
    policy = make_policy(env)
    alive = torch.ones(count, dtype=torch.bool, device=device)
    helped = 0
    for time in range(task.time_limit):
        if observation.is_floating_point() and not bool(torch.isfinite(observation).all()):
            raise NonFiniteError(f"The observation at evaluation step {time} holds NaN or infinity.")
        actions, asks = policy(observation)
        if asks is None:
            asks = torch.zeros_like(alive)
        else:
            asks = asks & alive
            asks &= asks.cumsum(dim=0) <= int(ask_share * count) - helped
            helped += int(asks.sum())
            alive = alive & ~asks
        step = env.step(actions)
        events = step.events & alive.unsqueeze(1)
        over = step.terminated | step.truncated
        going_on = alive & ~(over | task.settled(events)) if settle else alive & ~over
        yield Moment(time, actions, asks, alive, events, step.cost, alive & step.truncated, going_on)
        alive, observation = going_on, step.observation
        if not bool(alive.any()):
            return


def reference_policy(
    task: Task[Any],
    name: str,
    env: BatchedEnv[Any],
    random: torch.Generator | None = None,
    gamma: float = PLANNING_GAMMA,
) -> Policy:
    """Return a reference policy.

    Args:
        task: the policy's task.
        name: ``aligned``, ``proxy``, ``random`` or the name of a goal.
        env: the episodes, already started.
        random: the generator of the policy ``random``. The other policies do not use it.
        gamma: discount at which the planner plans.

    Raises:
        RequestError: there is no such policy.
    """
    if name == "random":
        assert random is not None
        act = task.random_policy(env, random)
    else:
        act = task.planner_policy(task.reference_goal(name), env, gamma)
    return lambda observation: (act(observation), None)
