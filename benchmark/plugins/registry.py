"""Finds mitigations by registered name (an entry point) or by ``path.py:Class``."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.loading import MITIGATIONS, import_point, is_file, load_from_file, registered
from goalposts.benchmark.plain import NAME, one_line
from goalposts.benchmark.plugins.declarations import check_mitigation
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.sources import source_sha256


@dataclasses.dataclass(frozen=True)
class LoadedPlugin:
    """A mitigation class with its reported name and the hash of its source."""

    name: str
    reference: str
    """How another process finds it: a registered name, or an absolute ``path.py:Class``."""
    cls: type[Mitigation]
    sha256: str
    """Hash of the Python files of the class and its bases, and of the modules they import from their own package."""

    def hyperparameters(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Return all hyperparameters: the defaults, replaced where ``overrides`` has a value.

        Raises:
            RequestError: the mitigation has no such hyperparameter, or refuses the value.
        """
        defaults = self.cls.defaults()
        for name in overrides:
            if name not in defaults:
                raise unknown_name(f"hyperparameter of {self.name!r}", name, defaults)
        values = {**defaults, **overrides}
        try:
            self.cls(**values)
        except Exception as error:
            raise RequestError(f"Mitigation {self.name!r} refuses its hyperparameters: {one_line(error)}.") from error
        return values


def load_plugin(reference: str) -> LoadedPlugin:
    """Load a mitigation.

    Args:
        reference: a registered name, or ``path.py:Class``.

    Raises:
        RequestError: there is no such name, file or class, its import fails, or it is not a mitigation.
    """
    if is_file(reference):
        return _load_file(reference)
    points = registered(MITIGATIONS)
    if reference not in points:
        unknown = unknown_name("mitigation", reference, points)
        raise RequestError(f"{unknown} Plugins are searched among the packages installed in {sys.prefix}.")
    _checked_name(reference)
    cls = check_mitigation(import_point(points[reference], "Mitigation"), f"Mitigation {reference!r}")
    return LoadedPlugin(reference, reference, cls, source_sha256(cls, Mitigation))


def _load_file(reference: str) -> LoadedPlugin:
    path, found = load_from_file(reference, "Plugin")
    cls = check_mitigation(found, f"Plugin {reference!r}")
    name = _checked_name(f"{path.stem}:{cls.__name__}")
    return LoadedPlugin(name, f"{path}:{cls.__name__}", cls, source_sha256(cls, Mitigation))


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise RequestError(
            f"The mitigation's name {name!r} is not allowed; name it, or its file, with at most 100 letters, digits, "
            "'_', '.', '+', '-' and spaces."
        )
    return name
