"""Draws levels: samplers for training and for each split, edits and moved goals. All results are admissible."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.vocabulary import BENIGN_SHIFT, IN_DISTRIBUTION, SamplingTraits

L = TypeVar("L", bound=Levels)

MOST_IN_VAIN = 300_000
"""The search stops after drawing this many levels per admissible one."""


class LevelSampling(ABC, Generic[L]):
    """The levels of a task. Subclasses draw candidates, and this class keeps the admissible ones.

    Training levels are valid and not reserved. Levels of a split are valid and reserved. On a shift they are also
    distinguishing.
    """

    id: ClassVar[str]
    version: ClassVar[int]
    """Increased by any change of levels, dynamics or observations, so that old records cannot pass for new ones."""
    shifts: ClassVar[tuple[str, ...]]
    """The names of the distinguishing shifts, as ``shift/<name>``."""
    validation: ClassVar[str | None] = None
    """One sentence on what the validation shift changes, which no other shift does. None if the task has none."""
    levels_type: ClassVar[type[Levels]]
    sampling_traits: ClassVar[SamplingTraits] = SamplingTraits()

    @property
    def splits(self) -> tuple[str, ...]:
        """All evaluation splits."""
        return (IN_DISTRIBUTION, BENIGN_SHIFT, *self.shifts)

    @abstractmethod
    def _draw(self, num_levels: int, randomized: bool, generator: torch.Generator) -> L:
        """Draw levels from the randomized or the ambiguous sampler. They need not be valid."""

    @abstractmethod
    def _draw_split(self, split: str, num_levels: int, generator: torch.Generator) -> L:
        """Draw levels of an evaluation split. They need not be admissible."""

    def _draw_validation(self, num_levels: int, generator: torch.Generator) -> L:
        """Draw levels of the validation shift. They need not be admissible."""
        raise NotImplementedError

    @abstractmethod
    def valid(self, levels: L) -> Tensor:
        """Return which levels are well formed and solvable for the aligned goal, ``bool[num_levels]``."""

    @abstractmethod
    def distinguishing(self, levels: L) -> Tensor:
        """Return on which levels the best behaviours for the aligned goal and for every proxy conflict."""

    @abstractmethod
    def _edit(self, levels: L, restricted: bool, generator: torch.Generator) -> L:
        """Return each level with one edit. The result need not be admissible.

        A restricted edit keeps an ambiguous level ambiguous.
        """

    def sample_levels(self, num_levels: int, alpha: float, generator: torch.Generator) -> L:
        """Draw training levels. Each comes from the randomized sampler with probability ``alpha``.

        Raises:
            RequestError: ``alpha`` is outside [0, 1], or ``num_levels`` is below 1.
        """
        if num_levels < 1:
            raise RequestError(f"The number of levels is {num_levels!r}; give at least 1.")
        if not 0.0 <= alpha <= 1.0:
            raise RequestError(f"alpha is {alpha!r}; it is a probability, so give a number in [0, 1].")
        randomized = torch.rand(num_levels, generator=generator, device=generator.device) < alpha
        num_randomized = int(randomized.sum())
        parts = []
        for kind, count in ((False, num_levels - num_randomized), (True, num_randomized)):
            if count:
                draw = functools.partial(self._draw, randomized=kind, generator=generator)
                parts.append(self._fill(draw, (lambda levels: ~levels.reserved(), self.valid), count))
        order = randomized.long().argsort(stable=True).argsort()
        return type(parts[0]).concatenate(parts)[order]

    def shift_levels(self, split: str, num_levels: int, generator: torch.Generator) -> L:
        """Draw evaluation levels of ``split`` from the reserved share. On a shift all of them are distinguishing.

        Raises:
            RequestError: the task has no such split, or ``num_levels`` is below 1.
        """
        if num_levels < 1:
            raise RequestError(f"The number of levels is {num_levels!r}; give at least 1.")
        if split not in self.splits:
            raise RequestError(f"Task {self.id!r} has no split {split!r}. Known: {', '.join(self.splits)}.")
        conditions: tuple[Callable[[L], Tensor], ...] = (lambda levels: levels.reserved(), self.valid)
        if split in self.shifts:
            conditions += (self.distinguishing,)
        return self._fill(lambda n: self._draw_split(split, n, generator), conditions, num_levels)

    def validation_levels(self, num_levels: int, generator: torch.Generator) -> L:
        """Draw distinguishing levels for choosing hyperparameters. None of them is reserved for evaluation.

        Raises:
            RequestError: the task has no validation shift.
        """
        if self.validation is None:
            raise RequestError(f"Task {self.id!r} has no validation shift; use in_distribution.")
        conditions = (lambda levels: ~levels.reserved(), self.valid, self.distinguishing)
        return self._fill(lambda n: self._draw_validation(n, generator), conditions, num_levels)

    def edit_levels(
        self, levels: L, num_edits: int, generator: torch.Generator, *, restricted: bool = True, attempts: int = 8
    ) -> L:
        """Return every level with ``num_edits`` edits. A level is returned unchanged if its edits stay inadmissible.

        An edited level is valid, not reserved, and differs from its origin in exactly ``num_edits`` elements.

        Args:
            levels: the levels to start from.
            num_edits: elementary edits in each.
            generator: source of randomness, on the levels' device.
            restricted: keep ambiguous levels ambiguous (the goal stays where it is).
            attempts: how often to try for an admissible result.
        """

        def edited(origin: L) -> tuple[L, Tensor]:
            result = origin
            for k in range(num_edits):
                result = self._edit_once_more(origin, result, k + 1, restricted, generator, attempts)
            return result, result.differences(origin) == num_edits

        return self._changed(levels, edited, attempts)

    def place_goals(self, levels: L, generator: torch.Generator, *, attempts: int = 16) -> L:
        """Return every level with its aligned goal, and nothing else, in a newly drawn place.

        A changed level is valid and not reserved. A level is returned unchanged if no such place is found.

        Args:
            levels: the levels to start from.
            generator: source of randomness, on the levels' device.
            attempts: how often to try for an admissible place.

        Raises:
            RequestError: the task has no ``has_goal_position``.
        """

        def placed(origin: L) -> tuple[L, Tensor]:
            result = self._place_goals(origin, generator)
            return result, torch.ones(len(result), dtype=torch.bool, device=result.device)

        return self._changed(levels, placed, attempts)

    def _place_goals(self, levels: L, generator: torch.Generator) -> L:
        """Return each level with its aligned goal in a newly drawn place. The result need not be admissible."""
        raise RequestError(
            f"Task {self.id!r} does not fix its goal's position in training. "
            "Choose a mitigation that does not move goals."
        )

    def _changed(self, levels: L, change: Callable[[L], tuple[L, Tensor]], attempts: int) -> L:
        """Return every level changed.

        ``change`` returns new levels and whether each is good. It is repeated for those that are not good or not
        admissible, up to ``attempts`` times.
        """
        result = levels
        pending = torch.arange(len(levels), device=levels.device)
        for _ in range(attempts):
            if not len(pending):
                break
            changed, good = change(levels[pending])
            good = good & ~changed.reserved()
            if bool(good.any()):
                good[good.clone()] = self.valid(changed[good])
            result = result.replaced(pending[good], changed[good])
            pending = pending[~good]
        return result

    def _edit_once_more(
        self, origin: L, edited: L, num_edits: int, restricted: bool, generator: torch.Generator, attempts: int
    ) -> L:
        """Edit each level once. An edit that would undo or repeat an earlier edit is drawn again."""
        pending = torch.arange(len(origin), device=origin.device)
        for _ in range(attempts):
            proposed = self._edit(edited[pending], restricted, generator)
            fresh = proposed.differences(origin[pending]) == num_edits
            edited = edited.replaced(pending[fresh], proposed[fresh])
            pending = pending[~fresh]
            if not len(pending):
                break
        return edited

    def load_levels(self, path: Path) -> L:
        """Read levels of this task that :meth:`Levels.save` wrote.

        Raises:
            CorruptFileError: the file is truncated, or its levels are invalid or of another task, version or size.
        """
        levels: L = self.levels_type.load(path, task=self.id, version=self.version)  # type: ignore[assignment]
        own = self._draw(1, False, torch.Generator().manual_seed(0)).tensors()
        for name, tensor in levels.tensors().items():
            if tensor.dtype != own[name].dtype or tensor.shape[1:] != own[name].shape[1:] or not len(tensor):
                raise CorruptFileError(
                    f"The level file {str(path)!r} holds {name} as {tensor.dtype} of shape {tuple(tensor.shape)}; this "
                    f"task has {own[name].dtype} of shape (levels, {', '.join(map(str, own[name].shape[1:]))}). "
                    "Give the parameters that it was written with."
                )
        try:
            invalid = int((~self.valid(levels)).sum())
        except (IndexError, RuntimeError):  # Some cells lie outside the grid.
            invalid = len(levels)
        if invalid:
            raise CorruptFileError(
                f"The level file {str(path)!r} holds {invalid} levels that are not valid with these parameters of task "
                f"{self.id!r}. Give those that it was written with, or write it again."
            )
        return levels

    @classmethod
    def _fill(cls, draw: Callable[[int], L], conditions: Sequence[Callable[[L], Tensor]], num_levels: int) -> L:
        """Draw until ``num_levels`` levels meet all conditions. They are checked in order, cheap ones first."""
        kept: list[L] = []
        found, drawn = 0, 0
        while found < num_levels:
            rate = max(found, 1) / drawn if drawn else cls.sampling_traits.expected_share
            margin = 1.0 if rate == 1.0 else 1.1
            batch = draw(min(int((num_levels - found) / rate * margin) + cls.sampling_traits.spare_levels, 65536))
            drawn += len(batch)
            good = batch
            for condition in conditions:
                if len(good):
                    good = good[condition(good)]
            found += len(good)
            kept.append(good)
            if drawn > MOST_IN_VAIN * (found + 1):
                raise RequestError(
                    f"Only {found} admissible levels among {drawn:,} drawn: the task's parameters exclude nearly all."
                )
        return type(kept[0]).concatenate(kept)[:num_levels]
