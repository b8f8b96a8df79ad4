"""Visual randomization: policy and value should not depend on the colours of the observation.

It is data-regularized actor-critic (DrAC: Raileanu et al. 2021, "Automatic Data Augmentation for Generalization in
Reinforcement Learning", algorithm 1) with a random jitter of channels and colours (Laskin et al. 2020, "Reinforcement
Learning with Augmented Data", section 4). Only appearance is randomized, and only in training. Positions stay as they
are, so this helps only if the proxy is visual.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from goalposts import Mitigation, ModuleSpec, Rollout

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


class VisualRandomization(Mitigation):
    """Regularizes policy and value towards their outputs on the original observation.

    Args:
        coefficient: α_r, weight of the regularizer.
        strength: largest distance of a factor from 1, in [0, 1). DrAC uses .4 for brightness, contrast and saturation.
    """

    author = "Goalposts"
    licence = "MIT"
    paper = "Raileanu et al. 2021, Automatic Data Augmentation for Generalization in Reinforcement Learning"
    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "coefficient": {"low": 0.01, "high": 1.0, "log": True},
        "strength": {"low": 0.1, "high": 0.8},
    }

    def __init__(self, coefficient: float = 0.1, strength: float = 0.4) -> None:
        if not 0 <= strength < 1:
            raise ValueError(f"strength is {strength!r}; give a number in [0, 1)")
        self.coefficient = coefficient
        self.strength = strength
        self._network: nn.Module

    def build_module(self, spec: ModuleSpec) -> nn.Module:
        self._network = spec.build()
        return self._network

    def batch_columns(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Draw each transition's factors, ``jitter`` of ``float32[T, N, num_factors]``."""
        shape = (*rollout.rewards.shape, num_factors(rollout.observations.flatten(0, 1)))
        draws = torch.rand(shape, generator=self.context.generator, device=rollout.rewards.device)
        return {"jitter": 1 + self.strength * (2 * draws - 1)}

    def extra_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
        """Return α_r (KL(π(·|s) ‖ π(·|f(s))) + (V(s) − V(f(s)))²), where π(·|s) and V(s) are constants.

        The regularizers G_π and G_V of Raileanu et al. 2021, algorithm 1.
        """
        seen = self._network(jittered(batch["obs"], batch["jitter"]))
        log_probs = torch.log_softmax(outputs["action_dist_inputs"].detach(), dim=1)
        log_probs_seen = torch.log_softmax(seen["action_dist_inputs"], dim=1)
        policy = (log_probs.exp() * (log_probs - log_probs_seen)).sum(dim=1)
        value = (outputs["vf_preds"].detach() - seen["vf_preds"]).square()
        regularizer: Tensor = (policy + value).mean()
        return self.coefficient * regularizer


def _is_picture(observation: Tensor) -> bool:
    """Return whether observations are pixels in red, green and blue."""
    return observation.dtype == torch.uint8 and observation.dim() == 4 and observation.shape[1] == 3


def num_factors(observation: Tensor) -> int:
    """Return the number of jitter factors: one for each channel or feature, and two more for colours."""
    return observation.shape[1] + 2 * _is_picture(observation)


def jittered(observation: Tensor, factors: Tensor) -> Tensor:
    """Return observations with another appearance, ``float32[n, *shape]``; pixels are in [0, 1].

    Args:
        observation: ``[n, *shape]``, pictures, maps or vectors.
        factors: ``float32[n, num_factors]``: the gain of each channel or feature; for colours also contrast and
            saturation.
    """
    inputs = observation.float()
    gains = factors[:, : inputs.shape[1]].reshape(*inputs.shape[:2], *[1] * (inputs.dim() - 2))
    if not _is_picture(observation):
        return inputs * gains
    inputs = inputs / 255
    contrast, saturation = factors[:, 3:].reshape(-1, 2, 1, 1, 1).unbind(dim=1)
    weights = torch.tensor(LUMINANCE, device=inputs.device).view(1, 3, 1, 1)
    grey = (inputs * weights).sum(dim=1, keepdim=True)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    coloured = grey + saturation * (inputs - grey)
    return ((mean + contrast * (coloured - mean)) * gains).clamp(0, 1)
