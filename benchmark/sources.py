"""The source files of a plugin, and their hash: what determines a result beside its configuration."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Collection
from pathlib import Path

from goalposts.benchmark.loading import FILE_MODULE

OURS = "goalposts.mitigations"
"""The folder of the built-in mitigations."""
FRAMEWORK = "goalposts.benchmark"
"""What runs plugins, and is no part of any."""


def source_files(cls: type, contract: type) -> dict[str, Path]:
    """Return the Python files that make up a plugin, by the names that its hash knows them by.

    They are the modules of the class and of its bases below ``contract``, with all that these import of their own
    folder of plugins: for ours the folder ``mitigations``, for a lab's their package. The framework is never among
    them.
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
    """Return the hash of named files, whatever the order in which they are given."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _own_folder(module: str) -> str:
    """Return the package whose modules belong to a plugin in ``module``."""
    return OURS if module.startswith(f"{OURS}.") else module.partition(".")[0]


def _add(module: str, folder: str, found: dict[str, Path]) -> None:
    """Add ``module``, its parent packages and, again and again, what they import of ``folder`` to ``found``."""
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
    """Return what a file in ``package`` imports: names of modules, and of what may be modules."""
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
