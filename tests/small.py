"""Every registered task at a size that tests can afford."""

from __future__ import annotations

from typing import Any

from benchmark.suites import get_suite
from benchmark.tasks import TASKS
from benchmark.tasks.procgen.task import ProcgenTask

_SMOKE = {plan.task: plan.parameters for plan in get_suite("smoke").tasks}


GAMES = sorted(name for name, task in TASKS.items() if issubclass(task, ProcgenTask))
"""Tasks whose levels are made by a game, and take their time."""
TENSOR_TASKS = sorted(set(TASKS) - set(GAMES))
"""Tasks whose levels and environments are tensors alone."""
SMALL_GAME: dict[str, Any] = {"mode": "easy", "backgrounds": False, "plain": True, "pixels": 32, "time_limit": 60}


def parameters(task_id: str) -> dict[str, Any]:
    """Return the parameters of the smoke suite; a full view has those of its egocentric twin."""
    if task_id in GAMES:
        return {**SMALL_GAME, "plain": task_id != "heist_sprites"}  # Whose shapes a plain look would hide.
    return _SMOKE.get(task_id, _SMOKE.get(task_id.removesuffix("_full"), {}))
