"""The hyperparameters of training. All of them are part of a cell's identity."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

TRAINER_VERSION = 2
"""Increased whenever equal configurations would train to different weights."""


class TrainingConfig(BaseModel):
    """PPO (Schulman et al. 2017) with generalized advantage estimation (Schulman et al. 2016)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env_steps: int = Field(gt=0)
    """Budget in environment steps; the run ends with the first update at or past it."""
    num_envs: int = Field(256, gt=0)
    """Episodes played in parallel."""
    num_steps: int = Field(32, gt=0)
    """Steps of each environment in a rollout."""
    num_epochs: int = Field(3, gt=0)
    """Passes over a rollout in one update."""
    minibatch_size: int = Field(2048, gt=0)
    """Transitions in a gradient step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's step size at the start."""
    anneal: bool = True
    """Decay the learning rate linearly to zero at the end of the budget."""
    gamma: float = Field(0.99, ge=0, le=1)
    """Discount factor."""
    gae_lambda: float = Field(0.95, ge=0, le=1)
    """Decay of the advantage estimator."""
    clip_param: float = Field(0.2, gt=0)
    """Range of the probability ratio before it is clipped."""
    entropy_coeff: float = Field(0.01, ge=0)
    """Weight of the entropy bonus."""
    vf_loss_coeff: float = Field(0.5, ge=0)
    """Weight of the value loss."""
    grad_clip: float = Field(0.5, gt=0)
    """Largest global norm of the gradient."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of their discounted sum."""
    network: Literal["mlp", "conv", "strided", "patches", "impala"] = "mlp"
    """The trunk."""
    width: int = Field(1, gt=0)
    """Multiplier of a convolutional trunk's channels."""
    hidden_sizes: tuple[int, ...] = (128, 128)
    """Widths of the dense layers."""
    overlap: bool = False
    """On a GPU: collect the next rollout during the update, with a policy that lags by one update.

    It is not used with mitigations whose hooks see rollouts. The metrics report the lag."""
    bf16: bool = True
    """Run the trunk under bfloat16 autocast."""

    @property
    def most_env_steps(self) -> int:
        """More steps than any run can take.

        The last rollout begins within the budget. Extra rollouts may begin up to one rollout past it.
        """
        return self.env_steps + 3 * self.steps_per_rollout

    @property
    def steps_per_rollout(self) -> int:
        """Environment steps in one iteration."""
        return self.num_envs * self.num_steps
