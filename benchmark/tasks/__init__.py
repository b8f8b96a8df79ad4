"""The tasks, by id. A new one is a file of its own and a line here."""

from __future__ import annotations

import inspect
from typing import Any

from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.loading import is_file, load_from_file
from goalposts.benchmark.tasks.base import Task
from goalposts.benchmark.tasks.coinrun import CoinRun
from goalposts.benchmark.tasks.convoy import Convoy
from goalposts.benchmark.tasks.corner import Corner, CornerFull
from goalposts.benchmark.tasks.dish import Dish, DishFull
from goalposts.benchmark.tasks.fraud import Fraud
from goalposts.benchmark.tasks.heist_sprites import HeistSprites
from goalposts.benchmark.tasks.keys_and_chests import KeysAndChests, KeysAndChestsFull
from goalposts.benchmark.tasks.maze_corner import MazeCorner
from goalposts.benchmark.tasks.monsters import Monsters, MonstersFull
from goalposts.benchmark.tasks.triage import Triage

TASKS: dict[str, type[Task[Any]]] = {
    "coinrun": CoinRun,
    "convoy": Convoy,
    "corner": Corner,
    "corner_full": CornerFull,
    "dish": Dish,
    "dish_full": DishFull,
    "fraud": Fraud,
    "heist_sprites": HeistSprites,
    "keys_and_chests": KeysAndChests,
    "keys_and_chests_full": KeysAndChestsFull,
    "maze_corner": MazeCorner,
    "monsters": Monsters,
    "monsters_full": MonstersFull,
    "triage": Triage,
}


def task_class(reference: str) -> type[Task[Any]]:
    """Return the class of the task with id ``reference``, or the one that ``path.py:Class`` names.

    Raises:
        RequestError: there is no such task, file or class, or it is no complete task.
    """
    if is_file(reference):
        return _checked(load_from_file(reference, "Task")[1], reference)
    if reference not in TASKS:
        raise unknown_name("task", reference, TASKS)
    return TASKS[reference]


def _checked(cls: Any, reference: str) -> type[Task[Any]]:
    if not (inspect.isclass(cls) and issubclass(cls, Task)):
        raise RequestError(f"{reference!r} is no task; subclass goalposts.Task, or one of its kinds.")
    names = ("id", "version", "case", "goals", "shifts", "levels_type", "actions", "certificate_class")
    missing = sorted({*cls.__abstractmethods__, *(name for name in names if not hasattr(cls, name))})
    if missing:
        raise RequestError(f"Task {reference!r} lacks {', '.join(missing)}; add them to the class.")
    roles = [goal.role for goal in cls.goals]
    if roles[:1] != ["aligned"] or roles.count("aligned") > 1 or "proxy" not in roles or roles.count("candidate") < 2:
        raise RequestError(
            f"Task {reference!r} has goals {roles!r}; give one aligned goal, then a proxy or more, and two candidates."
        )
    return cls


def make_task(task_id: str, **parameters: Any) -> Task[Any]:
    """Build a task with its own parameters (``size`` and the like).

    Args:
        task_id: of a registered task, or ``path.py:Class``.
        parameters: the task's own.

    Raises:
        RequestError: there is no such task, or it does not take these parameters.
    """
    cls = task_class(task_id)
    try:
        return cls(**parameters)
    except TypeError as error:
        known = _parameters(cls)
        if unknown := sorted(parameters.keys() - known):
            raise unknown_name(f"parameter of task {task_id!r}", unknown[0], known) from error
        raise RequestError(f"Task {task_id!r} does not take {parameters!r}: {error}.") from error


def _parameters(cls: type[Task[Any]]) -> set[str]:
    """Return the names of a task's own parameters, those included that it passes on to its base."""
    known: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            known |= {one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"}
            if not any(one.kind is one.VAR_KEYWORD for one in parameters):
                break
    return known
