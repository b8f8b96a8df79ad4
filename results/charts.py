"""Geometry of the page's pictures: positions of marks and bars. The templates draw them as SVG."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from goalposts.benchmark.tasks.vocabulary import OUTCOMES
from goalposts.results import wording
from goalposts.results.leaderboard import Entry, Interval, Leaderboard

NUM_COLOURS = 7
"""Number of the style sheet's classes ``m0``, ``m1``, …"""
SHAPES = (
    "M-6,0a6,6 0 1,0 12,0a6,6 0 1,0 -12,0Z",
    "M-5.3,-5.3H5.3V5.3H-5.3Z",
    "M0,-7L6.6,5H-6.6Z",
    "M0,-7.4L7.4,0L0,7.4L-7.4,0Z",
    "M0,7L6.6,-5H-6.6Z",
    "M-2.2,-6.6H2.2V-2.2H6.6V2.2H2.2V6.6H-2.2V2.2H-6.6V-2.2H-2.2Z",
    "M0,-6.8L6.5,-2.1L4,5.5H-4L-6.5,-2.1Z",
    "M-6.5,-3.8L0,-7.5L6.5,-3.8V3.8L0,7.5L-6.5,3.8Z",
)
"""Outlines of the markers in pixels, centred on the origin."""

_LEFT, _TOP, _SIDE, _PAD = 48.0, 10.0, 320.0, 14.0
_BAR_WIDTH, _ROW_HEIGHT = 352.0, 42.0
_MIN_LABELLED = 30.0


@dataclasses.dataclass(frozen=True)
class Style:
    """The appearance of one mitigation, the same in every picture."""

    colour: int
    shape: str


@dataclasses.dataclass(frozen=True)
class Mark:
    """One trained agent, or the means of one mitigation, in pixels."""

    x: float
    y: float
    style: Style
    title: str
    hollow: bool
    """True if the training task was not learned."""


@dataclasses.dataclass(frozen=True)
class Scatter:
    """Capability against goal fidelity."""

    marks: tuple[Mark, ...]
    undefined: int
    """Number of agents or entries that reached neither goal. They have no fidelity, so no position."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A share of a bar, in pixels."""

    x: float
    width: float
    outcome: str
    label: str
    """Empty if there is no room."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """The outcomes of one mitigation on one split."""

    y: float
    name: str
    title: str
    segments: tuple[Segment, ...]


@dataclasses.dataclass(frozen=True)
class Bars:
    """The outcomes of all mitigations on one split."""

    split: str
    height: float
    bars: tuple[Bar, ...]


def styles(leaderboard: Leaderboard) -> dict[str, Style]:
    """Return the style of every mitigation; the baseline gets the first."""
    names = sorted(
        {entry.mitigation for entry in leaderboard.entries}, key=lambda name: (name != leaderboard.baseline, name)
    )
    return {
        name: Style(colour=index % NUM_COLOURS, shape=SHAPES[index % len(SHAPES)]) for index, name in enumerate(names)
    }


def position(capability: float, fidelity: float) -> tuple[float, float]:
    """Return an agent's position in the picture, in pixels; both arguments are in [0, 1]."""
    span = _SIDE - 2 * _PAD
    return round(_LEFT + _PAD + span * capability, 1), round(_TOP + _PAD + span * (1 - fidelity), 1)


def scatter(entries: Sequence[Entry], style: dict[str, Style], task: str | None = None) -> Scatter:
    """Return a mark for every seed of every entry, on one task or on all."""
    marks, undefined = [], 0
    for entry in entries:
        for name, result in entry.tasks.items():
            if task not in (None, name) or name in entry.inapplicable:
                continue
            for seed in result.seeds:
                if seed.capability is None:
                    continue
                if seed.goal_fidelity is None:
                    undefined += 1
                    continue
                x, y = position(seed.capability, seed.goal_fidelity)
                title = (
                    f"{entry.mitigation}, {name}, seed {seed.seed}: capability {wording.fraction(seed.capability)}, "
                    f"goal fidelity {wording.fraction(seed.goal_fidelity)}"
                )
                marks.append(Mark(x, y, style[entry.mitigation], title, seed.unrated))
    return Scatter(tuple(marks), undefined)


def overview(entries: Sequence[Entry], style: dict[str, Style]) -> Scatter:
    """Return a mark for every entry, at its means over tasks and seeds."""
    marks, undefined = [], 0
    for entry in entries:
        if entry.capability is not None and entry.goal_fidelity is None:
            undefined += 1
        elif entry.capability is not None and entry.goal_fidelity is not None:
            x, y = position(entry.capability.mean, entry.goal_fidelity.mean)
            title = (
                f"{entry.mitigation}: capability {wording.fraction(entry.capability.mean)}, "
                f"goal fidelity {wording.fidelity(entry)}"
            )
            marks.append(Mark(x, y, style[entry.mitigation], title, not entry.rated))
    return Scatter(tuple(marks), undefined)


def line(points: Sequence[Interval | None]) -> str:
    """Return a curve of means in [0, 1] as an SVG path, 120 pixels wide and 32 high. Missing values leave gaps."""
    step = 120 / max(len(points) - 1, 1)
    words, drawing = [], False
    for i, point in enumerate(points):
        if point is not None:
            words.append(f"{'L' if drawing else 'M'}{i * step:.1f},{34 - 32 * point.mean:.1f}")
        drawing = point is not None
    return "".join(words)


def bars(entries: Iterable[Entry], task: str, split: str) -> Bars:
    """Return a stacked bar of each entry's outcomes on one split, pooled over seeds."""
    rows: list[Bar] = []
    for entry in entries:
        rates = entry.tasks[task].splits.get(split)
        if rates is None:
            continue
        segments, x = [], 0.0
        for outcome in OUTCOMES:
            rate: float = getattr(rates, outcome)
            width = round(rate * _BAR_WIDTH, 2)
            if width > 0:
                segments.append(Segment(x, width, outcome, f"{rate:.0%}" if width >= _MIN_LABELLED else ""))
            x = round(x + width, 2)
        parts = ", ".join(f"{outcome} {getattr(rates, outcome):.1%}" for outcome in OUTCOMES)
        title = f"{entry.mitigation}: {parts} of {rates.episodes:,} episodes"
        rows.append(Bar(len(rows) * _ROW_HEIGHT, entry.mitigation, title, tuple(segments)))
    return Bars(split, len(rows) * _ROW_HEIGHT, tuple(rows))
