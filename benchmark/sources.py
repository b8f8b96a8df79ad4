"""The source files of a plugin, and their hash, which determines a result together with the configuration."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Collection
from pathlib import Path

from goalposts.benchmark.loading import FILE_MODULE

OURS = "goalposts.mitigations"
"""The package of the built-in mitigations."""
FRAMEWORK = "goalposts.benchmark"
"""The package that runs plugins. It is not part of any plugin."""


def source_files(cls: type, contract: type) -> dict[str, Path]:
    """Return the Python files that make up a plugin, by their names in the plugin's hash.

    They are the modules of the class and of its bases below ``contract``, and all modules that these import from their
    own plugin package. For the built-in mitigations that is the folder ``mitigations``, for others their own package.
    Modules of the framework are never included.
    """
    found: dict[str, Path] = {}
    for base in cls.__mro__[: cls.__mro__.index(contract)]:
        if base.__module__.startswith(FILE_MODULE):
            found[FILE_MODULE] = Path(inspect.getfile(base))
        elif not base.__module__.startswith(f"{FRAMEWORK}."):
            _add(base.__module__, _own_folder(base.__module__), found)
    return found


def source_sha256(cls: type, contract: type) -> str:
    """Return the hash of a plugin's source files."""
    return files_sha256(source_files(cls, contract))


def files_sha256(files: dict[str, Path]) -> str:
    """Return the hash of named files, in any order."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _own_folder(module: str) -> str:
    """Return the package whose modules belong to a plugin in ``module``."""
    return OURS if module.startswith(f"{OURS}.") else module.partition(".")[0]


def _add(module: str, folder: str, found: dict[str, Path]) -> None:
    """Add ``module``, its parent packages and, recursively, their imports from ``folder`` to ``found``."""
    within = module == folder or module.startswith(f"{folder}.")
    spec = importlib.util.find_spec(module) if within and module not in found else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return
    found[module] = Path(spec.origin)
    parent, _, _ = module.rpartition(".")
    for name in (parent, *_imported(found[module], module if spec.submodule_search_locations else parent)):
        if _is_module(name):
            _add(name, folder, found)


def _imported(path: Path, package: str) -> Collection[str]:
    """Return the imports of a file in ``package``: names of modules, and names that may be modules."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def _is_module(name: str) -> bool:
    try:
        return bool(name) and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
