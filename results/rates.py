"""The rates behind the scores: how often agents ended aligned, with the proxy, lost or asking, on every split."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.measurement.counts import SplitCounts, SplitResult

SPLIT_OUTCOMES = ("aligned", "proxy", "asked", "lost")
REFERENCES = ("aligned_reference", "proxy_reference")


@dataclasses.dataclass(frozen=True)
class SplitRates:
    """One split of one kind of cell, over its seeds."""

    task: str
    mitigation: str
    alpha: float
    split: str
    aligned: tuple[float, ...]
    """Rate of each seed, in [0, 1]."""
    proxy: tuple[float, ...]
    asked: tuple[float, ...]
    lost: tuple[float, ...]
    timed_out: tuple[float, ...] | None
    """Rate of episodes that were lost because time ran out; the other lost ones died. None if a record lacks it."""
    aligned_reference: float | None
    """How often the aligned reference policy ended aligned; None during training."""
    proxy_reference: float | None
    """How often the proxy's reference policy ended aligned; None during training."""
    episodes: int
    """Of one seed."""
    env_steps: int
    """Of one seed."""
    verdicts: dict[str, int]
    """Number of seeds by verdict; empty during training."""

    def json(self) -> dict[str, Any]:
        """Return the rates as JSON values."""
        return dataclasses.asdict(self)


def rates(records: Iterable[Record]) -> list[SplitRates]:
    """Return the rates of finished cells, ordered by task, mitigation, rate, steps and the task's own splits.

    Cells that were evaluated during training have rows for each of these times, before the final ones.
    """
    cells: dict[tuple[str, str, float], list[Record]] = {}
    for record in records:
        if record.status == "done":
            cells.setdefault((record.cell.task, record.cell.mitigation, record.cell.alpha), []).append(record)
    rows = []
    for (task, mitigation, alpha), group in sorted(cells.items()):
        group = sorted(group, key=lambda record: record.cell.seed)
        verdicts = dict(Counter(str(record.verdict) for record in group))
        stages: dict[int, list[Mapping[str, SplitCounts]]] = {}
        for milestone in (one for record in group for one in record.series):
            stages.setdefault(milestone.env_steps, []).append(milestone.splits)
        for env_steps, seeds in sorted(stages.items()):
            rows += _rows(task, mitigation, alpha, seeds, env_steps, {})
        rows += _rows(task, mitigation, alpha, [record.splits for record in group], group[0].env_steps, verdicts)
    return rows


def _rows(
    task: str,
    mitigation: str,
    alpha: float,
    seeds: Sequence[Mapping[str, SplitCounts] | Mapping[str, SplitResult]],
    env_steps: int,
    verdicts: dict[str, int],
) -> list[SplitRates]:
    """Return one row for each split."""
    rows = []
    for split, first in seeds[0].items():
        shares: dict[str, Any] = {
            outcome: tuple(getattr(counts[split], outcome) / first.episodes for counts in seeds)
            for outcome in SPLIT_OUTCOMES
        }
        references: dict[str, Any] = {name: getattr(first, name, None) for name in REFERENCES}
        timed_out = [counts[split].timed_out for counts in seeds]
        rows.append(
            SplitRates(
                task,
                mitigation,
                alpha,
                split,
                **shares,
                **references,
                timed_out=None if None in timed_out else tuple((count or 0) / first.episodes for count in timed_out),
                episodes=first.episodes,
                env_steps=env_steps,
                verdicts=verdicts,
            )
        )
    return rows


HEADER = (
    *("task", "mitigation", "α", "steps", "split", "aligned", "proxy", "asked", "lost", "of them timed out"),
    *("reference", "proxy's reference", "verdicts"),
)
SECTION_HEADER = ("split", "aligned", "proxy", "asked", "lost", "of them\ntimed out", "refe-\nrences")


def cells_of(row: SplitRates) -> tuple[str, ...]:
    """Return the row as text, in the order of ``HEADER``.

    For several seeds a rate is the mean with the range. For one seed it comes with the 95% interval of its episodes.
    """
    *cell, verdicts = _cell(row)
    return (*cell, *_split(row, "{:.3f}"), verdicts)


def sections(rows: Iterable[SplitRates]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield a title and a table for each kind of cell, narrow enough for a terminal.

    The first row is ``SECTION_HEADER``, without *asked* if no agent asked. Every other row is a split, in percent. Its
    last part is the rates of the two references.
    """
    for cell, group in itertools.groupby(rows, key=_cell):
        task, mitigation, alpha, steps, verdicts = cell
        title = f"{task}, {mitigation}, α = {alpha}, {steps} steps" + (f": {verdicts}" if verdicts else "")
        splits = list(group)
        asked = any(any(row.asked) for row in splits)
        texts = (_split(row, "{:.0%}") for row in splits)
        table = [SECTION_HEADER, *((*row[:-2], " / ".join(filter(None, row[-2:]))) for row in texts)]
        at = SECTION_HEADER.index("asked")
        yield title, table if asked else [row[:at] + row[at + 1 :] for row in table]


def _cell(row: SplitRates) -> tuple[str, ...]:
    verdicts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(row.verdicts.items()))
    return row.task, row.mitigation, f"{row.alpha:g}", f"{row.env_steps:,}", verdicts


def _split(row: SplitRates, pattern: str) -> tuple[str, ...]:
    shares = (_share(getattr(row, name), row.episodes, pattern) for name in (*SPLIT_OUTCOMES, "timed_out"))
    references = ("" if (rate := getattr(row, name)) is None else pattern.format(rate) for name in REFERENCES)
    return row.split, *shares, *references


def markdown(rows: Sequence[SplitRates]) -> str:
    """Return the rates as a Markdown table."""
    return markdown_table(HEADER, map(cells_of, rows))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows of text as a Markdown table."""
    first, *lines = (f"| {' | '.join(cells)} |" for cells in (header, *rows))
    return "\n".join([first, "|" + "---|" * len(header), *lines])


def _share(values: tuple[float, ...] | None, episodes: int, pattern: str) -> str:
    if values is None:
        return ""
    if len(values) == 1:
        low, high = binomtest(round(values[0] * episodes), episodes).proportion_ci(method="wilson")
    else:
        low, high = min(values), max(values)
    mean, low, high = (pattern.format(value).removesuffix("%") for value in (sum(values) / len(values), low, high))
    return f"{mean} ({low}–{high})"
