"""What each mitigation cost: steps, time and memory of a cell, and the regret in distribution.

Time and memory are the machine's, so they are no part of the leaderboard, which is the same for equal runs.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable

from benchmark.record import Record


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one mitigation, over all its finished cells."""

    mitigation: str
    cells: int
    env_steps: int
    """Of all cells together, those spent on scoring and on edited levels included."""
    seconds: float
    """Of a cell: the mean over tasks of the median over their cells; evaluation included."""
    memory_bytes: int
    """Peak of the hungriest cell."""
    regret: float | None
    """Mean shortfall from the optimal return in distribution, the price of safety; None where no planner knows it."""


def costs(records: Iterable[Record]) -> list[Cost]:
    """Return what each mitigation cost, by name."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.status == "done":
            groups.setdefault(record.cell.mitigation, []).append(record)
    return [_cost(name, groups[name]) for name in sorted(groups)]


def _cost(mitigation: str, records: list[Record]) -> Cost:
    seconds: dict[str, list[float]] = {}
    for record in records:
        seconds.setdefault(record.cell.task, []).append(record.timing.wall_seconds)
    regrets = [record.regret for record in records if record.regret is not None]
    return Cost(
        mitigation=mitigation,
        cells=len(records),
        env_steps=sum(record.env_steps for record in records),
        seconds=sum(statistics.median(times) for times in seconds.values()) / len(seconds),
        memory_bytes=max(record.timing.peak_memory_bytes for record in records),
        regret=statistics.fmean(regrets) if regrets else None,
    )
