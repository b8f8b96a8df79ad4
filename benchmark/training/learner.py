"""RLlib's PPO learner without its sampling: module, optimizer, schedules and state, fed with batched tensors."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import gymnasium as gym
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor, nn

from goalposts.benchmark.errors import NonFiniteError
from goalposts.benchmark.training.config import TrainingConfig

logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)  # RLModule's constructor triggers it.

WEIGHTS = "weights"
"""Batch column of transition weights, ``float32[n]``."""

ExtraLoss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor | None]


class NetworkModule(TorchRLModule, ValueFunctionAPI):
    """Wraps a plain network for RLlib's learner. The parameters are the network's own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(
            observation_space=gym.spaces.Box(-math.inf, math.inf, (1,)),
            action_space=gym.spaces.Discrete(1),
            inference_only=False,
            model_config={},
        )
        self.network = network

    def setup(self) -> None:
        """Build nothing: the network already exists."""

    def train(self, mode: bool = True) -> Self:
        """Switch the mode if it changes. RLlib calls this at every forward pass."""
        return self if mode == self.network.training else super().train(mode)

    def _forward(self, batch: dict[str, Any], **_kwargs: Any) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.network(batch[Columns.OBS])
        return outputs

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        values: Tensor = self.network(batch[Columns.OBS])[Columns.VF_PREDS]
        return values


class PPOLearner(PPOTorchLearner):
    """PPO with weighted transitions, an auxiliary loss, and minibatches drawn from the caller's generator.

    RLlib's own ``update`` draws minibatches from numpy's global generator and logs after each of them. This class calls
    the same public steps (forward, losses, gradients, clipping, optimizer) itself.
    """

    def __init__(self, config: PPOConfig, network: nn.Module, max_grad_norm: float) -> None:
        super().__init__(config=config)  # type: ignore[no-untyped-call]
        self.network = network
        self.max_grad_norm = max_grad_norm
        self.extra_loss: ExtraLoss | None = None
        """Set by the training loop. Added to the PPO loss of every minibatch."""
        self.minibatch_metrics: list[dict[str, Tensor]] = []

    def _make_module(self) -> MultiRLModule:
        """Wrap the existing network on its own device.

        RLlib would build a second network from its specification. It would also ask Ray for the device, and so start
        Ray.
        """
        self._device = next(self.network.parameters()).device  # type: ignore[assignment]
        module = MultiRLModule()
        module.add_module(DEFAULT_MODULE_ID, NetworkModule(self.network))
        return module

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        params = self.get_parameters(self.module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(params, eps=1e-5, fused=True),
            params=params,
            lr_or_lr_schedule=config.lr,
        )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Return the clipped surrogate, value and entropy loss, each averaged with the transitions' weights.

        With equal weights it equals RLlib's own loss, as a test checks.
        """
        log_probs = torch.log_softmax(fwd_out[Columns.ACTION_DIST_INPUTS], dim=-1)
        log_prob = log_probs.gather(1, batch[Columns.ACTIONS].unsqueeze(1)).squeeze(1)
        ratio = torch.exp(log_prob - batch[Columns.ACTION_LOGP])
        advantages = batch[Postprocessing.ADVANTAGES]
        clipped = ratio.clamp(1 - config.clip_param, 1 + config.clip_param)
        terms = torch.stack(
            [
                -torch.min(advantages * ratio, advantages * clipped),
                (fwd_out[Columns.VF_PREDS] - batch[Postprocessing.VALUE_TARGETS]).square(),
                -(log_probs.exp() * log_probs).sum(dim=-1),
            ]
        )
        weights = batch.get(WEIGHTS)
        policy, value, entropy = terms.mean(dim=1) if weights is None else terms @ (weights / weights.sum())
        entropy_coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        loss = policy + config.vf_loss_coeff * value - entropy_coeff * entropy
        metrics = {"policy_loss": policy, "value_loss": value, "entropy": entropy}
        if self.extra_loss is not None:
            extra = self.extra_loss(batch, fwd_out)
            metrics["extra_loss"] = torch.zeros_like(loss) if extra is None else extra
            loss = loss + metrics["extra_loss"]
        metrics["loss"] = loss
        self.minibatch_metrics.append({name: tensor.detach() for name, tensor in metrics.items()})
        total: Tensor = loss
        return total

    def postprocess_gradients(self, gradients_dict: dict[Any, Tensor]) -> dict[Any, Tensor]:
        """Clip the global norm in one fused call and record it.

        If a gradient is not finite, the norm is not finite either.
        """
        norm = torch.nn.utils.clip_grad_norm_(list(gradients_dict), self.max_grad_norm)
        self.minibatch_metrics[-1]["gradient_norm"] = norm.detach()
        return gradients_dict

    def apply_gradients(self, gradients_dict: dict[Any, Tensor]) -> None:
        """Step the optimizers on the unchanged gradients. RLlib would first replace NaN by zero."""
        for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID):
            optimizer.step()

    def update_on(
        self,
        columns: Mapping[str, Tensor],
        *,
        num_epochs: int,
        minibatch_size: int,
        env_steps: int,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """Take ``num_epochs`` passes over the rows of ``columns`` in shuffled minibatches.

        Args:
            columns: tensors ``[n, ...]`` under RLlib's column names.
            num_epochs: number of passes.
            minibatch_size: rows in a gradient step. A smaller last minibatch is used as it is.
            env_steps: environment steps of the run so far, for messages.
            generator: draws the minibatches.

        Returns:
            The mean of each loss term over all minibatches.

        Raises:
            NonFiniteError: a loss term is NaN or infinite.
        """
        self.minibatch_metrics = []
        num_rows = len(columns[Columns.ACTIONS])
        for _ in range(num_epochs):
            order = torch.randperm(num_rows, generator=generator, device=generator.device)
            for rows in order.split(minibatch_size):
                batch = {DEFAULT_MODULE_ID: {name: column[rows] for name, column in columns.items()}}
                outputs = self.module.forward_train(batch)
                losses = self.compute_losses(fwd_out=outputs, batch=batch)
                self.apply_gradients(self.postprocess_gradients(self.compute_gradients(losses)))
        return self._means(env_steps)

    def set_schedules(self, env_steps: int) -> None:
        """Set learning rate and entropy coefficient for ``env_steps``, even if updates were skipped."""
        self.after_gradient_based_update(timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps})

    def _means(self, env_steps: int) -> dict[str, float]:
        """Return each metric's mean over the update's minibatches. All values must be finite."""
        names = list(self.minibatch_metrics[0])
        values = torch.stack([torch.stack([metrics[name] for name in names]) for metrics in self.minibatch_metrics])
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            minibatch, column = bad[0].tolist()
            value = float(values[minibatch, column])
            raise NonFiniteError(f"{names[column]} is {value!r} at environment step {env_steps}.", what=names[column])
        return dict(zip(names, values.mean(dim=0).tolist(), strict=True))


def build_learner(network: nn.Module, config: TrainingConfig) -> PPOLearner:
    """Return a learner that updates ``network`` in place."""
    schedule: float | list[list[float]] = config.learning_rate
    if config.anneal:
        schedule = [[0, config.learning_rate], [config.env_steps, 0.0]]
    ppo = (
        PPOConfig()
        .framework("torch")
        .learners(
            num_learners=0,
            add_default_connectors_to_learner_pipeline=False,
        )
        .training(
            lr=schedule,
            clip_param=config.clip_param,
            entropy_coeff=config.entropy_coeff,
            vf_loss_coeff=config.vf_loss_coeff,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
        )
    )
    learner = PPOLearner(ppo, network, config.grad_clip)
    learner.build()
    return learner
