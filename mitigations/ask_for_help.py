"""Asking for help: the agent acts by itself unless its heads disagree more than they did in training.

Uncertainty is the disagreement of bootstrapped heads (``ensemble.py``). Asking ends the episode as ``asked``, which
never counts as aligned.

The threshold is set to a coverage, as in selective classification (Geifman and El-Yaniv 2017, "Selective Classification
for Deep Neural Networks", section 3). A fixed share of the last training episodes exceeded it at some step. These
episodes were on levels of the run's own rate.

At test the evaluation limits help: only a share of its episodes, fixed with the suite, may receive it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from goalposts import Context, Rollout

from .ensemble import Ensemble, disagreement


class AskForHelp(Ensemble):
    """An ensemble that asks when it is more uncertain than it was in training.

    Args:
        share: of the training episodes in which it would ask, in [0, 1).
        window: number of latest training episodes that set the threshold.
        heads: number of heads; ten as published.
        mask_probability: probability that a head learns from a transition.
    """

    paper = "Geifman and El-Yaniv 2017, Selective Classification for Deep Neural Networks"

    def __init__(self, share: float = 0.1, window: int = 1024, heads: int = 10, mask_probability: float = 0.5) -> None:
        super().__init__(heads, mask_probability)
        if not 0 <= share < 1:
            raise ValueError(f"share is {share!r}; give a number in [0, 1)")
        if window < 1:
            raise ValueError(f"window is {window!r}; give at least 1")
        self.share = share
        self.window = window
        self._running: Tensor
        """``float32[num_envs]``: greatest uncertainty so far of each running episode."""
        self._greatest: Tensor
        """``float32[≤ window]``: greatest uncertainty of the episodes that ended last."""

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._running = torch.zeros(context.training.num_envs, device=context.generator.device)
        self._greatest = self._running[:0]

    def after_rollout(self, rollout: Rollout) -> None:
        super().after_rollout(rollout)
        ended = [self._greatest]
        for uncertainty, done in zip(disagreement(self._before), rollout.done, strict=True):
            self._running = torch.maximum(self._running, uncertainty)
            ended.append(self._running[done])
            self._running = torch.where(done, 0.0, self._running)
        self._greatest = torch.cat(ended)[-self.window :]

    @property
    def threshold(self) -> float:
        """The uncertainty above which it asks; infinite until a training episode has ended."""
        count = len(self._greatest)
        if count == 0:
            return math.inf
        return float(self._greatest.sort().values[count - 1 - int(self.share * count)])

    def act(self, outputs: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        actions, _ = super().act(outputs, generator)
        return actions, disagreement(self.log_probs(outputs)) > self.threshold

    def state_dict(self) -> dict[str, Any]:
        return {"running": self._running, "greatest": self._greatest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self.context.generator.device
        self._running, self._greatest = state["running"].to(device), state["greatest"].to(device)
