"""Knowledge: what a mitigation may be given, and which goals it may then see."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from goalposts.benchmark.tasks.task import Task


class Knowledge(StrEnum):
    """Something that a mitigation may be given. A mitigation that declares none is in the blind track."""

    LEVEL_GENERATOR = "level_generator"
    """May draw from the randomized sampler."""
    LEVEL_EDITOR = "level_editor"
    """May mutate levels; unrestricted edits need ``level_generator`` too."""
    GOAL_INPUT = "goal_input"
    """The agent is shown its goal."""
    CANDIDATE_REWARDS = "candidate_rewards"
    """May reward candidate goals other than the aligned one."""
    PROXY_GOALS = "proxy_goals"
    """Knows which proxies to avoid, or rewards them."""
    PLANNER = "planner"
    """May use exact optimal values."""


def known_goals(task: Task[Any], uses: frozenset[Knowledge]) -> tuple[bool, ...]:
    """Return for each goal whether a mitigation that declares ``uses`` may reward it and see its events."""
    known = {0}
    if Knowledge.CANDIDATE_REWARDS in uses:
        known |= set(task.candidates)
    if Knowledge.PROXY_GOALS in uses:
        known |= set(task.proxies)
    return tuple(goal in known for goal in range(len(task.goals)))
