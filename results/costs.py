"""What each mitigation cost: time and memory of a cell.

Costs depend on the machine. They are not in the leaderboard, because equal runs must give equal leaderboards. Its
entries have the steps and the regret.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping

from goalposts.benchmark.experiment.record import Record
from goalposts.results.leaderboard import Leaderboard


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of the cells behind one entry; on inapplicable tasks of the baseline's cells, as in its score."""

    seconds: float | None
    """Seconds of a cell: mean over tasks of the median over cells, with evaluation; None if a task has none."""
    memory_bytes: int | None
    """Peak of the task that needs most. A task's peak is its lowest cell: a process keeps memory of earlier cells."""


def costs(leaderboard: Leaderboard, records: Iterable[Record]) -> dict[tuple[str, float], Cost]:
    """Return the cost of each entry, by mitigation and disambiguation rate."""
    done = [record for record in records if record.status == "done"]
    found = {}
    for entry in leaderboard.entries:
        groups: dict[str, list[Record]] = {}
        for record in done:
            borrowed = record.cell.task in entry.inapplicable
            own = record.cell.mitigation == (leaderboard.baseline if borrowed else entry.mitigation)
            if own and (record.cell.alpha == entry.alpha or record.fixed_rate):
                groups.setdefault(record.cell.task, []).append(record)
        found[entry.mitigation, entry.alpha] = _cost(groups)
    return found


def _cost(groups: Mapping[str, list[Record]]) -> Cost:
    times = [
        statistics.median(seconds)
        for group in groups.values()
        if (seconds := [record.timing.wall_seconds for record in group if record.timing.wall_seconds is not None])
    ]
    peaks = [min(record.timing.peak_memory_bytes for record in group) for group in groups.values()]
    return Cost(statistics.fmean(times) if len(times) == len(groups) and times else None, max(peaks, default=None))
