"""Finds tasks by registered id (an entry point) or by ``path.py:Class``."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.loading import TASKS, import_point, is_file, load_from_file, registered
from goalposts.benchmark.sources import FRAMEWORK, source_sha256
from goalposts.benchmark.tasks.gymnasium_ids import register
from goalposts.benchmark.tasks.task import Task

DECLARED = ("id", "version", "case", "goals", "shifts", "levels_type", "actions", "certificate_class")
"""Attributes that the class of a task must declare."""


@dataclasses.dataclass(frozen=True)
class LoadedTask:
    """The class of a task and how to find it again."""

    reference: str
    """How another process finds it: a registered id, or an absolute ``path.py:Class``."""
    cls: type[Task[Any]]
    sha256: str | None
    """Hash of its Python files. None for a built-in task, which has a version instead."""


def load_task(reference: str) -> LoadedTask:
    """Load the task with the id ``reference``, or the one that ``path.py:Class`` names.

    Raises:
        RequestError: there is no such task, file or class, its import fails, or the task is incomplete.
    """
    if is_file(reference):
        path, found = load_from_file(reference, "Task")
        cls = _checked(found, reference)
        if cls.id in registered(TASKS):
            raise RequestError(f"Task {reference!r} has the id {cls.id!r}, which is registered; give it another id.")
        register_environment(cls, f"{path}:{cls.__name__}")
        return LoadedTask(f"{path}:{cls.__name__}", cls, source_sha256(cls, Task))
    if reference not in registered(TASKS):
        raise unknown_name("task", reference, registered(TASKS))
    return _load_registered(reference)


@functools.cache
def _load_registered(name: str) -> LoadedTask:
    cls = _checked(import_point(registered(TASKS)[name], "Task"), name)
    if cls.id != name:
        raise RequestError(f"Task {name!r} calls itself {cls.id!r}; register it under its id.")
    register_environment(cls, name)
    built_in = cls.__module__.startswith(f"{FRAMEWORK}.")
    return LoadedTask(name, cls, None if built_in else source_sha256(cls, Task))


def task_class(reference: str) -> type[Task[Any]]:
    """Return the class of a task; see :func:`load_task`."""
    return load_task(reference).cls


def register_environment(cls: type[Task[Any]], reference: str) -> None:
    """Register a task that is not built in with Gymnasium. The built-in ones are registered already."""
    register(f"goalposts/{cls.__name__}-v{cls.version}", reference)


def _checked(cls: Any, reference: str) -> type[Task[Any]]:
    if not (inspect.isclass(cls) and issubclass(cls, Task)):
        raise RequestError(f"{reference!r} is not a task; subclass goalposts.Task, or one of its kinds.")
    missing = sorted({*cls.__abstractmethods__, *(name for name in DECLARED if not hasattr(cls, name))})
    if missing:
        raise RequestError(f"Task {reference!r} lacks {', '.join(missing)}; add them to the class.")
    roles = [goal.role for goal in cls.goals]
    if roles[:1] != ["aligned"] or roles.count("aligned") > 1 or "proxy" not in roles or roles.count("candidate") < 2:
        raise RequestError(
            f"Task {reference!r} has goals {roles!r}; give one aligned goal, then a proxy or more, and two candidates."
        )
    return cls


def make_task(reference: str, **parameters: Any) -> Task[Any]:
    """Build a task with its own parameters (``size`` and the like).

    Args:
        reference: the id of a registered task, or ``path.py:Class``.
        parameters: the task's own.

    Raises:
        RequestError: there is no such task, or it does not take these parameters.
    """
    return load_task(reference).cls(**parameters)
