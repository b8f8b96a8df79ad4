"""Goalposts: a benchmark of training mitigations for goal misgeneralization.

This facade is all that plugins, tasks of one's own and notebooks need to import. What it offers is loaded when it is
first used, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from goalposts.benchmark.plugins.mitigation import (
        Context,
        Knowledge,
        Mitigation,
        ModuleSpec,
        Rollout,
        sample_actions,
    )
    from goalposts.benchmark.tasks import make_task
    from goalposts.benchmark.tasks.base import BENIGN_SHIFT, IN_DISTRIBUTION, Advance, BatchedEnv, Case, Goal, Task
    from goalposts.benchmark.tasks.drawing import Picture
    from goalposts.benchmark.tasks.kinds.correlated import CorrelatedTask
    from goalposts.benchmark.tasks.kinds.decisions import DecisionEnv, DecisionLevels, DecisionTask
    from goalposts.benchmark.tasks.kinds.grid import GridEnv, GridLevels, GridTask, distances, open_cell, toggled
    from goalposts.benchmark.tasks.kinds.reach import ReachEnv, ReachTask
    from goalposts.benchmark.tasks.levels import Levels

__all__ = [
    "BENIGN_SHIFT",
    "IN_DISTRIBUTION",
    "Advance",
    "BatchedEnv",
    "Case",
    "Context",
    "CorrelatedTask",
    "DecisionEnv",
    "DecisionLevels",
    "DecisionTask",
    "Goal",
    "GridEnv",
    "GridLevels",
    "GridTask",
    "Knowledge",
    "Levels",
    "Mitigation",
    "ModuleSpec",
    "Picture",
    "ReachEnv",
    "ReachTask",
    "Rollout",
    "Task",
    "distances",
    "make_task",
    "open_cell",
    "sample_actions",
    "toggled",
]
__version__ = "0.1.0"

_MODULES = {
    "goalposts.benchmark.tasks": ("make_task",),
    "goalposts.benchmark.tasks.base": (
        "BENIGN_SHIFT",
        "IN_DISTRIBUTION",
        "Advance",
        "BatchedEnv",
        "Case",
        "Goal",
        "Task",
    ),
    "goalposts.benchmark.tasks.kinds.correlated": ("CorrelatedTask",),
    "goalposts.benchmark.tasks.kinds.decisions": ("DecisionEnv", "DecisionLevels", "DecisionTask"),
    "goalposts.benchmark.tasks.drawing": ("Picture",),
    "goalposts.benchmark.tasks.kinds.grid": ("GridEnv", "GridLevels", "GridTask", "distances", "open_cell", "toggled"),
    "goalposts.benchmark.tasks.levels": ("Levels",),
    "goalposts.benchmark.tasks.kinds.reach": ("ReachEnv", "ReachTask"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
"""Where a public name lives, if not in the plugin contract."""

ENVIRONMENTS = {
    "coinrun": "CoinRun-v1",
    "convoy": "Convoy-v2",
    "corner": "Corner-v1",
    "corner_full": "CornerFull-v1",
    "dish": "Dish-v1",
    "dish_full": "DishFull-v1",
    "fraud": "Fraud-v1",
    "heist_sprites": "HeistSprites-v1",
    "keys_and_chests": "KeysAndChests-v1",
    "keys_and_chests_full": "KeysAndChestsFull-v1",
    "maze_corner": "MazeCorner-v1",
    "monsters": "Monsters-v1",
    "monsters_full": "MonstersFull-v1",
    "triage": "Triage-v1",
}
"""Class and version of each task: Gymnasium knows it as ``goalposts/`` and this, before the task itself is loaded."""

for _task, _environment in ENVIRONMENTS.items():
    if f"goalposts/{_environment}" not in gymnasium.registry:
        gymnasium.register(
            f"goalposts/{_environment}",
            entry_point="goalposts.benchmark.tasks.gymnasium_env:GoalpostsEnv",
            vector_entry_point="goalposts.benchmark.tasks.gymnasium_env:GoalpostsVectorEnv",
            kwargs={"task": _task},
        )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'goalposts' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "goalposts.benchmark.plugins.mitigation")), name)
