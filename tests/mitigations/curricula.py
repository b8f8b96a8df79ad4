"""Plays a curriculum's hooks as training does, on made-up rollouts of the toy's levels."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from goalposts.mitigations.plr import Plr
from tests.toy import Toy, ToyLevels, context, rollout

NUM_ENVS = 8


class Wide(Toy):
    """A toy in which no level is drawn twice: each has some millions, and an edit adds some."""

    def _draw(self, num_levels: int, randomized: bool, generator: torch.Generator) -> ToyLevels:
        return self._add_millions(super()._draw(num_levels, randomized, generator), generator)

    def _edit(self, levels: ToyLevels, restricted: bool, generator: torch.Generator) -> ToyLevels:
        return self._add_millions(super()._edit(levels, restricted, generator), generator)

    def _add_millions(self, levels: ToyLevels, generator: torch.Generator) -> ToyLevels:
        return ToyLevels(levels.number + 10**6 * torch.randint(1, 10**6, (len(levels),), generator=generator))


@dataclasses.dataclass
class Iteration:
    """What one iteration played, and what became of it."""

    phase: str
    numbers: list[int]
    """Of the toy levels."""
    scores: list[float]
    """By positive value loss."""
    weights: Tensor


def play(mitigation: Plr, iterations: int) -> list[Iteration]:
    """Play some iterations, the rollout of the i-th made up from seed i."""
    mitigation.setup(context(Wide(), *mitigation.uses, num_envs=NUM_ENVS))
    played = []
    for i in range(iterations):
        levels = mitigation.sample_levels(NUM_ENVS)
        assert isinstance(levels, ToyLevels)
        batch = rollout(num_envs=NUM_ENVS, seed=i, levels=levels)
        mitigation.after_rollout(batch)
        scores: list[float] = batch.advantages.clamp(min=0).mean(dim=0).tolist()
        played.append(Iteration(mitigation.phase, levels.number.tolist(), scores, mitigation.sample_weights(batch)))
    return played


def phases(played: list[Iteration]) -> list[str]:
    return [each.phase for each in played]


def held(mitigation: Plr) -> dict[int, float]:
    """Return the score of every level in the buffer by its number."""
    assert isinstance(mitigation.buffer.levels, ToyLevels)
    return dict(zip(mitigation.buffer.levels.number.tolist(), mitigation.buffer.scores.tolist(), strict=True))
