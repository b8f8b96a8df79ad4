"""Finds mitigations: by registered name through the entry-point group, or by ``path.py:Class``."""

from __future__ import annotations

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


@dataclasses.dataclass(frozen=True)
class LoadedPlugin:
    """A mitigation class with the name it is reported under and the hash of its source."""

    name: str
    reference: str
    """What finds it again from another process: a registered name, or an absolute ``path.py:Class``."""
    cls: type[Mitigation]
    sha256: str
    """Of all Python files that belong to the plugin."""

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
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return LoadedPlugin(f"{path.stem}:{class_name}", f"{path}:{class_name}", cls, digest)


def _import_file(path: Path) -> ModuleType:
    name = f"goalposts_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
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
    """Return the hash of the class's module; of its whole folder where that is a package."""
    path = Path(inspect.getfile(cls))
    files = sorted(path.parent.rglob("*.py")) if (path.parent / "__init__.py").exists() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
