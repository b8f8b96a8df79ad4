"""Printing for every command: the two consoles, tables, clean JSON, and the names of commands to copy."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


def print_json(value: Any) -> None:
    """Print JSON on standard output. It bypasses rich, which wraps lines."""
    print(json.dumps(value, indent=2, sort_keys=True))  # noqa: T201


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table without lines between its cells."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def command(name: str) -> str:
    """Return how to call a command of this environment: by its name if the shell finds it, else by its path."""
    beside = Path(sys.executable).parent / name
    if not beside.exists() or shutil.which(name) == str(beside):
        return name
    try:
        return shlex.quote(str(beside.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(beside))
