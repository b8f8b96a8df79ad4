"""State files: nested dicts and lists of tensors and JSON values as one safetensors file; no pickle anywhere."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.files import open_regular

TENSOR = "__tensor__"
"""The key that stands for a tensor in the tree of a file."""
_TREE = "tree"


def state_bytes(state: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return ``state`` (nested dicts and lists of tensors and JSON values) as the content of a file.

    Args:
        state: it has no key ``__tensor__``.
        metadata: further texts by name, none of them called ``tree``.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_flattened(state, "", tensors), sort_keys=True)
    return save(tensors, metadata={**(metadata or {}), _TREE: tree})


def read_state(path: Path, only: Collection[str] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the state and the further metadata of a file.

    Args:
        path: a regular file.
        only: the keys of the state that are needed; all of them by default.

    Raises:
        CorruptFileError: it is no such file.
    """
    try:
        with open_regular(path), safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tree = json.loads(metadata.pop(_TREE))
            wanted = {key: value for key, value in tree.items() if only is None or key in only}
            return {key: _restored(value, file) for key, value in wanted.items()}, metadata
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CorruptFileError(f"The file {str(path)!r} cannot be read: {error}.") from error


def _flattened(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``tree`` with each tensor moved into ``tensors`` and replaced by its path there, a JSON pointer."""
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().contiguous().cpu().clone()
        return {TENSOR: path}
    if isinstance(tree, Mapping):
        escaped = {key: str(key).replace("~", "~0").replace("/", "~1") for key in tree}
        return {str(key): _flattened(value, f"{path}/{escaped[key]}", tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_flattened(value, f"{path}/{i}", tensors) for i, value in enumerate(tree)]
    return tree


def _restored(tree: Any, file: Any) -> Any:
    if isinstance(tree, dict):
        if TENSOR in tree:
            # A copy: tensors of a mapped file are not aligned, and matrix products on such round differently.
            return file.get_tensor(tree[TENSOR]).clone()
        return {key: _restored(value, file) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_restored(value, file) for value in tree]
    return tree
