"""Tensors and their metadata from the bytes of a safetensors file."""

from __future__ import annotations

import json

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from goalposts.benchmark.errors import CorruptFileError

MOST_BYTES = 4 << 30
"""Of a file that is read."""


def parse_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata that a safetensors file holds.

    Raises:
        CorruptFileError: ``content`` is no such file.
    """
    try:
        # Copies: tensors of a buffer are not aligned, and matrix products on such round differently.
        tensors = {name: tensor.clone() for name, tensor in load(content).items()}
    except (SafetensorError, KeyError) as error:
        raise CorruptFileError(f"it is no safetensors file ({error})") from error
    header_size = int.from_bytes(content[:8], "little")
    return tensors, json.loads(content[8 : 8 + header_size]).get("__metadata__") or {}
