"""The baseline: trains on ordinary levels of its disambiguation rate."""

from __future__ import annotations

from goalposts import Mitigation


class NoMitigation(Mitigation):
    """Changes nothing."""

    author = "Goalposts"
    licence = "MIT"
