"""Names for the user to choose from, as rows of a table: tasks, installed mitigations, suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from goalposts.benchmark import catalogue
from goalposts.benchmark.experiment.suite import get_suite, released_ids


def tasks() -> list[dict[str, Any]]:
    """Return a row for each task."""
    return [
        {
            "task": name,
            "version": card.version,
            "aligned_goal": card.case.aligned_goal,
            "proxy_goals": list(card.case.proxy_goals),
            "shift": card.case.shift,
        }
        for name, card in catalogue.task_cards().items()
    ]


def mitigations(complain: Callable[[str], object]) -> list[dict[str, Any]]:
    """Return a row for each installed mitigation. ``complain`` reports those that cannot be loaded."""
    return [
        {
            "mitigation": name,
            "version": card.version,
            "told": list(card.knowledge) or ["nothing"],
            "summary": card.summary,
        }
        for name, card in catalogue.mitigation_cards(complain).items()
    ]


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
        for suite in map(get_suite, released_ids())
    ]
