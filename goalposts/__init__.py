"""Goalposts: a benchmark of training mitigations for goal misgeneralization.

This facade is all that plugins and notebooks need to import; heavy parts are loaded when they are first used.
"""

from __future__ import annotations

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
