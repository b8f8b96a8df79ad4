"""The baseline: trains on the levels of its disambiguation rate as they come."""

from __future__ import annotations

from goalposts import Mitigation


class NoMitigation(Mitigation):
    """Changes nothing."""

    author = "Goalposts"
    licence = "MIT"
