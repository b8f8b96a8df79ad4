"""Tells Gymnasium the names of the built-in tasks once it is imported, before any task is loaded.

Gymnasium looks for no plugins. Importing it here would cost every command its fifth of a second.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

ENVIRONMENT = "goalposts.benchmark.tasks.gymnasium_env"
_GYMNASIUM = "gymnasium"


def register_built_in() -> None:
    """Register every built-in task under its class and version, such as ``goalposts/Corner-v1``."""
    from goalposts.benchmark.catalogue import kept_task_cards

    for card in kept_task_cards().values():
        register(card.gymnasium_id, card.id)


def register(gymnasium_id: str, task: str) -> None:
    """Register a task, single and vectorized, unless it is registered.

    Args:
        gymnasium_id: such as ``goalposts/Corner-v1``.
        task: its id, or ``path.py:Class``.
    """
    from gymnasium.envs import registration

    if gymnasium_id not in registration.registry:
        registration.register(
            gymnasium_id,
            entry_point=f"{ENVIRONMENT}:GoalpostsEnv",
            vector_entry_point=f"{ENVIRONMENT}:GoalpostsVectorEnv",
            kwargs={"task": task},
        )


def register_once_imported() -> None:
    """Register the built-in tasks now if Gymnasium is imported, else as soon as it is."""
    if _GYMNASIUM in sys.modules:
        register_built_in()
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


class _Waiting:
    """A finder that waits for the import of Gymnasium."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _GYMNASIUM:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            register_built_in()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
