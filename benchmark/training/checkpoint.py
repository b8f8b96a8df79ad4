"""Checkpoints: one safetensors file with its checksum beside it, replaced atomically; no pickle anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.files import file_sha256, set_aside, write_atomically

_TENSOR = "__tensor__"
_POINTER = "latest.json"

Loaded = tuple[dict[str, Any], int, str]
"""A checkpoint's state, its environment steps and the SHA-256 of its file."""


def _flatten(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``tree`` with each tensor moved into ``tensors`` and replaced by its path there, a JSON pointer."""
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().contiguous().cpu().clone()
        return {_TENSOR: path}
    if isinstance(tree, Mapping):
        escaped = {key: str(key).replace("~", "~0").replace("/", "~1") for key in tree}
        return {str(key): _flatten(value, f"{path}/{escaped[key]}", tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_flatten(value, f"{path}/{i}", tensors) for i, value in enumerate(tree)]
    return tree


def _restore(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if _TENSOR in tree:
            return tensors[tree[_TENSOR]]
        return {key: _restore(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_restore(value, tensors) for value in tree]
    return tree


def save(folder: Path, state: Mapping[str, Any], env_steps: int) -> str:
    """Write ``state`` (nested dicts and lists of tensors and JSON values) as the folder's checkpoint.

    A crash at any moment leaves either the old checkpoint or the new one.

    Returns:
        The SHA-256 of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_flatten(state, "", tensors), sort_keys=True)
    target = folder / f"step-{env_steps:012d}.safetensors"
    partial = folder / f"{target.name}.partial"
    save_file(tensors, partial, metadata={"tree": tree})
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    digest = file_sha256(partial)
    partial.replace(target)
    latest = {"file": target.name, "sha256": digest, "env_steps": env_steps}
    write_atomically(folder / _POINTER, json.dumps(latest))
    for old in folder.glob("step-*"):
        if old != target:
            old.unlink()
    return digest


def _latest(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return what the pointer says of the newest checkpoint, and the path of its file."""
    latest: dict[str, Any] = json.loads((folder / _POINTER).read_text())
    return latest, folder / Path(latest["file"]).name


def load(folder: Path) -> Loaded | None:
    """Return the folder's checkpoint; None where there is none.

    Raises:
        CorruptFileError: the file does not match its checksum or cannot be read.
    """
    if not (folder / _POINTER).exists():
        return None
    try:
        latest, path = _latest(folder)
        digest = file_sha256(path)
        if digest != latest["sha256"]:
            raise CorruptFileError(f"The checkpoint {str(path)!r} does not match its checksum.")
        with safe_open(path, framework="pt") as file:
            # Copies: tensors of a mapped file are not aligned, and matrix products on such round differently.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
            tree = json.loads(file.metadata()["tree"])
        return _restore(tree, tensors), int(latest["env_steps"]), digest
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CorruptFileError(f"The checkpoint in {str(folder)!r} cannot be read: {error}.") from error


def file_checksum(folder: Path) -> str | None:
    """Return the SHA-256 of the folder's checkpoint as it lies there; None if it cannot be found."""
    try:
        return file_sha256(_latest(folder)[1])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_or_set_aside(folder: Path) -> tuple[Loaded | None, Path | None]:
    """Return what :func:`load` does; a corrupt checkpoint is renamed, and its new place returned as well."""
    try:
        return load(folder), None
    except CorruptFileError:
        return None, set_aside(folder)
