"""Proxy erasure: removes from the trunk's representation what a linear probe could read about an anticipated proxy.

It is a game of two players (Ravfogel et al. 2022, "Linear Adversarial Concept Erasure", section 3). A linear probe
predicts the discounted number of future proxy events. The trunk is trained so that the probe cannot predict them.

The probe is solved exactly, by least squares on each minibatch. So the trunk minimizes the share of variance that the
*best* probe explains. This share is 0 exactly if embeddings and target do not covary, and then no linear probe beats a
constant (Belrose et al. 2023, "LEACE", section 3).

The published alternatives fit less well. A projection (INLP, LEACE) erases from a fixed representation. A probe that
learns behind a gradient reversal layer (Ganin et al. 2016) lags: the trunk fools it and hides nothing. In this method's
toy test a fresh probe then still explained .99. The schedule of that paper is kept.

Expect harm. If training episodes achieve goal and proxy together, one cannot be erased without the other. If they come
apart, an agent that cannot represent that the proxy is coming cannot learn to avoid it. On ``corner`` at α = .1 (quick
suite, seed 0) erasure reduced goal fidelity from .97 to .01. It was as low when only those proxy events were erased
that came without the goal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from goalposts import Knowledge, Mitigation, Rollout

STEEPNESS = 10.0
"""γ of the schedule (Ganin et al. 2016, section 5.2.2)."""
RIDGE = 0.01
"""Ridge of the probe, in units of the embeddings' mean variance. It keeps the probe from amplifying noise."""


class ProxyErasure(Mitigation):
    """Adds to the loss the variance of proxy events that a linear probe on the trunk explains.

    Args:
        strength: weight of the loss at the end of training; 1 as in Ganin et al. 2016.
        discount: per step, of the proxy events that the probe predicts, in [0, 1).
    """

    uses = frozenset({Knowledge.PROXY_GOALS})
    author = "Goalposts"
    licence = "MIT"
    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "strength": {"low": 0.1, "high": 10.0, "log": True},
    }
    paper = "Ravfogel et al. 2022, Linear Adversarial Concept Erasure"

    def __init__(self, strength: float = 1.0, discount: float = 0.9) -> None:
        if not 0 <= discount < 1:
            raise ValueError(f"discount is {discount!r}; give a number in [0, 1)")
        self.strength = strength
        self.discount = discount
        self._env_steps = 0

    def after_rollout(self, rollout: Rollout) -> None:
        self._env_steps += rollout.rewards.numel()

    @property
    def weight(self) -> float:
        """Weight of the loss in the current update: 0 at the start of training, nearly ``strength`` at its end."""
        return self.strength * schedule(self._env_steps / self.context.training.env_steps)

    def batch_columns(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Return the targets of the probe, and for which transitions they are known."""
        events = rollout.events[:, :, list(self.context.proxy_goals)]
        returns, known = event_returns(events, rollout.done, self.discount)
        return {"proxy_returns": returns, "proxy_known": known}

    def extra_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
        known = batch["proxy_known"]
        return self.weight * explained_variance(outputs["embeddings"][known], batch["proxy_returns"][known])

    def state_dict(self) -> dict[str, Any]:
        return {"env_steps": self._env_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._env_steps = state["env_steps"]


def schedule(progress: float) -> float:
    """Return λ_p = 2 / (1 + exp(−10 p)) − 1 at ``progress`` p in [0, 1] (Ganin et al. 2016, section 5.2.2)."""
    return 2 / (1 + math.exp(-STEEPNESS * progress)) - 1


def explained_variance(features: Tensor, targets: Tensor) -> Tensor:
    """Return the share of the targets' variance that the best linear probe explains, a scalar in [0, 1].

    Args:
        features: ``float32[n, d]``
        targets: ``float32[n, k]``; constant targets count as unexplained.
    """
    if len(features) < 2:
        return features.sum() * 0.0
    features, targets = features - features.mean(dim=0), targets - targets.mean(dim=0)
    covariance = features.T @ features / len(features)
    shared = features.T @ targets / len(features)
    ridge = RIDGE * covariance.diagonal().mean().detach() + 1e-8
    weights = torch.linalg.solve(covariance + ridge * torch.eye(len(covariance), device=features.device), shared)
    explained: Tensor = ((shared * weights).sum(dim=0) / (targets.square().mean(dim=0) + 1e-8)).mean()
    return explained


def event_returns(events: Tensor, done: Tensor, discount: float) -> tuple[Tensor, Tensor]:
    """Return the discounted events from each step to its episode's end, and whether that end is in the rollout.

    Args:
        events: ``bool[T, N, num_events]``
        done: ``bool[T, N]``
        discount: factor for an event one step later.

    Returns:
        ``float32[T, N, num_events]`` and ``bool[T, N]``.
    """
    returns, known = events.float(), done.clone()
    for t in range(len(done) - 2, -1, -1):
        returns[t] += discount * returns[t + 1] * ~done[t].unsqueeze(1)
        known[t] |= known[t + 1]
    return returns, known
