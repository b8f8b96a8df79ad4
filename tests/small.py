"""Every registered task at a size that tests can afford."""

from __future__ import annotations

from typing import Any

from benchmark.suites import get_suite

_SMOKE = {plan.task: plan.parameters for plan in get_suite("smoke").tasks}


def parameters(task_id: str) -> dict[str, Any]:
    """Return the parameters of the smoke suite; a full view has those of its egocentric twin."""
    return _SMOKE.get(task_id, _SMOKE.get(task_id.removesuffix("_full"), {}))
