"""The level buffer of prioritized level replay.

The replay distribution is from Jiang et al. 2021a, "Prioritized Level Replay", section 3. The update of a full buffer
is from Jiang et al. 2021b, "Replay-Guided Adversarial Environment Design". Both papers take one level at a time. Here
the levels of a rollout go together, as in JaxGMG: a batch is drawn without replacement, and a batch competes to enter.

This changes what the temperature does. At the published β of 0.1 or 0.3 nearly all of P_S lies on the first few ranks.
A batch of hundreds takes these ranks and then fills up by staleness, so it is close to a uniform draw from the buffer.
(For 256 of 1,000 levels the mean rank is the 50th percentile at β = 0.1 and the 37th at β = 1.) Then priority comes
from which levels enter the buffer and stay. If levels were drawn one by one, with replacement, most of a batch would be
one level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from goalposts import Levels

_COLUMNS = ("scores", "best_returns", "last_played")


class LevelBuffer:
    """Distinct levels, each with its score, its best return and the time it was last played.

    Args:
        capacity: greatest number of levels.
        temperature: β > 0; a lower value favours the best-ranked levels more.
        staleness_coeff: ρ in [0, 1], the share of the staleness distribution in the mixture.
        device: of its levels.
    """

    def __init__(
        self, capacity: int, temperature: float, staleness_coeff: float, device: torch.device | str = "cpu"
    ) -> None:
        self.capacity = capacity
        self.temperature = temperature
        self.staleness_coeff = staleness_coeff
        self.levels: Levels | None = None
        self.scores = torch.zeros(0, device=device)
        """``float32[size]``"""
        self.best_returns = torch.zeros(0, device=device)
        """``float32[size]``: the greatest discounted return seen on each level since it entered."""
        self.last_played = torch.zeros(0, dtype=torch.int64, device=device)
        """``int64[size]``, on the clock of :attr:`time`."""
        self.time = 0
        """Number of batches played so far."""
        self._hashes = torch.zeros(0, dtype=torch.int64, device=device)
        """``int64[size]``"""

    def __len__(self) -> int:
        return len(self.scores)

    def check_capacity(self, num_levels: int) -> None:
        """Raise ``ValueError`` if a batch of ``num_levels`` does not fit."""
        if self.capacity < num_levels:
            raise ValueError(f"buffer_size is {self.capacity}; give at least {num_levels}, a rollout's levels")

    def probabilities(self) -> Tensor:
        """Return the replay distribution (1 − ρ)·P_S + ρ·P_C over the buffer, ``float64[size]``.

        Jiang et al. 2021a: P_S ∝ (1 / rank)^(1/β), with the greatest score at rank 1 (equation 3). P_C ∝ c − C_i
        (equation 4), the time since level i was last played: 0 for the latest batch, 1 for the one before it.
        """
        ranks = torch.empty_like(self.scores, dtype=torch.float64)
        order = self.scores.argsort(descending=True, stable=True)
        ranks[order] = torch.arange(1, len(self) + 1, dtype=torch.float64, device=ranks.device)
        by_score = ranks.reciprocal() ** (1 / self.temperature)
        staleness = (self.time - self.last_played).double()
        if not bool(staleness.any()):
            staleness = torch.ones_like(staleness)
        by_score, staleness = by_score / by_score.sum(), staleness / staleness.sum()
        return (1 - self.staleness_coeff) * by_score + self.staleness_coeff * staleness

    def sample(self, num_levels: int, generator: torch.Generator) -> Tensor:
        """Draw ``num_levels`` different levels by :meth:`probabilities`; return their rows, ``int64[num_levels]``.

        Levels of probability 0 come last, if the others are too few.
        """
        weights = self.probabilities().clamp(min=torch.finfo(torch.float64).tiny)
        return torch.multinomial(weights, num_levels, replacement=False, generator=generator)

    def best_ever(self, levels: Levels, best_returns: Tensor) -> Tensor:
        """Return the greater of ``best_returns`` and the buffer's best return of each level, ``float32[n]``."""
        rows = self._find(levels.hashes())
        known = rows >= 0
        result = best_returns.clone()
        result[known] = torch.maximum(best_returns[known], self.best_returns[rows[known]])
        return result

    def record(self, levels: Levels, scores: Tensor, best_returns: Tensor) -> None:
        """Record a batch that was played.

        Levels in the buffer get their new scores. The others enter while there is room. After that, the batch is pooled
        with equally many levels of the lowest replay probability, and the highest scores of the pool stay (Jiang et al.
        2021b, the update rule of the buffer in the appendix). A level that occurs twice in a batch counts once.

        Args:
            levels: ``n`` levels, at most ``capacity``.
            scores: ``float32[n]``.
            best_returns: ``float32[n]``, from :meth:`best_ever`.
        """
        self.time += 1
        hashes = levels.hashes()
        first = _first_copies(hashes)
        rows = self._find(hashes[first])
        known, new = first[rows >= 0], first[rows < 0]
        self._write(rows[rows >= 0], levels[known], hashes[known], scores[known], best_returns[known])
        places = self._places(scores[new])
        new, places = new[places >= 0], places[places >= 0]
        entering = new[places >= len(self)]
        if len(entering):
            self._enlarge(levels[entering])
        self._write(places, levels[new], hashes[new], scores[new], best_returns[new])

    def _find(self, hashes: Tensor) -> Tensor:
        """Return the row of each level, ``int64[n]``; -1 if the buffer does not hold it."""
        if not len(self):
            return torch.full_like(hashes, -1)
        known, order = self._hashes.sort()
        place = torch.searchsorted(known, hashes).clamp(max=len(known) - 1)
        return torch.where(known[place] == hashes, order[place], -1)

    def _places(self, scores: Tensor) -> Tensor:
        """Return the row for each level of ``scores``, ``int64[n]``; -1 if it does not enter."""
        count = len(scores)
        free = torch.arange(len(self), min(len(self) + count, self.capacity), device=scores.device)
        num_rivals = count - len(free)
        rivals = self.probabilities().argsort(stable=True)[:num_rivals] if num_rivals else free[:0]
        best = torch.cat([self.scores[rivals], scores]).argsort(descending=True, stable=True)[:count]
        stays = torch.zeros(num_rivals + count, dtype=torch.bool, device=scores.device)
        stays[best] = True
        places = torch.full((count,), -1, device=scores.device)
        places[stays[num_rivals:]] = torch.cat([free, rivals[~stays[:num_rivals]]])
        return places

    def _enlarge(self, levels: Levels) -> None:
        """Make room for ``levels`` at the end."""
        self.levels = type(levels).concatenate([levels] if self.levels is None else [self.levels, levels])
        for name in (*_COLUMNS, "_hashes"):
            column = getattr(self, name)
            setattr(self, name, torch.cat([column, column.new_zeros(len(levels))]))

    def _write(self, rows: Tensor, levels: Levels, hashes: Tensor, scores: Tensor, best_returns: Tensor) -> None:
        """Put levels just played into ``rows``, in place. The cost of a batch does not grow with the buffer."""
        written = levels.tensors()
        for name, tensor in ({} if self.levels is None else self.levels.tensors()).items():
            tensor[rows] = written[name]
        self._hashes[rows], self.scores[rows], self.best_returns[rows] = hashes, scores, best_returns
        self.last_played[rows] = self.time

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the buffer as tensors and numbers."""
        levels = {} if self.levels is None else self.levels.tensors()
        return {
            "levels": {name: tensor.clone() for name, tensor in levels.items()},
            **{name: getattr(self, name).clone() for name in _COLUMNS},
            "time": self.time,
        }

    def load_state_dict(self, state: Mapping[str, Any], levels_type: type[Levels]) -> None:
        """Restore what :meth:`state_dict` returned."""
        device = self.scores.device
        levels = {name: tensor.to(device, copy=True) for name, tensor in state["levels"].items()}
        self.levels = levels_type.from_tensors(levels) if levels else None
        self._hashes = self._hashes[:0] if self.levels is None else self.levels.hashes()
        for name in _COLUMNS:
            setattr(self, name, state[name].to(device, copy=True))
        self.time = state["time"]


def _first_copies(hashes: Tensor) -> Tensor:
    """Return the row of the first copy of each distinct hash, ``int64[m]`` in ascending order."""
    different, group = hashes.unique(return_inverse=True)
    rows = torch.arange(len(hashes), device=hashes.device)
    first = torch.full_like(different, len(hashes)).scatter_reduce(0, group, rows, "amin")
    return first.sort().values
