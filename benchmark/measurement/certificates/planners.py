"""Checks planners against exhaustive search, and against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from goalposts.benchmark.measurement.certificates.claims import Claim
from goalposts.benchmark.measurement.certificates.exhaustive import optimal_values
from goalposts.benchmark.measurement.episodes import play
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.environment import BatchedEnv
from goalposts.benchmark.tasks.episodes import Policy, reference_policy, watched_episodes
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import PLANNING_GAMMA

SOLVED_LEVELS = 20
"""Levels on which planners are checked against value iteration."""
PLANNERS = "planners and their policies earn what value iteration over all states finds possible"


def planners_claim(task: Task[Any]) -> Claim:
    """Check the planners of a small instance against value iteration over all states."""
    small = make_small(task)
    good = total = 0
    if not task.exhaustible:
        return Claim(PLANNERS, False, "no small instance", "Give 'exhaustible', parameters of a small instance.")
    levels = small.sample_levels(SOLVED_LEVELS, 0.5, generator("certificate", small.id, "exhaustive"))
    for goal in range(len(small.goals)):
        for gamma in (0.9, PLANNING_GAMMA):
            solved = optimal_values(small, levels, goal, gamma)
            planned = small.optimal_return(levels, goal, gamma).to(solved)
            found = earned(small, levels, goal, gamma)
            good += int((((planned - solved).abs() < 1e-6) & ((found - solved).abs() < 1e-6)).sum())
            total += len(levels)
    return Claim(
        PLANNERS,
        good == total,
        f"{good}/{total} (levels × goals × discounts, on a small instance)",
        "Check 'optimal_return' and the planner's policy against the environment's own steps.",
    )


def make_small(task: Task[Any]) -> Task[Any]:
    """Return an instance of the same task that is small enough for exhaustive search."""
    return type(task)(**(task.exhaustible or {}))


def earned(task: Task[Any], levels: Levels, goal: int, gamma: float) -> Tensor:
    """Return the return of the planner's policy for ``goal`` when that goal is rewarded, ``float64[num_levels]``."""
    name = task.goals[goal].name
    planned = play(task, levels, lambda env: reference_policy(task, name, env, gamma=gamma), gamma=gamma, goal=goal)
    return planned.discounted_return


def optimal_sets(task: Task[Any], levels: Levels, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the optimal actions for the aligned goal and for each proxy, at each step of half-random episodes.

    Args:
        task: a task with exact planners.
        levels: one episode is played on each.
        random: the generator for the random half of the actions.

    Yields:
        Two sets, each ``bool[n, num_actions]`` for the ``n`` episodes that take the step.
    """
    best: list[Tensor] = []

    def make_policy(env: BatchedEnv[Any]) -> Policy:
        sets: list[Callable[[], Tensor]] = [task.optimal_actions(goal, env) for goal in (0, *task.proxies)]

        def policy(_observation: Tensor) -> tuple[Tensor, None]:
            best[:] = [optimal() for optimal in sets]
            anything = torch.randint(task.num_actions, (len(levels),), generator=random)
            lost = torch.rand(len(levels), generator=random) < 0.5
            return torch.where(lost, anything, best[0].int().argmax(dim=1)), None

        return policy

    for moment in watched_episodes(task, levels, task.make_env(len(levels)), make_policy):
        for other in best[1:]:
            yield best[0][moment.played], other[moment.played]
