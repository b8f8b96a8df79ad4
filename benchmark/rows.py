"""Files of JSON rows, one per line, such as ``metrics.jsonl``. Unreadable rows are dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.files import open_regular, read_regular

MOST_BYTES = 256 << 20
"""Largest size of a file of rows."""
TAIL_BYTES = 4096
"""Bytes read for the last rows."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in a file, up to the first line that is not one. If the file is missing, there are none.

    Raises:
        CorruptFileError: it is a link or not a regular file, or holds more than ``MOST_BYTES``.
    """
    try:
        lines = read_regular(path, MOST_BYTES).splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        if (row := _row(line)) is None:
            break
        rows.append(row)
    return rows


def last_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the readable rows at a file's end, the last first. None if it is missing or not a regular file."""
    try:
        with open_regular(path) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - TAIL_BYTES, 0))
            lines = file.read(TAIL_BYTES).splitlines()
    except (OSError, CorruptFileError):
        return
    for line in reversed(lines):
        if (row := _row(line)) is not None:
            yield row


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        json.dumps(row, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
