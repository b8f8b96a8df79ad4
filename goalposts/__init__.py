"""Goalposts: a benchmark of training mitigations for goal misgeneralization.

This facade is all that plugins, tasks of one's own and notebooks need to import. What it offers is loaded when it is
first used, so that the command line starts at once. Gymnasium knows the tasks wherever both are imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from goalposts.benchmark.tasks.gymnasium_ids import register_once_imported

if TYPE_CHECKING:
    from goalposts.benchmark.agent import Agent
    from goalposts.benchmark.experiment.agents import load_agent
    from goalposts.benchmark.experiment.evaluation import evaluate
    from goalposts.benchmark.plugins.context import Context
    from goalposts.benchmark.plugins.knowledge import Knowledge
    from goalposts.benchmark.plugins.mitigation import Mitigation, ModuleSpec, sample_actions
    from goalposts.benchmark.plugins.rollout import Rollout
    from goalposts.benchmark.tasks.drawing import Picture
    from goalposts.benchmark.tasks.environment import Advance, BatchedEnv
    from goalposts.benchmark.tasks.kinds.correlated import CorrelatedTask
    from goalposts.benchmark.tasks.kinds.decisions import DecisionEnv, DecisionLevels, DecisionParameters, DecisionTask
    from goalposts.benchmark.tasks.kinds.grid import (
        GridEnv,
        GridLevels,
        GridParameters,
        GridTask,
        distances,
        open_cell,
        toggled,
    )
    from goalposts.benchmark.tasks.kinds.reach import ReachEnv, ReachTask
    from goalposts.benchmark.tasks.levels import Levels
    from goalposts.benchmark.tasks.parameters import Parameters
    from goalposts.benchmark.tasks.registry import make_task
    from goalposts.benchmark.tasks.task import Task
    from goalposts.benchmark.tasks.vocabulary import BENIGN_SHIFT, IN_DISTRIBUTION, Case, Goal, SmallPlan
    from goalposts.results.frames import read_leaderboard, read_records

__all__ = [
    "BENIGN_SHIFT",
    "IN_DISTRIBUTION",
    "Advance",
    "Agent",
    "BatchedEnv",
    "Case",
    "Context",
    "CorrelatedTask",
    "DecisionEnv",
    "DecisionLevels",
    "DecisionParameters",
    "DecisionTask",
    "Goal",
    "GridEnv",
    "GridLevels",
    "GridParameters",
    "GridTask",
    "Knowledge",
    "Levels",
    "Mitigation",
    "ModuleSpec",
    "Parameters",
    "Picture",
    "ReachEnv",
    "ReachTask",
    "Rollout",
    "SmallPlan",
    "Task",
    "distances",
    "evaluate",
    "load_agent",
    "make_task",
    "open_cell",
    "read_leaderboard",
    "read_records",
    "sample_actions",
    "toggled",
]
__version__ = "0.1.0"

_MODULES = {
    "goalposts.benchmark.agent": ("Agent",),
    "goalposts.benchmark.experiment.agents": ("load_agent",),
    "goalposts.benchmark.experiment.evaluation": ("evaluate",),
    "goalposts.benchmark.plugins.context": ("Context",),
    "goalposts.benchmark.plugins.knowledge": ("Knowledge",),
    "goalposts.benchmark.plugins.mitigation": (
        "Mitigation",
        "ModuleSpec",
        "sample_actions",
    ),
    "goalposts.benchmark.plugins.rollout": ("Rollout",),
    "goalposts.benchmark.tasks.drawing": ("Picture",),
    "goalposts.benchmark.tasks.environment": (
        "Advance",
        "BatchedEnv",
    ),
    "goalposts.benchmark.tasks.kinds.correlated": ("CorrelatedTask",),
    "goalposts.benchmark.tasks.kinds.decisions": (
        "DecisionEnv",
        "DecisionLevels",
        "DecisionParameters",
        "DecisionTask",
    ),
    "goalposts.benchmark.tasks.kinds.grid": (
        "GridEnv",
        "GridLevels",
        "GridParameters",
        "GridTask",
        "distances",
        "open_cell",
        "toggled",
    ),
    "goalposts.benchmark.tasks.kinds.reach": (
        "ReachEnv",
        "ReachTask",
    ),
    "goalposts.benchmark.tasks.levels": ("Levels",),
    "goalposts.benchmark.tasks.parameters": ("Parameters",),
    "goalposts.benchmark.tasks.registry": ("make_task",),
    "goalposts.benchmark.tasks.task": ("Task",),
    "goalposts.benchmark.tasks.vocabulary": (
        "BENIGN_SHIFT",
        "IN_DISTRIBUTION",
        "Case",
        "Goal",
        "SmallPlan",
    ),
    "goalposts.results.frames": (
        "read_leaderboard",
        "read_records",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
"""Where each public name lives."""

register_once_imported()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'goalposts' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
