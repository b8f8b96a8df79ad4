"""Checkpoints: one state file and its checksum, replaced atomically, without pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.files import (
    file_sha256,
    own_folder,
    read_regular,
    read_regular_text,
    set_aside,
    write_atomically,
)
from goalposts.benchmark.tensor_files import MOST_BYTES, parse_state, state_bytes

_POINTER = "latest.json"
MOST_POINTER_BYTES = 10_000

Loaded = tuple[dict[str, Any], int, str]
"""A checkpoint's state, its environment steps and the SHA-256 of its file."""


def save(folder: Path, state: Mapping[str, Any], env_steps: int) -> str:
    """Write ``state`` (nested dicts and lists of tensors and JSON values) as the folder's checkpoint.

    A crash at any moment leaves either the old checkpoint or the new one.

    Returns:
        The SHA-256 of the file.
    """
    own_folder(folder.parent, folder.name)
    target = folder / f"step-{env_steps:012d}.safetensors"
    content = state_bytes(state)
    write_atomically(target, content)
    digest = hashlib.sha256(content).hexdigest()
    write_atomically(folder / _POINTER, json.dumps(_pointer(target.name, digest, env_steps)))
    for old in folder.glob("step-*"):
        if old != target:
            old.unlink()
    return digest


def _pointer(name: str, digest: str, env_steps: int) -> dict[str, Any]:
    """Return the pointer to a checkpoint. Its own checksum also covers the step count."""
    checksum = hashlib.sha256(f"{digest} {env_steps}".encode()).hexdigest()
    return {"file": name, "sha256": digest, "env_steps": env_steps, "checksum": checksum}


def _latest(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return the pointer to the newest checkpoint, and the path of that checkpoint's file."""
    if folder.is_symlink():
        raise CorruptFileError(f"it is a link to {str(folder.readlink())!r}")
    latest: dict[str, Any] = json.loads(read_regular_text(folder / _POINTER, MOST_POINTER_BYTES))
    return latest, folder / Path(latest["file"]).name


def load(folder: Path) -> Loaded | None:
    """Return the folder's checkpoint, or None if there is none.

    Raises:
        CorruptFileError: the file or its step count does not match the checksum, or it cannot be read.
    """
    return _load(folder, None)


def load_part(folder: Path, keys: Collection[str]) -> tuple[dict[str, Any], str] | None:
    """Return parts of the state of the folder's checkpoint and the SHA-256 of its file, or None if there is none.

    Raises:
        CorruptFileError: as :func:`load`.
    """
    loaded = _load(folder, keys)
    return None if loaded is None else (loaded[0], loaded[2])


def _load(folder: Path, keys: Collection[str] | None) -> Loaded | None:
    if not os.path.lexists(folder / _POINTER):
        return None
    try:
        latest, path = _latest(folder)
        content = read_regular(path, MOST_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        env_steps = int(latest["env_steps"])
        if latest != _pointer(path.name, digest, env_steps):
            raise CorruptFileError("it or its step count does not match its checksum")
        return parse_state(content, keys), env_steps, digest
    except (CorruptFileError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"The checkpoint in {str(folder)!r} cannot be read: {error}.") from error


def file_checksum(folder: Path) -> str | None:
    """Return the SHA-256 of the folder's checkpoint file in its present state. None if there is no such file."""
    try:
        return file_sha256(_latest(folder)[1])
    except (CorruptFileError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def load_or_set_aside(folder: Path) -> tuple[Loaded | None, Path | None]:
    """Return the result of :func:`load`. A corrupt checkpoint is renamed, and its new path is returned as well."""
    try:
        return load(folder), None
    except CorruptFileError:
        return None, set_aside(folder)
