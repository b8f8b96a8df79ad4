"""Stable-Baselines3's PPO with the benchmark's network and hyperparameters, over either kind of environment."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import goalposts
from goalposts.benchmark.tasks.gymnasium_env import GoalpostsVectorEnv
from goalposts.benchmark.training.config import TrainingConfig

with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # It imports the old gym, which complains.
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv


class Trunk(BaseFeaturesExtractor):
    """The benchmark's shared trunk; ``MlpPolicy`` by itself would give policy and value a network each."""

    def __init__(self, observation_space: gym.Space[Any], hidden_sizes: tuple[int, ...]) -> None:
        super().__init__(observation_space, hidden_sizes[-1])
        widths = (int(np.prod(observation_space.shape)), *hidden_sizes)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, observation: Tensor) -> Tensor:
        return self.layers(observation)


class BatchedVecEnv(VecEnv):
    """Our batched environment as Stable-Baselines3's ``VecEnv``, so that it need not step single ones in a loop."""

    def __init__(self, env: GoalpostsVectorEnv) -> None:
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.env = env

    def reset(self) -> np.ndarray:
        return self.env.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observation, rewards, terminated, truncated, infos = self.env.step(self.actions)
        done = terminated | truncated
        listed: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in done.nonzero()[0]:
            listed[i] = {"terminal_observation": infos["final_obs"][i], "TimeLimit.truncated": bool(truncated[i])}
        return observation, rewards, done, listed

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self.env, method_name)(*args, **kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


@dataclasses.dataclass(frozen=True)
class Setting:
    """What to train on."""

    task: str
    parameters: dict[str, Any]
    config: TrainingConfig
    seed: int

    @property
    def env_id(self) -> str:
        """The Gymnasium id."""
        return f"goalposts/{goalposts.ENVIRONMENTS[self.task]}"


def usual_env(setting: Setting) -> VecEnv:
    """Return what Stable-Baselines3 makes of the Gymnasium id: single environments stepped in a loop."""
    kwargs = {**setting.parameters, "render_mode": None}
    return make_vec_env(setting.env_id, n_envs=setting.config.num_envs, seed=setting.seed, env_kwargs=kwargs)


def batched_env(setting: Setting) -> VecEnv:
    """Return one batched environment."""
    env = gym.make_vec(setting.env_id, num_envs=setting.config.num_envs, **setting.parameters)
    assert isinstance(env, GoalpostsVectorEnv)
    adapted = BatchedVecEnv(env)
    adapted.seed(setting.seed)
    return adapted


def build(env: VecEnv, setting: Setting) -> PPO:
    """Return the untrained agent; it computes in float32, having no other."""
    config = setting.config
    return PPO(
        "MlpPolicy",
        env,
        learning_rate=(lambda remaining: config.learning_rate * remaining) if config.anneal else config.learning_rate,
        n_steps=config.num_steps,
        batch_size=config.minibatch_size,
        n_epochs=config.num_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_param,
        ent_coef=config.entropy_coeff,
        vf_coef=config.vf_loss_coeff,
        max_grad_norm=config.grad_clip,
        policy_kwargs={
            "features_extractor_class": Trunk,
            "features_extractor_kwargs": {"hidden_sizes": config.hidden_sizes},
            "net_arch": [],
            "activation_fn": torch.nn.ReLU,
        },
        seed=setting.seed,
        device="cpu",
    )
