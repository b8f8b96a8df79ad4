"""Finds mitigations: by registered name through the entry-point group, or by ``path.py:Class``."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmark.errors import RequestError, unknown_name
from benchmark.mitigation import Mitigation, check_mitigation

GROUP = "goalposts.mitigations"
_FILE_MODULE = "goalposts_plugin_"
"""How the modules of plugins given as files begin; the rest comes from the path, which is no part of the hash."""


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
            RequestError: the mitigation has no such hyperparameter.
        """
        defaults = self.cls.defaults()
        for name in overrides:
            if name not in defaults:
                raise unknown_name(f"hyperparameter of {self.name!r}", name, defaults)
        return {**defaults, **overrides}


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
    if ".py" in reference:
        return _load_file(reference)
    points = registered()
    if reference not in points:
        raise unknown_name("mitigation", reference, points)
    try:
        cls = points[reference].load()
    except Exception as error:
        raise RequestError(
            f"Mitigation {reference!r} does not import ({type(error).__name__}: {_line(error)}); mend its module."
        ) from error
    return LoadedPlugin(reference, reference, check_mitigation(cls, f"Mitigation {reference!r}"), _source_sha256(cls))


def _load_file(reference: str) -> LoadedPlugin:
    file_name, _, class_name = reference.rpartition(":")
    if not file_name.endswith(".py"):
        raise RequestError(f"Plugin {reference!r} names no class; write it as path.py:Class.")
    path = Path(file_name).resolve()
    if not path.is_file():
        raise RequestError(f"Plugin file {file_name!r} does not exist; give the path of a Python file.")
    module = _import_file(path)
    if not hasattr(module, class_name):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise unknown_name(f"class of {file_name!r}", class_name, classes)
    cls = check_mitigation(getattr(module, class_name), f"Plugin {reference!r}")
    return LoadedPlugin(f"{path.stem}:{class_name}", f"{path}:{class_name}", cls, _source_sha256(cls))


def _import_file(path: Path) -> ModuleType:
    name = f"{_FILE_MODULE}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RequestError(
            f"Plugin {str(path)!r} does not import ({type(error).__name__}: {_line(error)}); mend it."
        ) from error
    return module


def _source_sha256(cls: type) -> str:
    """Return the hash of the modules of the class and its bases, and of what each imports of its own package."""
    sources: dict[str, Path] = {}
    for base in cls.__mro__[: cls.__mro__.index(Mitigation)]:
        if base.__module__.startswith(_FILE_MODULE):
            sources[_FILE_MODULE] = Path(inspect.getfile(base))
        else:
            _sources(base.__module__, sources)
    digest = hashlib.sha256()
    for name, path in sorted(sources.items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(module: str, found: dict[str, Path]) -> dict[str, Path]:
    """Add ``module``, its parent packages and, again and again, what they import of the same package to ``found``."""
    spec = importlib.util.find_spec(module)
    if module in found or spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return found
    found[module] = Path(spec.origin)
    parent, _, _ = module.rpartition(".")
    imported = [parent] if parent else []
    package = module if spec.submodule_search_locations else parent
    for node in ast.walk(ast.parse(found[module].read_bytes())):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            imported += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    for name in imported:
        if name.split(".")[0] == module.split(".")[0] and _is_module(name):
            _sources(name, found)
    return found


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
