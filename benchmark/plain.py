"""Checks and shortens names, texts and JSON from unknown authors, before they are stored in a record or displayed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAME = r"^[\w.:+\- ]{1,100}$"
"""A regular expression for the name of a mitigation."""
LONGEST_TEXT = 1000
LONGEST_LINE = 500
"""Largest length of a message. The rest is cut off."""
LONGEST_VALUE = 100
"""Largest length of a value that a message repeats. The middle of a longer value is cut out."""
DEEPEST = 10
GREATEST = 1e18
"""Largest magnitude of a number, well below the range where JSON readers and clocks disagree."""


def one_line(problem: object) -> str:
    """Return the text of an error or another object on one printable line of limited length."""
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(problem)).split())
    line = "".join(character if character.isprintable() else "�" for character in words)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


def short(value: str) -> str:
    """Return a value as a message repeats it: whole, or only its beginning and end."""
    half = LONGEST_VALUE // 2
    return value if len(value) <= LONGEST_VALUE else f"{value[:half]}…{value[-half:]}"


def complaint(problem: object) -> str:
    """Return an error's text as one line, with long quoted values and words shortened."""
    longer = f"{{{LONGEST_VALUE + 1},}}"
    return one_line(re.sub(rf"(?<=')[^'\n]{longer}(?=')|\S{longer}", lambda match: short(match[0]), str(problem)))


def fault_of(value: Any, depth: int = 0) -> str | None:
    """Return the reason why a JSON value is not plain. None if it is plain."""
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            return f"a text of {len(value):,} characters; at most {LONGEST_TEXT:,} are read"
        return None if value.isprintable() else f"a text with characters that cannot be shown ({value[:40]!r})"
    if isinstance(value, int | float):
        return None if abs(value) <= GREATEST else f"a number beyond {GREATEST:g}"
    if not isinstance(value, Mapping | list | tuple):
        return None
    if depth == DEEPEST:
        return f"a value nested deeper than {DEEPEST} levels"
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value
    return next((fault for part in parts if (fault := fault_of(part, depth + 1)) is not None), None)
