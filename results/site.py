"""Writes the static leaderboard page and the story picture.

The page is one file without external scripts, styles or pictures, so it opens from a disk.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.suite import Suite
from goalposts.benchmark.files import own_folder, write_atomically
from goalposts.benchmark.tasks.vocabulary import OUTCOMES
from goalposts.results import charts, curves, wording
from goalposts.results.costs import costs
from goalposts.results.leaderboard import MIN_SEEDS, Leaderboard

PICTURES = Path(__file__).with_name("pictures")
"""Pictures of misled agents, by task: ``.gif`` shows the agent in motion, ``.png`` its path through the level."""


def write_site(
    folder: Path,
    leaderboard: Leaderboard,
    suite: Suite,
    cases: Mapping[str, Mapping[str, Any]] | None = None,
    records: Sequence[Record] = (),
) -> Path:
    """Write ``site/index.html`` into ``folder`` and return its path.

    Args:
        folder: the run's output folder.
        leaderboard: what to show.
        suite: its suite, for the description and the command that reproduces it.
        cases: each task's case, with the fields ``system``, ``aligned_goal``, ``proxy_goals``, ``shift``, ``harm``,
            ``training_change`` and ``evaluation_change``.
        records: the records behind the leaderboard, for the cost of each mitigation.
    """
    groups = [(alpha, [e for e in leaderboard.entries if e.alpha == alpha]) for alpha in leaderboard.alphas]
    text = (
        _environment()
        .get_template("index.html.j2")
        .render(
            board=leaderboard,
            suite=suite,
            cases=cases or {},
            pictures={task.name: _pictures(task.name) for task in leaderboard.tasks},
            groups=groups,
            curves=curves.curves(leaderboard) if len(leaderboard.alphas) > 1 else [],
            costs=costs(leaderboard, records),
            records=records,
            plugins={record.cell.mitigation: record.plugin for record in records},
            styles=charts.styles(leaderboard),
            command=wording.command(leaderboard, suite),
            flags=_flags(leaderboard),
        )
    )
    path = own_folder(folder, "site") / "index.html"
    write_atomically(path, text)
    return path


def write_story_svg(path: Path, leaderboard: Leaderboard) -> None:
    """Write the picture of capability against goal fidelity, at the baseline's lowest rate, as an SVG file."""
    entries = wording.first_entries(leaderboard)
    text = (
        _environment()
        .get_template("story.svg.j2")
        .render(board=leaderboard, entries=entries, styles=charts.styles(leaderboard))
    )
    write_atomically(path, text)


def _pictures(task: str) -> dict[str, str]:
    """Return the pictures of a task's misled agent, by kind, as data URLs."""
    if not task.isidentifier():  # A record may name anything as its task.
        return {}
    paths = {kind: PICTURES / f"{task}.{kind}" for kind in ("gif", "png")}
    return {
        kind: f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        for kind, path in paths.items()
        if path.exists()
    }


def _flags(leaderboard: Leaderboard) -> list[str]:
    """Return the knowledge flags to show: the known ones, and any others in the records."""
    used = {flag for entry in leaderboard.entries for flag in entry.knowledge}
    return [*wording.KNOWLEDGE, *sorted(used - wording.KNOWLEDGE.keys())]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("goalposts.results"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"charts": charts, "wording": wording, "MIN_SEEDS": MIN_SEEDS, "OUTCOMES": OUTCOMES}
    return environment
