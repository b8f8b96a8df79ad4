"""Files of tensors: safetensors with metadata, and whole states (nested dicts and lists of tensors and JSON)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from goalposts.benchmark.errors import CorruptFileError

MOST_BYTES = 4 << 30
"""Largest size of a file that is read."""
TENSOR_KEY = "__tensor__"
"""Marks a tensor in the tree of a state. It may not be a key of a state."""
_TREE = "tree"


def parse_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        CorruptFileError: ``content`` is not such a file.
    """
    try:
        # Copy: tensors in a buffer are not aligned, and matrix products on unaligned tensors round differently.
        tensors = {name: tensor.clone() for name, tensor in load(content).items()}
    except (SafetensorError, KeyError) as error:
        raise CorruptFileError(f"it is not a safetensors file ({error})") from error
    header_size = int.from_bytes(content[:8], "little")
    return tensors, json.loads(content[8 : 8 + header_size]).get("__metadata__") or {}


def state_bytes(state: Mapping[str, Any]) -> bytes:
    """Return ``state`` (nested dicts and lists of tensors and JSON values) as the content of a file."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_flattened(state, "", tensors), sort_keys=True)
    return save(tensors, metadata={_TREE: tree})


def parse_state(content: bytes, only: Collection[str] | None = None) -> dict[str, Any]:
    """Return the state that a file holds.

    Args:
        content: content of the file.
        only: the keys of the state that are needed. By default all of them.

    Raises:
        CorruptFileError: ``content`` is not such a file.
    """
    tensors, metadata = parse_tensors(content)
    try:
        tree = json.loads(metadata[_TREE])
        return {key: _restored(value, tensors) for key, value in tree.items() if only is None or key in only}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFileError(f"it holds no state ({type(error).__name__}: {error})") from error


def _flattened(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Move each tensor of ``tree`` into ``tensors``. Return ``tree`` with their paths there, as JSON pointers."""
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().contiguous().cpu().clone()
        return {TENSOR_KEY: path}
    if isinstance(tree, Mapping):
        escaped = {key: str(key).replace("~", "~0").replace("/", "~1") for key in tree}
        return {str(key): _flattened(value, f"{path}/{escaped[key]}", tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_flattened(value, f"{path}/{i}", tensors) for i, value in enumerate(tree)]
    return tree


def _restored(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if TENSOR_KEY in tree:
            return tensors[tree[TENSOR_KEY]]
        return {key: _restored(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_restored(value, tensors) for value in tree]
    return tree
