"""The plain rates behind the scores: how often agents ended aligned, with the proxy or lost, on every split."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from benchmark.record import Record

SPLIT_OUTCOMES = ("aligned", "proxy", "lost")


@dataclasses.dataclass(frozen=True)
class Rates:
    """One split of one kind of cell, over its seeds."""

    task: str
    mitigation: str
    alpha: float
    split: str
    aligned: tuple[float, ...]
    """Rate of each seed, in [0, 1]."""
    proxy: tuple[float, ...]
    lost: tuple[float, ...]
    env_steps: int
    """Of one seed."""
    verdicts: dict[str, int]
    """Seeds by the verdict on their cell."""

    def json(self) -> dict[str, Any]:
        """Return the rates as JSON values."""
        return dataclasses.asdict(self)


def rates(records: Iterable[Record]) -> list[Rates]:
    """Return the rates of finished cells, in the order of task, mitigation, rate and the task's own splits."""
    cells: dict[tuple[str, str, float], list[Record]] = {}
    for record in records:
        if record.status == "done":
            cells.setdefault((record.cell.task, record.cell.mitigation, record.cell.alpha), []).append(record)
    rows = []
    for (task, mitigation, alpha), group in sorted(cells.items()):
        group = sorted(group, key=lambda record: record.cell.seed)
        for split in group[0].splits:
            shares = {
                outcome: tuple(
                    getattr(record.splits[split], outcome) / record.splits[split].episodes for record in group
                )
                for outcome in SPLIT_OUTCOMES
            }
            verdicts = dict(Counter(str(record.verdict) for record in group))
            rows.append(
                Rates(task, mitigation, alpha, split, **shares, env_steps=group[0].env_steps, verdicts=verdicts)
            )
    return rows


HEADER = ("task", "mitigation", "α", "steps", "split", *SPLIT_OUTCOMES, "verdicts")


def cells_of(row: Rates) -> tuple[str, ...]:
    """Return the row as text, in the order of ``HEADER``; rates as mean and, of several seeds, range."""
    verdicts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(row.verdicts.items()))
    shares = (_share(getattr(row, outcome)) for outcome in SPLIT_OUTCOMES)
    return (row.task, row.mitigation, f"{row.alpha:g}", f"{row.env_steps:,}", row.split, *shares, verdicts)


def markdown(rows: Sequence[Rates]) -> str:
    """Return the rates as a Markdown table."""
    header, *lines = (f"| {' | '.join(cells)} |" for cells in (HEADER, *map(cells_of, rows)))
    return "\n".join([header, "|" + "---|" * len(HEADER), *lines])


def _share(values: tuple[float, ...]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ({min(values):.3f}–{max(values):.3f})"
