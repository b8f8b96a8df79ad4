"""ACCEL: adversarial level generation by replaying and editing levels of high regret.

Parker-Holder et al. 2022, "Evolving Curricula with Regret-Based Environment Design", algorithm 1, on the robust
prioritized level replay of Jiang et al. 2021, "Replay-Guided Adversarial Environment Design". An iteration plays either
new levels, whose transitions carry no gradient; or levels replayed from the buffer, which do; or the edited children of
the levels just replayed, which again do not. New and edited levels enter the buffer with their regret estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from goalposts import Context, Knowledge, Levels, Mitigation, Rollout
from mitigations.level_buffer import LevelBuffer


def positive_value_loss(rollout: Rollout) -> Tensor:
    """Return each level's regret estimate, ``float32[N]``: the mean positive part of its advantages.

    Jiang et al. 2021 (Replay-Guided Adversarial Environment Design), section 4; needs one level an environment.
    """
    return rollout.advantages.clamp(min=0).mean(dim=0)


class Accel(Mitigation):
    """Robust prioritized level replay with unrestricted edits of replayed levels.

    Args:
        replay_probability: how often an iteration that may replay does.
        buffer_size: levels kept.
        fill_share: share of the buffer that is filled before the first replay.
        temperature: β of the rank prioritization.
        staleness_coeff: ρ, weight of staleness in the replay distribution.
        num_edits: elementary edits in each child.
    """

    uses = frozenset({Knowledge.LEVEL_EDITOR, Knowledge.LEVEL_GENERATOR})
    author = "Goalposts"
    licence = "MIT"
    paper = "Parker-Holder et al. 2022, Evolving Curricula with Regret-Based Environment Design"
    restart_rollouts = True

    def __init__(
        self,
        replay_probability: float = 0.8,
        buffer_size: int = 4000,
        fill_share: float = 0.5,
        temperature: float = 0.3,
        staleness_coeff: float = 0.3,
        num_edits: int = 5,
    ) -> None:
        self.replay_probability = replay_probability
        self.fill_share = fill_share
        self.num_edits = num_edits
        self.buffer = LevelBuffer(buffer_size, temperature, staleness_coeff)
        self.phase = "new"
        """What the running iteration plays: ``new``, ``replay`` or ``edit``."""
        self._replayed = torch.zeros(0, dtype=torch.int64)
        """Rows of the buffer that were replayed last."""

    def setup(self, context: Context) -> None:
        super().setup(context)
        if self.buffer.capacity < context.num_envs:
            raise ValueError(
                f"buffer_size is {self.buffer.capacity}; give at least {context.num_envs}, a rollout's levels"
            )
        ready = max(int(self.fill_share * self.buffer.capacity), context.num_envs)
        self._ready_size = min(ready, self.buffer.capacity)

    def sample_levels(self, num_levels: int) -> Levels:
        self.phase = self._next_phase()
        if self.phase == "new":
            return self.context.sample_levels(num_levels)
        assert self.buffer.levels is not None
        if self.phase == "edit":
            parents = self.buffer.levels[self._replayed]
            return self.context.edit_levels(parents, self.num_edits, restricted=False)
        self._replayed = self.buffer.sample(num_levels, self.context.generator)
        return self.buffer.levels[self._replayed]

    def _next_phase(self) -> str:
        if self.phase == "replay":
            return "edit"
        if len(self.buffer) < self._ready_size:
            return "new"
        generator = self.context.generator
        drawn = float(torch.rand(1, generator=generator, device=generator.device))
        return "replay" if drawn < self.replay_probability else "new"

    def after_rollout(self, rollout: Rollout) -> None:
        scores = positive_value_loss(rollout)
        if self.phase == "replay":
            self.buffer.update(self._replayed, scores)
        else:
            self.buffer.insert(rollout.levels, scores)

    def sample_weights(self, rollout: Rollout) -> Tensor:
        """Give weight to replayed levels alone."""
        return torch.full_like(rollout.rewards, 1.0 if self.phase == "replay" else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"buffer": self.buffer.state_dict(), "phase": self.phase, "replayed": self._replayed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self.context.generator.device
        self.buffer.load_state_dict(state["buffer"], self.context.levels_type, device)
        self.phase = state["phase"]
        self._replayed = state["replayed"].to(device)
