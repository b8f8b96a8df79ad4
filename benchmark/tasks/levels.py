"""Levels as data: batches of environment instances, their canonical hash, and the share reserved for evaluation."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.files import read_regular, write_atomically
from goalposts.benchmark.tensor_files import MOST_BYTES, parse_tensors

RESERVED_SHARE = 16
"""By hash, one level in this many is reserved for evaluation."""


@functools.cache
def _hash_multipliers(count: int) -> Tensor:
    """Return ``count`` odd 64-bit multipliers of the splitmix64 sequence, as ``int64[count]``."""
    mask = (1 << 64) - 1
    values = []
    for i in range(1, count + 1):
        z = (i * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        values.append((z ^ (z >> 31)) | 1)
    return torch.from_numpy(np.array(values, dtype=np.uint64).view(np.int64))


def _logical_shift_right(values: Tensor, bits: int) -> Tensor:
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def hash_rows(tensors: Iterable[Tensor]) -> Tensor:
    """Return one hash per row across ``tensors``, ``int64[rows]``. All have the same first dimension."""
    columns = []
    for tensor in tensors:
        flat = tensor.reshape(len(tensor), math.prod(tensor.shape[1:]))
        if flat.is_floating_point():
            flat = flat.float().contiguous().view(torch.int32)
        columns.append(flat.long())
    content = torch.cat(columns, dim=1) + 1
    mixed = (content * _hash_multipliers(content.shape[1]).to(content.device)).sum(dim=1)
    mixed = (mixed ^ _logical_shift_right(mixed, 32)) * -0x61C8864680B583EB
    return mixed ^ _logical_shift_right(mixed, 29)


@dataclasses.dataclass(frozen=True)
class Levels:
    """A batch of levels. Each field of a subclass is a tensor whose first dimension is ``num_levels``."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields by name, in the order of declaration."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        return len(next(iter(self.tensors().values())))

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Return the levels that ``index`` selects (a slice, ``int64[n]`` or ``bool[num_levels]``)."""
        return type(self)(**{name: tensor[index] for name, tensor in self.tensors().items()})

    def replaced(self, index: Tensor, levels: Self) -> Self:
        """Return a copy in which ``levels`` replace the rows ``index`` (``int64[n]``). There are ``n`` of them."""
        return type(self)(
            **{name: tensor.index_copy(0, index, getattr(levels, name)) for name, tensor in self.tensors().items()}
        )

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors().values())).device

    def to(self, device: torch.device | str) -> Self:
        """Return the same levels on ``device``."""
        return type(self)(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    @classmethod
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """Return one batch holding all levels of ``batches``, in order."""
        return cls(
            **{
                field.name: torch.cat([getattr(batch, field.name) for batch in batches])
                for field in dataclasses.fields(cls)
            }
        )

    def hashes(self) -> Tensor:
        """Return the canonical hash of each level, ``int64[num_levels]``. It depends on the content alone."""
        return hash_rows(self.tensors().values())

    def differences(self, other: Self) -> Tensor:
        """Return in how many elements each level differs from that of ``other``, ``int64[num_levels]``.

        Curricula count edits with it. If one edit changes several elements, a subclass counts them as one.
        """
        ours, theirs = self.tensors(), other.tensors()
        unequal = [(ours[name] != theirs[name]).reshape(len(self), -1).sum(dim=1) for name in ours]
        return torch.stack(unequal).sum(dim=0)

    def reserved(self) -> Tensor:
        """Return which levels are for evaluation only, ``bool[num_levels]``."""
        return self.hashes() % RESERVED_SHARE == 0

    def save(self, path: Path, *, task: str, version: int) -> None:
        """Write the levels of a task to ``path`` as safetensors."""
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.tensors().items()}
        metadata = {"levels": type(self).__name__, "task": task, "version": str(version)}
        write_atomically(path, save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: Path, *, task: str, version: int) -> Self:
        """Read levels that :meth:`save` wrote. ``path`` may be a link.

        Raises:
            CorruptFileError: the file is truncated, or holds levels of another task or version.
        """
        try:
            tensors, metadata = parse_tensors(read_regular(path.resolve(), MOST_BYTES))
        except (OSError, CorruptFileError) as error:
            raise CorruptFileError(f"The level file {str(path)!r} cannot be read ({error}). Write it again.") from error
        found = (metadata.get("task"), metadata.get("version"))
        if found != (task, str(version)):
            raise CorruptFileError(
                f"The level file {str(path)!r} holds levels of task {found[0]!r}, version {found[1]}, not of {task!r}, "
                f"version {version}. Write it again."
            )
        return cls.from_tensors(tensors, kind=metadata.get("levels"), source=str(path))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, kind: str | None = None, source: str = "tensors") -> Self:
        """Build levels from named tensors. Their names must be the fields of this class."""
        names = {field.name for field in dataclasses.fields(cls)}
        if set(tensors) != names or kind not in (None, cls.__name__):
            raise CorruptFileError(
                f"{source!r} does not hold {cls.__name__} (it holds {kind or sorted(tensors)}). "
                "Was it written by another task or version?"
            )
        return cls(**tensors)
