"""Every registered task at a size that tests can afford."""

from __future__ import annotations

from typing import Any

import pytest

from goalposts.benchmark import loading
from goalposts.benchmark.experiment.conformance import tiny_plan
from goalposts.benchmark.tasks.procgen.task import ProcgenTask
from goalposts.benchmark.tasks.registry import task_class
from goalposts.benchmark.tasks.task import Task

TASKS: dict[str, type[Task[Any]]] = {name: task_class(name) for name in loading.registered(loading.TASKS)}
"""The class of each registered task."""
GAMES = sorted(name for name, task in TASKS.items() if issubclass(task, ProcgenTask))
"""Tasks whose levels are made by a game, and take their time."""
TENSOR_TASKS = sorted(set(TASKS) - set(GAMES))
"""Tasks whose levels and environments are tensors alone."""
EVERY_RUN = ("corner", "fraud")
"""A grid and a task of decisions."""
MOSTLY_SLOW = [pytest.param(name, marks=() if name in EVERY_RUN else pytest.mark.slow) for name in TENSOR_TASKS]
"""The tensor tasks, for a test of what hardly depends on the task: ``make test`` runs it on one task of each kind."""


def parameters(task_id: str) -> dict[str, Any]:
    """Return the parameters that the conformance suite has for a task."""
    return tiny_plan(task_id).parameters
