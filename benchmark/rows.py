"""Files of JSON lines that grow while they are read: whatever is unreadable in them is dropped, not fatal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.files import open_regular, read_regular

MOST_BYTES = 1024 * 1024 * 1024
"""Of a file of rows."""
TAIL_BYTES = 4096
"""Enough for the last rows."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file up to the first that cannot be read; none where there is no such regular file."""
    try:
        content = read_regular(path, MOST_BYTES)
    except (OSError, CorruptFileError):
        return []
    rows = []
    for line in content.splitlines():
        row = _row(line)
        if row is None:
            break
        rows.append(row)
    return rows


def last_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the readable ones of a file's last rows, the last first; none where there is no such regular file."""
    try:
        with open_regular(path) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - TAIL_BYTES, 0))
            lines = file.read().splitlines()
    except (OSError, CorruptFileError):
        return
    for line in reversed(lines):
        if (row := _row(line)) is not None:
            yield row


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
