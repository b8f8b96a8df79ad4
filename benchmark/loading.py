"""Loads what users name on the command line: classes in files (``path.py:Class``) and callables in modules."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.plain import one_line

TASKS, MITIGATIONS = "goalposts.tasks", "goalposts.mitigations"
"""Entry-point groups."""
FILE_MODULE = "goalposts_plugin_"
"""Prefix of the names of modules that are loaded from files. The rest comes from the path."""


@functools.cache
def registered(group: str) -> dict[str, EntryPoint]:
    """Return the installed entry points of a group, by name and in alphabetical order."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def is_file(reference: str) -> bool:
    """Return whether ``reference`` means a file, and not a registered name or a module."""
    return ".py" in reference


def load_from_file(reference: str, kind: str) -> tuple[Path, Any]:
    """Return the absolute path and the class that ``path.py:Class`` names.

    Args:
        reference: the user's text.
        kind: what it should be, for messages: ``Plugin`` and the like.

    Raises:
        RequestError: there is no such file or class, or its import fails.
    """
    file_name, _, name = reference.rpartition(":")
    if not file_name.endswith(".py"):
        raise RequestError(f"{kind} {reference!r} names no class; write it as path.py:Class.")
    path = Path(file_name).resolve()
    try:
        exists = path.is_file()
    except OSError as error:
        raise RequestError(f"{kind} file {file_name!r} cannot be read ({error.strerror}); give another.") from error
    if not exists:
        raise RequestError(f"{kind} file {file_name!r} does not exist; give the path of a Python file.")
    module = _import_file(path, kind)
    if not hasattr(module, name):
        raise unknown_name(
            f"class of {file_name!r}", name, [key for key, value in vars(module).items() if inspect.isclass(value)]
        )
    return path, getattr(module, name)


def load_from_module(reference: str, kind: str) -> Any:
    """Return the object that ``module:callable`` names. Modules of the working directory are found too.

    Raises:
        RequestError: there is no such module or callable, or its import fails.
    """
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise RequestError(f"{kind} {reference!r} names no module and callable; write it as module:callable.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise broken_import(kind, module_name, error) from error
    if not hasattr(module, name):
        raise unknown_name(
            f"callable of {module_name!r}", name, [key for key, value in vars(module).items() if callable(value)]
        )
    return getattr(module, name)


def import_point(point: EntryPoint, kind: str) -> Any:
    """Return the object that an entry point names.

    Raises:
        RequestError: its import fails.
    """
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        raise broken_import(kind, point.name, error) from error


def _import_file(path: Path, kind: str) -> ModuleType:
    name = f"{FILE_MODULE}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise broken_import(kind, str(path), error) from error
    return module


def broken_import(kind: str, name: str, error: BaseException) -> RequestError:
    """Return the error for a user's module that raised ``error`` when it was imported."""
    if isinstance(error, SystemExit):
        return RequestError(f"{kind} {name!r} ended the process at import (exit code {error.code or 0}); fix it.")
    return RequestError(f"{kind} {name!r} does not import ({type(error).__name__}: {one_line(error)}); fix it.")
