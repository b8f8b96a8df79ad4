"""Every registered task at a size that tests can afford."""

from __future__ import annotations

from typing import Any

from goalposts.benchmark.experiment.conformance import small_plan
from goalposts.benchmark.tasks.procgen.task import ProcgenTask
from goalposts.benchmark.tasks.registry import TASKS

GAMES = sorted(name for name, task in TASKS.items() if issubclass(task, ProcgenTask))
"""Tasks whose levels are made by a game, and take their time."""
TENSOR_TASKS = sorted(set(TASKS) - set(GAMES))
"""Tasks whose levels and environments are tensors alone."""


def parameters(task_id: str) -> dict[str, Any]:
    """Return the parameters that the conformance suite has for a task."""
    return small_plan(task_id).parameters
