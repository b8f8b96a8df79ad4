"""Published entries: one file a mitigation with a record a line, and the leaderboard that is built from them.

Their records may come from anybody, so every line is validated: against its checksum and the schema, what follows from
its counts against them, and its budget against the suite's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from benchmark import record as records
from benchmark.errors import CorruptFileError
from benchmark.files import write_atomically
from benchmark.measurement import scores
from benchmark.measurement.evaluation import PUBLIC_SALT, salt_commitment
from benchmark.record import Record, SplitResult
from benchmark.suites import Suite
from results.leaderboard import IN_DISTRIBUTION


def is_published(folder: Path) -> bool:
    """Return whether a folder holds published entries."""
    return folder.is_dir() and any(folder.glob("*.jsonl"))


def read_published(folder: Path, suite: Suite) -> list[Record]:
    """Return all published records of ``suite``, by file and in the order of their lines.

    Raises:
        CorruptFileError: a line is no valid record, or a file is no text; the place is named.
    """
    return [record for records in _by_file(folder, suite).values() for record in records]


def _by_file(folder: Path, suite: Suite) -> dict[Path, list[Record]]:
    found: dict[Path, list[Record]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CorruptFileError(f"The published file {str(path)!r} cannot be read: {error}.") from error
        places = [(line, f"in line {i} of {str(path)!r}") for i, line in enumerate(lines, start=1)]
        found[path] = [_checked(records.from_json(line, place), suite, place) for line, place in places]
    return found


def _checked(record: Record, suite: Suite, place: str) -> Record:
    """Return ``record`` if its figures follow from its counts and its training was one of the suite's."""
    plan = next((plan for plan in suite.tasks if plan.task == record.cell.task), None)
    problem = None
    if record.cell.suite != suite.id or plan is None:
        problem = f"is of the suite {record.cell.suite!r} and the task {record.cell.task!r}, not of {suite.id!r}"
    elif record.status == "done" and IN_DISTRIBUTION not in record.splits:
        problem = f"has no counts of {IN_DISTRIBUTION!r}"
    elif unlike := [name for name, one in record.splits.items() if one.ranked and _gap(one) < scores.RANKED_GAP]:
        problem = f"ranks {', '.join(unlike)}, where its references do not differ enough"
    elif record.status == "done":
        for name, value in scores.summary(record.splits).items():
            if not _agree(getattr(record, name), value):
                problem = f"says {name} {getattr(record, name)!r}; from its counts it is {value!r}"
        if record.env_steps >= plan.training.most_env_steps:
            problem = f"trained for {record.env_steps:,} steps; the suite's budget is {plan.training.env_steps:,}"
        if record.trust == "reproduced" and record.salt_commitment == salt_commitment(PUBLIC_SALT):
            problem = "says it was reproduced, which takes a secret salt, and was evaluated with the public one"
    if problem is not None:
        raise CorruptFileError(f"The record {place} {problem}; take it out.")
    return record


def _gap(split: SplitResult) -> float:
    return split.aligned_reference - split.proxy_reference


def _agree(first: float | str | None, second: float | str | None) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-9)
    return first == second


def publish(found: Iterable[Record], folder: Path, suite: Suite) -> list[Path]:
    """Add finished records to a suite's published ones, and return the files written.

    A record takes the place of an earlier one of the same cell, in whichever file that lies. Others stay.

    Args:
        found: records of the suite; those of failed cells are left out.
        folder: the suite's, such as ``results/published/quick-v1``.
        suite: whose records they are.

    Raises:
        CorruptFileError: what is published already cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = {one.cell: _checked(one, suite, f"of {one.cell_id}") for one in found if one.status == "done"}
    files = _by_file(folder, suite)
    kept = {path: [one for one in published if one.cell not in fresh] for path, published in files.items()}
    changed = {path for path, published in files.items() if len(kept[path]) < len(published)}
    for record in fresh.values():
        path = folder / f"{quote(record.cell.mitigation, safe='')}.jsonl"  # No two mitigations share a file.
        kept.setdefault(path, []).append(record)
        changed.add(path)
    for path in changed:
        if not kept[path]:
            path.unlink()
            continue
        own = sorted(kept[path], key=lambda record: tuple(record.cell.model_dump().values()))
        write_atomically(path, "".join(records.to_json(record) + "\n" for record in own))
    return sorted(path for path in changed if kept[path])
