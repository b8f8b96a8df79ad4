"""The control for goal conditioning: the goal is an input, but always the same one."""

from __future__ import annotations

from .goal_input import GoalInput


class GoalTold(GoalInput):
    """Gives every episode the aligned goal as input. An input that never varies cannot teach its meaning."""
