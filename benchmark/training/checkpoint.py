"""Checkpoints: one safetensors file with its checksum beside it, replaced atomically; no pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_bytes
from torch import Tensor

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.files import (
    file_sha256,
    own_folder,
    read_regular,
    read_regular_text,
    set_aside,
    write_atomically,
)
from goalposts.benchmark.plugins.hooks import TENSOR_KEY
from goalposts.benchmark.tensor_files import MOST_BYTES, parse_tensors

_POINTER = "latest.json"
_MOST_POINTER_BYTES = 4096

Loaded = tuple[dict[str, Any], int, str]
"""A checkpoint's state, its environment steps and the SHA-256 of its file."""


def _flatten(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``tree`` with each tensor moved into ``tensors`` and replaced by its path there, a JSON pointer."""
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().contiguous().cpu().clone()
        return {TENSOR_KEY: path}
    if isinstance(tree, Mapping):
        escaped = {key: str(key).replace("~", "~0").replace("/", "~1") for key in tree}
        return {str(key): _flatten(value, f"{path}/{escaped[key]}", tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_flatten(value, f"{path}/{i}", tensors) for i, value in enumerate(tree)]
    return tree


def _restore(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if TENSOR_KEY in tree:
            return tensors[tree[TENSOR_KEY]]
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
    own_folder(folder.parent, folder.name)
    tensors: dict[str, Tensor] = {}
    # One entry of metadata: safetensors writes several in any order, and equal states must give equal files.
    tree = json.dumps({"env_steps": env_steps, "state": _flatten(state, "", tensors)}, sort_keys=True)
    content = to_bytes(tensors, metadata={"tree": tree})
    digest = hashlib.sha256(content).hexdigest()
    target = folder / f"step-{env_steps:012d}.safetensors"
    write_atomically(target, content)
    latest = {"file": target.name, "sha256": digest, "env_steps": env_steps}
    write_atomically(folder / _POINTER, json.dumps(latest))
    for old in folder.glob("step-*"):
        if old != target:
            old.unlink()
    return digest


def _latest(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return what the pointer says of the newest checkpoint, and the path of its file."""
    if folder.is_symlink():
        raise CorruptFileError(f"it is a link to {str(folder.readlink())!r}")
    latest: dict[str, Any] = json.loads(read_regular_text(folder / _POINTER, _MOST_POINTER_BYTES))
    return latest, folder / Path(latest["file"]).name


def load(folder: Path) -> Loaded | None:
    """Return the folder's checkpoint; None where there is none.

    Raises:
        CorruptFileError: the file does not match its checksum or its pointer, or cannot be read.
    """
    if not os.path.lexists(folder / _POINTER):
        return None
    try:
        latest, path = _latest(folder)
        content = read_regular(path, MOST_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        if digest != latest["sha256"]:
            raise CorruptFileError(f"{path.name} does not match its checksum")
        tensors, metadata = parse_tensors(content)
        tree = json.loads(metadata["tree"])
        env_steps = tree["env_steps"]
        if latest["env_steps"] != env_steps:
            raise CorruptFileError(
                f"{_POINTER} says {latest['env_steps']!r} environment steps; {path.name} says {env_steps!r}"
            )
        return _restore(tree["state"], tensors), env_steps, digest
    except (OSError, ValueError, KeyError, TypeError, RecursionError, CorruptFileError) as error:
        raise CorruptFileError(f"The checkpoint in {str(folder)!r} cannot be read: {error}.") from error


def file_checksum(folder: Path) -> str | None:
    """Return the SHA-256 of the folder's checkpoint as it lies there; None if it cannot be found."""
    try:
        return file_sha256(_latest(folder)[1])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, CorruptFileError):
        return None


def load_or_set_aside(folder: Path) -> tuple[Loaded | None, Path | None]:
    """Return what :func:`load` does; a corrupt checkpoint is renamed, and its new place returned as well."""
    try:
        return load(folder), None
    except CorruptFileError:
        return None, set_aside(folder)
