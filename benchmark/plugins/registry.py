"""Finds mitigations: by registered name through the entry-point group, or by ``path.py:Class``."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.loading import FILE_MODULE, broken_import, is_file, load_from_file
from goalposts.benchmark.plain import NAME, one_line
from goalposts.benchmark.plugins.mitigation import Mitigation, check_mitigation

GROUP = "goalposts.mitigations"
OURS = "goalposts.mitigations"
"""The package of the built-in mitigations."""


@dataclasses.dataclass(frozen=True)
class LoadedPlugin:
    """A mitigation class with the name it is reported under and the hash of its source."""

    name: str
    reference: str
    """What finds it again from another process: a registered name, or an absolute ``path.py:Class``."""
    cls: type[Mitigation]
    sha256: str
    """Of the plugin's Python files: the modules of the class and its bases, and what these import of their package."""

    def hyperparameters(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Return all hyperparameters, the defaults replaced by ``overrides``.

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


def registered() -> dict[str, EntryPoint]:
    """Return the installed mitigations by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load_plugin(reference: str) -> LoadedPlugin:
    """Load a mitigation.

    Args:
        reference: a registered name, or ``path.py:Class``.

    Raises:
        RequestError: there is no such name, file or class, its import fails, or it is no mitigation.
    """
    if is_file(reference):
        return _load_file(reference)
    points = registered()
    if reference not in points:
        unknown = unknown_name("mitigation", reference, points)
        raise RequestError(f"{unknown} A plugin is looked for among what is installed in {sys.prefix}.")
    _checked_name(reference)
    try:
        cls = points[reference].load()
    except (Exception, SystemExit) as error:
        raise broken_import("Mitigation", reference, error) from error
    return LoadedPlugin(reference, reference, check_mitigation(cls, f"Mitigation {reference!r}"), _source_sha256(cls))


def _load_file(reference: str) -> LoadedPlugin:
    path, found = load_from_file(reference, "Plugin")
    cls = check_mitigation(found, f"Plugin {reference!r}")
    name = _checked_name(f"{path.stem}:{cls.__name__}")
    return LoadedPlugin(name, f"{path}:{cls.__name__}", cls, _source_sha256(cls))


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise RequestError(
            f"The mitigation's name {name!r} will not do; call it, or its file, by at most 100 letters, digits, "
            "'_', '.', '+', '-' and spaces."
        )
    return name


def source_files(cls: type) -> dict[str, Path]:
    """Return the Python files that make up a mitigation, by the names that its hash knows them by.

    They are the modules of the class and of its bases, with all that these import of their own folder of mitigations:
    for ours the folder ``mitigations``, for a lab's their package. The framework is never among them.
    """
    found: dict[str, Path] = {}
    for base in cls.__mro__[: cls.__mro__.index(Mitigation)]:
        if base.__module__.startswith(FILE_MODULE):
            found[FILE_MODULE] = Path(inspect.getfile(base))
        else:
            _add_sources(base.__module__, _own_folder(base.__module__), found)
    return found


def _source_sha256(cls: type) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(source_files(cls).items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _own_folder(module: str) -> str:
    """Return the package whose modules belong to a mitigation in ``module``."""
    return OURS if module.startswith(f"{OURS}.") else module.partition(".")[0]


def _add_sources(module: str, folder: str, found: dict[str, Path]) -> None:
    """Add ``module``, its parent packages and, again and again, what they import of ``folder`` to ``found``."""
    within = module == folder or module.startswith(f"{folder}.")
    spec = importlib.util.find_spec(module) if within and module not in found else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return
    found[module] = Path(spec.origin)
    parent, _, _ = module.rpartition(".")
    imported = [parent]
    package = module if spec.submodule_search_locations else parent
    for node in ast.walk(ast.parse(found[module].read_bytes())):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            imported += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    for name in imported:
        if _is_module(name):
            _add_sources(name, folder, found)


def _is_module(name: str) -> bool:
    try:
        return bool(name) and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
