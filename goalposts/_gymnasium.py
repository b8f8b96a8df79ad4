"""Lets Gymnasium know the tasks as soon as it is imported, before or after this package.

``import goalposts`` does not import Gymnasium: the command line starts faster without it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME = "gymnasium"


class _WhenImported(MetaPathFinder):
    """Finds Gymnasium where it is, and registers the tasks after its import. To look for it alone changes nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != NAME:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(NAME)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                sys.meta_path.remove(self)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    from goalposts.benchmark.tasks.gymnasium_ids import register_built_in

    register_built_in()


def register_with_gymnasium() -> None:
    """Register the built-in tasks now, or when Gymnasium is imported."""
    if NAME in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WhenImported())
