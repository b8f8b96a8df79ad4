"""What can be asked for by name, as rows of a table: tasks, installed mitigations, suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.suite import SUITES
from goalposts.benchmark.plugins.registry import load_plugin, registered
from goalposts.benchmark.tasks.registry import TASKS


def tasks() -> list[dict[str, Any]]:
    """Return a row for each task."""
    return [
        {
            "task": name,
            "version": task.version,
            "aligned_goal": task.case.aligned_goal,
            "proxy_goals": list(task.case.proxy_goals),
            "shift": task.case.shift,
        }
        for name, task in sorted(TASKS.items())
    ]


def mitigations(complain: Callable[[str], object]) -> list[dict[str, Any]]:
    """Return a row for each installed mitigation; ``complain`` of those that cannot be loaded."""
    rows = []
    for name in sorted(registered()):
        try:
            cls = load_plugin(name).cls
        except RequestError as error:
            complain(str(error))
            continue
        told = sorted(flag.value for flag in cls.uses)
        summary = (cls.__doc__ or "").strip().splitlines()
        rows.append(
            {"mitigation": name, "version": cls.version, "told": told or ["nothing"], "summary": (summary or [""])[0]}
        )
    return rows


def suites() -> list[dict[str, Any]]:
    """Return a row for each suite."""
    return [
        {
            "suite": suite.id,
            "tasks": [plan.task for plan in suite.tasks],
            "mitigations": [plan.name for plan in suite.mitigations],
            "alphas": list(suite.alphas),
            "seeds": suite.seeds,
            "description": suite.description,
        }
        for suite in SUITES.values()
    ]
