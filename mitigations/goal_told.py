"""The control of goal conditioning: the goal is an input, but always the same one."""

from __future__ import annotations

from .goal_input import GoalInput


class GoalTold(GoalInput):
    """Tells every episode the aligned goal: an input that never varies cannot teach what it means."""
