"""The networks, as feed-forward RLModules: a trunk, a policy head and a value head."""

from __future__ import annotations

import logging
import math
from typing import Any, Self

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from benchmark.errors import RequestError
from benchmark.mitigation import ModuleSpec

logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)  # RLModule's constructor uses what it deprecates.


def _orthogonal(layer: nn.Linear | nn.Conv2d, gain: float) -> nn.Module:
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _dense(inputs: int, widths: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [_orthogonal(nn.Linear(inputs, width), math.sqrt(2)), nn.ReLU()]
        inputs = width
    return layers


def mlp(observation_shape: tuple[int, ...], hidden_sizes: tuple[int, ...]) -> nn.Sequential:
    """Return a trunk of dense layers over the flattened observation."""
    return nn.Sequential(nn.Flatten(), *_dense(math.prod(observation_shape), hidden_sizes))


def conv(observation_shape: tuple[int, ...], hidden_sizes: tuple[int, ...]) -> nn.Sequential:
    """Return a trunk of two 3×3 convolutions (16 and 32 channels) and dense layers."""
    if len(observation_shape) != 3:
        raise RequestError(f"Network 'conv' needs images (channels, height, width), not {observation_shape!r}.")
    channels, height, width = observation_shape
    return nn.Sequential(
        _orthogonal(nn.Conv2d(channels, 16, 3, padding=1), math.sqrt(2)),
        nn.ReLU(),
        _orthogonal(nn.Conv2d(16, 32, 3, stride=2, padding=1), math.sqrt(2)),
        nn.ReLU(),
        nn.Flatten(),
        *_dense(32 * ((height + 1) // 2) * ((width + 1) // 2), hidden_sizes),
    )


TRUNKS = {"mlp": mlp, "conv": conv}


class ActorCritic(TorchRLModule, ValueFunctionAPI):
    """A shared trunk with a policy head and a value head. Subclasses may replace :meth:`trunk`."""

    def __init__(self, spec: ModuleSpec) -> None:
        self.spec = spec
        super().__init__(
            observation_space=gym.spaces.Box(-math.inf, math.inf, spec.observation_shape),
            action_space=gym.spaces.Discrete(spec.num_actions),
            inference_only=False,
            model_config={},
        )

    def setup(self) -> None:
        self.trunk = TRUNKS[self.spec.network](self.spec.observation_shape, self.spec.hidden_sizes)
        width = self.spec.hidden_sizes[-1]
        self.policy_head = _orthogonal(nn.Linear(width, self.spec.num_actions), 0.01)
        self.value_head = _orthogonal(nn.Linear(width, 1), 1.0)

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; RLlib asks for it at every forward pass, mostly in vain."""
        return self if mode == self.training else super().train(mode)

    def embed(self, observation: Tensor) -> Tensor:
        """Return the trunk's output, ``float32[n, hidden_sizes[-1]]``."""
        with torch.autocast(observation.device.type, torch.bfloat16, enabled=self.spec.bf16):
            inputs = observation.to(torch.bfloat16 if self.spec.bf16 else torch.float32)
            embeddings: Tensor = self.trunk(inputs).float()
        return embeddings

    def _forward(self, batch: dict[str, Any], **_kwargs: Any) -> dict[str, Tensor]:
        embeddings = self.embed(batch[Columns.OBS])
        return {
            Columns.EMBEDDINGS: embeddings,
            Columns.ACTION_DIST_INPUTS: self.policy_head(embeddings),
            Columns.VF_PREDS: self.value_head(embeddings).squeeze(-1),
        }

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        if embeddings is None:
            embeddings = self.embed(batch[Columns.OBS])
        values: Tensor = self.value_head(embeddings).squeeze(-1)
        return values


def build(spec: ModuleSpec) -> TorchRLModule:
    """Return the network that ``spec`` describes."""
    return ActorCritic(spec)
