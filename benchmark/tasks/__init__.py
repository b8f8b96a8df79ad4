"""The tasks, by id. A new one is a file of its own and a line here."""

from __future__ import annotations

from typing import Any

import gymnasium

from benchmark.errors import RequestError, unknown_name
from benchmark.tasks.base import Task
from benchmark.tasks.corner import Corner
from benchmark.tasks.fraud import Fraud

TASKS: dict[str, type[Task[Any]]] = {
    "corner": Corner,
    "fraud": Fraud,
}


def make_task(task_id: str, **parameters: Any) -> Task[Any]:
    """Build the task ``task_id`` with its own parameters (``size`` and the like).

    Raises:
        RequestError: there is no such task, or it does not take these parameters.
    """
    if task_id not in TASKS:
        raise unknown_name("task", task_id, TASKS)
    try:
        return TASKS[task_id](**parameters)
    except TypeError as error:
        raise RequestError(f"Task {task_id!r} does not take {parameters!r}: {error}.") from error


def register_environments() -> None:
    """Register every task with Gymnasium as ``goalposts/<Task>-v<version>``; repeated calls change nothing."""
    module = "benchmark.tasks.gymnasium_env"
    for task_id, task in TASKS.items():
        name = f"goalposts/{task.__name__}-v{task.version}"
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=f"{module}:GoalpostsEnv",
                vector_entry_point=f"{module}:GoalpostsVectorEnv",
                kwargs={"task": task_id},
            )


register_environments()
