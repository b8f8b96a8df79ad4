"""Generators keyed by identity: the seed of a stream is a hash of the stream's purpose."""

from __future__ import annotations

import hashlib
import json

import torch

Key = str | int | float


def stream_seed(*key: Key) -> int:
    """Return the 63-bit seed that belongs to ``key``. Equal keys give equal seeds on every machine."""
    digest = hashlib.sha256(json.dumps(list(key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*key: Key, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator on ``device`` for the stream named by ``key``."""
    return torch.Generator(device=device).manual_seed(stream_seed(*key))
