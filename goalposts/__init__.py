"""Goalposts: a benchmark of training mitigations for goal misgeneralization.

This facade is all that plugins and notebooks need to import. What it offers is loaded when it is first used, so that
the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.mitigation import Context, Knowledge, Mitigation, ModuleSpec, Rollout, sample_actions
    from benchmark.tasks import make_task
    from benchmark.tasks.levels import Levels

__all__ = [
    "Context",
    "Knowledge",
    "Levels",
    "Mitigation",
    "ModuleSpec",
    "Rollout",
    "make_task",
    "sample_actions",
]
__version__ = "0.1.0"

_MODULES = {"Levels": "benchmark.tasks.levels", "make_task": "benchmark.tasks"}
"""Where a public name lives, if not in the plugin contract."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'goalposts' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "benchmark.mitigation")), name)
