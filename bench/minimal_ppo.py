"""PPO in one file on batched environments: what a training loop costs that knows no mitigations.

The yardstick of ``throughput.py`` and nothing else: same environments, network, dtype, hyperparameters and estimators
as the benchmark's own loop, written with nothing but torch.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.training.config import TrainingConfig


def layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """Return an orthogonally initialized dense layer."""
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    """A shared trunk with a policy head and a value head."""

    def __init__(self, observation_shape: tuple[int, ...], num_actions: int, config: TrainingConfig) -> None:
        super().__init__()
        widths = (math.prod(observation_shape), *config.hidden_sizes)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [layer(inputs, outputs, math.sqrt(2)), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.actor = layer(widths[-1], num_actions, 0.01)
        self.critic = layer(widths[-1], 1, 1.0)
        self.bf16 = config.bf16

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        if self.bf16:
            with torch.autocast("cpu", torch.bfloat16):
                hidden = self.trunk(observation.bfloat16()).float()
        else:
            hidden = self.trunk(observation.float())
        return self.actor(hidden).log_softmax(-1), self.critic(hidden).squeeze(-1)


def train(task: Task[Any], config: TrainingConfig, alpha: float, seed: int) -> float:
    """Train for ``config.env_steps`` steps; return the success rate of the episodes in the last rollout."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    agent = Agent(task.observation_shape, task.num_actions, config)
    optimizer = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)

    T, N = config.num_steps, config.num_envs  # noqa: N806 (the literature's names)
    env = task.make_env(N)
    level_queue = task.sample_levels(N, alpha, generator)
    observation = env.reset(level_queue)
    level_queue = level_queue[:0]

    observations = torch.zeros(T, N, *task.observation_shape, dtype=observation.dtype)
    actions = torch.zeros(T, N, dtype=torch.int64)
    log_probs, values, next_values, rewards = (torch.zeros(T, N) for _ in range(4))
    going_on = torch.zeros(T, N, dtype=torch.bool)
    success_rate = 0.0

    for start in range(0, config.env_steps, T * N):
        truncated = []
        successes = episodes = 0
        with torch.no_grad():
            for t in range(T):
                log_prob, values[t] = agent(observation)
                action = torch.multinomial(log_prob.exp(), 1)
                observations[t], actions[t] = observation, action.squeeze(1)
                log_probs[t] = log_prob.gather(1, action).squeeze(1)
                step = env.step(actions[t])
                rewards[t] = step.events[:, 0].float() - step.cost
                observation = step.observation
                done = step.terminated | step.truncated
                going_on[t] = ~done
                where = done.nonzero().squeeze(1)
                if len(where):
                    episodes += len(where)
                    successes += int(step.terminated.sum())
                    late = step.truncated.nonzero().squeeze(1)
                    if len(late):
                        truncated.append((t, late, observation[late]))
                    while len(level_queue) < len(where):
                        fresh = task.sample_levels(N, alpha, generator)
                        level_queue = type(fresh).concatenate([level_queue, fresh])
                    observation[where] = env.reset(level_queue[: len(where)], done)
                    level_queue = level_queue[len(where) :]

            next_values[:-1] = values[1:]
            next_values[-1] = agent(observation)[1]
            next_values *= going_on
            if truncated:
                final_values = agent(torch.cat([final for _, _, final in truncated]))[1]
                for (t, late, _), value in zip(
                    truncated, final_values.split([len(late) for _, late, _ in truncated]), strict=True
                ):
                    next_values[t, late] = value
            deltas = rewards + config.gamma * next_values - values
            decay = config.gamma * config.gae_lambda * going_on
            advantages = torch.zeros(T, N)
            advantage = torch.zeros(N)
            for t in reversed(range(T)):
                advantage = deltas[t] + decay[t] * advantage
                advantages[t] = advantage
            targets = (advantages + values).flatten()
            advantages = ((advantages - advantages.mean()) / (advantages.std() + 1e-8)).flatten()

        if config.anneal:
            optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - start / config.env_steps)
        flat = (observations.flatten(0, 1), actions.flatten(), log_probs.flatten(), advantages, targets)
        for _ in range(config.num_epochs):
            for rows in torch.randperm(T * N).split(config.minibatch_size):
                observed, taken, old_log_prob, advantage, target = (column[rows] for column in flat)
                log_prob, value = agent(observed)
                ratio = (log_prob.gather(1, taken.unsqueeze(1)).squeeze(1) - old_log_prob).exp()
                clipped = ratio.clamp(1 - config.clip_param, 1 + config.clip_param)
                policy_loss = -torch.min(advantage * ratio, advantage * clipped).mean()
                value_loss = (value - target).square().mean()
                entropy = -(log_prob.exp() * log_prob).sum(-1).mean()
                loss = policy_loss + config.vf_loss_coeff * value_loss - config.entropy_coeff * entropy
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), config.grad_clip)
                optimizer.step()
        success_rate = successes / max(episodes, 1)
    return success_rate
