"""Robust prioritized level replay: trains on levels of high regret alone.

Jiang et al. 2021b, "Replay-Guided Adversarial Environment Design", algorithm 1 (PLR⊥). An iteration plays one of two
kinds of levels. New levels of the training distribution carry no gradient. Levels replayed from the buffer do. All
enter the buffer with an estimate of their regret, and all their steps count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from goalposts import Context, Knowledge, Levels, Mitigation, Rollout

from .level_buffer import LevelBuffer
from .regret import ESTIMATES, episode_returns


@dataclasses.dataclass(eq=False)
class Plr(Mitigation):
    """Robust prioritized level replay.

    The defaults are those published for mazes. Their sources are the paper's table of hyperparameters and the released
    configuration ``mg_25b_robust_plr`` of facebookresearch/dcd. The paper scores levels by the default estimate, or by
    maximum Monte Carlo; ``max_latest`` is a later form of the latter.
    """

    author = "Goalposts"
    licence = "MIT"
    paper = "Jiang et al. 2021, Replay-Guided Adversarial Environment Design"
    restart_rollouts = True
    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "replay_probability": {"low": 0.25, "high": 0.95},
        "temperature": {"low": 0.05, "high": 4.0, "log": True},  # See level_buffer.
        "staleness_coeff": {"low": 0.05, "high": 0.7},
    }

    regret: str = "positive_value_loss"
    """The estimate that scores a level: ``positive_value_loss``, ``max_latest``, or ``oracle`` (needs ``planner``)."""
    replay_probability: float = 0.5
    """p: probability that an iteration replays, once it may."""
    buffer_size: int = 4000
    """K: number of levels kept."""
    fill_share: float = 0.5
    """Share of the buffer that must be filled before the first replay."""
    temperature: float = 0.1
    """β of the rank prioritization."""
    staleness_coeff: float = 0.3
    """ρ: weight of staleness in the replay distribution."""

    def __post_init__(self) -> None:
        if self.regret not in ESTIMATES:
            raise ValueError(f"regret is {self.regret!r}; give one of {', '.join(ESTIMATES)}")
        if self.regret == "oracle" and Knowledge.PLANNER not in self.uses:
            raise ValueError("regret 'oracle' needs 'planner' in 'uses'; take 'plr_oracle' or 'accel_oracle' instead")
        self.phase = "new"
        """What the current iteration plays: ``new`` or ``replay``."""
        self.replayed = torch.zeros(0, dtype=torch.int64)
        """Buffer rows of the latest replay."""

    def setup(self, context: Context) -> None:
        super().setup(context)
        device = context.generator.device
        self.buffer = LevelBuffer(self.buffer_size, self.temperature, self.staleness_coeff, device)
        self.buffer.check_capacity(context.training.num_envs)
        ready = max(int(self.fill_share * self.buffer_size), context.training.num_envs)
        self._ready_size = min(ready, self.buffer_size)

    def sample_levels(self, num_levels: int) -> Levels:
        self.phase = "replay" if self._replays() else "new"
        if self.phase == "new":
            return self.context.sample_levels(num_levels)
        self.replayed = self.buffer.sample(num_levels, self.context.generator)
        return self.replayed_levels()

    def _replays(self) -> bool:
        if len(self.buffer) < self._ready_size:
            return False
        generator = self.context.generator
        return float(torch.rand(1, generator=generator, device=generator.device)) < self.replay_probability

    def replayed_levels(self) -> Levels:
        """Return the levels of the latest replay."""
        assert self.buffer.levels is not None
        return self.buffer.levels[self.replayed]

    def after_rollout(self, rollout: Rollout) -> None:
        """Score the levels and record them."""
        returns = episode_returns(rollout.rewards, rollout.done, self.context.training.gamma)
        returns = returns._replace(best=self.buffer.best_ever(rollout.levels, returns.best))
        scores = ESTIMATES[self.regret](self.context, rollout, returns)
        self.buffer.record(rollout.levels, scores, returns.best)

    def sample_weights(self, rollout: Rollout) -> Tensor:
        """Weight replayed levels by 1 and others by 0."""
        return torch.full_like(rollout.rewards, 1.0 if self.phase == "replay" else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"buffer": self.buffer.state_dict(), "phase": self.phase, "replayed": self.replayed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.buffer.load_state_dict(state["buffer"], self.context.levels_type)
        self.phase = state["phase"]
        self.replayed = state["replayed"].to(self.context.generator.device)


@dataclasses.dataclass(eq=False)
class PlrOracle(Plr):
    """Robust prioritized level replay that knows the optimal return of each level."""

    uses = Plr.uses | {Knowledge.PLANNER}
    regret: str = "oracle"
