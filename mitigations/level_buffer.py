"""The level buffer of prioritized level replay (Jiang et al. 2021, "Prioritized Level Replay", section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from goalposts import Levels


class LevelBuffer:
    """Levels with their scores and the time each was last sampled.

    Args:
        capacity: greatest number of levels.
        temperature: β; the lower, the more the best-ranked levels prevail.
        staleness_coeff: ρ in [0, 1], the share of the staleness distribution in the mixture.
    """

    def __init__(self, capacity: int, temperature: float, staleness_coeff: float) -> None:
        self.capacity = capacity
        self.temperature = temperature
        self.staleness_coeff = staleness_coeff
        self.levels: Levels | None = None
        self.scores = torch.zeros(0)
        """``float32[size]``"""
        self.last_sampled = torch.zeros(0, dtype=torch.int64)
        """``int64[size]``, on the clock of :attr:`time`."""
        self.time = 0
        """Batches sampled or inserted so far."""

    def __len__(self) -> int:
        return len(self.scores)

    def probabilities(self) -> Tensor:
        """Return the replay distribution (1 − ρ)·P_S + ρ·P_C over the buffer, ``float64[size]``.

        P_S ∝ (1 / rank)^(1/β) with the greatest score at rank 1 (equation 3), P_C ∝ time since last sampled
        (equation 4).
        """
        ranks = torch.empty_like(self.scores, dtype=torch.float64)
        order = self.scores.argsort(descending=True, stable=True)
        ranks[order] = torch.arange(1, len(self) + 1, dtype=torch.float64, device=ranks.device)
        by_score = ranks.reciprocal() ** (1 / self.temperature)
        staleness = (self.time - self.last_sampled).double()
        if not bool(staleness.any()):
            staleness = torch.ones_like(staleness)
        by_score, staleness = by_score / by_score.sum(), staleness / staleness.sum()
        return (1 - self.staleness_coeff) * by_score + self.staleness_coeff * staleness

    def sample(self, num_levels: int, generator: torch.Generator) -> Tensor:
        """Draw ``num_levels`` different levels by :meth:`probabilities`; return their rows, ``int64[num_levels]``."""
        rows = torch.multinomial(self.probabilities(), num_levels, replacement=False, generator=generator)
        self.time += 1
        self.last_sampled[rows] = self.time
        return rows

    def insert(self, levels: Levels, scores: Tensor) -> None:
        """Add levels with their scores; past the capacity, those of the lowest scores leave."""
        self.time += 1
        fresh = torch.full((len(scores),), self.time, dtype=torch.int64, device=scores.device)
        if self.levels is None:
            self.levels, self.scores, self.last_sampled = levels, scores, fresh
        else:
            self.levels = type(levels).concatenate([self.levels, levels])
            self.scores = torch.cat([self.scores, scores])
            self.last_sampled = torch.cat([self.last_sampled, fresh])
        if len(self) > self.capacity:
            kept = self.scores.argsort(descending=True, stable=True)[: self.capacity].sort().values
            self.levels = self.levels[kept]
            self.scores, self.last_sampled = self.scores[kept], self.last_sampled[kept]

    def update(self, rows: Tensor, scores: Tensor) -> None:
        """Replace the scores of ``rows``."""
        self.scores[rows] = scores

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer as tensors and numbers."""
        levels = {} if self.levels is None else self.levels.tensors()
        return {"levels": levels, "scores": self.scores, "last_sampled": self.last_sampled, "time": self.time}

    def load_state_dict(self, state: Mapping[str, Any], levels_type: type[Levels], device: torch.device) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.levels = levels_type.from_tensors(state["levels"]).to(device) if state["levels"] else None
        self.scores = state["scores"].to(device)
        self.last_sampled = state["last_sampled"].to(device)
        self.time = state["time"]
