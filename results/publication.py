"""Published entries: one file a mitigation with a record a line, and the leaderboard that is built from them.

Their records may come from anybody, so every line is validated against its checksum and the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmark import record as records
from benchmark.errors import CorruptFileError
from benchmark.files import write_atomically
from benchmark.record import Record


def is_published(folder: Path) -> bool:
    """Return whether a folder holds published entries."""
    return folder.is_dir() and any(folder.glob("*.jsonl"))


def read_published(folder: Path) -> list[Record]:
    """Return all published records of a suite, by mitigation and in the order of their lines.

    Raises:
        CorruptFileError: a line is no valid record, or a file is no text; the place is named.
    """
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CorruptFileError(f"The published file {str(path)!r} cannot be read: {error}.") from error
        found += [records.from_json(line, f"in line {i} of {str(path)!r}") for i, line in enumerate(lines, start=1)]
    return found


def publish(found: Iterable[Record], folder: Path) -> list[Path]:
    """Add finished records to a suite's published ones, and return the files written.

    A record takes the place of an earlier one of the same cell. Others stay.

    Args:
        found: records of one suite; those of failed cells are left out.
        folder: the suite's, such as ``results/published/quick-v1``.

    Raises:
        CorruptFileError: what is published already cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = {record.cell: record for record in read_published(folder)}
    fresh = {record.cell: record for record in found if record.status == "done"}
    cells |= fresh
    paths = []
    for mitigation in sorted({cell.mitigation for cell in fresh}):
        own = sorted((cell.task, cell.alpha, cell.seed, cell) for cell in cells if cell.mitigation == mitigation)
        path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', mitigation)}.jsonl"
        write_atomically(path, "".join(records.to_json(cells[cell]) + "\n" for *_order, cell in own))
        paths.append(path)
    return paths
