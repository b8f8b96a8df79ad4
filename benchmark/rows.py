"""Reads files of JSON rows, one a line, such as ``metrics.jsonl``; what cannot be read is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from goalposts.benchmark.files import read_regular

MOST_BYTES = 256 << 20


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in a file up to its first line that is none; of a missing file, none.

    Raises:
        CorruptFileError: it is a link or no regular file, or holds more than ``MOST_BYTES``.
    """
    try:
        lines = read_regular(path, MOST_BYTES).splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
            json.dumps(row, allow_nan=False)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows
