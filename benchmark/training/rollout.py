"""Collects rollouts: plays the current policy on the levels that the mitigation chooses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from goalposts.benchmark.errors import NonFiniteError
from goalposts.benchmark.plugins.hooks import Hooks
from goalposts.benchmark.plugins.mitigation import LOGITS, VALUES, sample_actions
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task


class Collector:
    """The environments, the stream of levels that feeds them, and the policy that plays."""

    def __init__(
        self,
        task: Task[Any],
        hooks: Hooks,
        network: nn.Module,
        *,
        num_envs: int,
        num_steps: int,
        actions_generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.task = task
        self.hooks = hooks
        self.network = network
        self.num_steps = num_steps
        self.device = device
        self.actions_generator = actions_generator
        self.env = task.make_env(num_envs, device)
        self.restarts = type(hooks.mitigation).restart_rollouts
        self._known_goals = hooks.known_goals.to(device)
        self._everywhere = torch.arange(num_envs, device=device)
        self._observation: Tensor | None = None
        self._playing: Levels
        """The level in each environment."""
        self._queue: Levels
        """Levels drawn but not yet played."""
        self._queued_goals: Tensor
        """``int64[len(queue)]``: the goal of the episode on each queued level."""

    def policy(self, observation: Tensor, told_goal: Tensor) -> dict[str, Tensor]:
        """Return the network's outputs for raw observations, without gradients."""
        with torch.no_grad():
            outputs: dict[str, Tensor] = self.network(self.hooks.observe(observation, told_goal))
        return outputs

    def collect(self, levels: Levels | None = None) -> Rollout:
        """Play ``num_steps`` steps in every environment.

        Args:
            levels: play these instead of the mitigation's levels, one in each environment. The running episodes are
                left alone.

        Raises:
            NonFiniteError: an observation or a network output is NaN or infinite.
        """
        if levels is not None:
            aside = copy.copy(self)  # The same network, hooks and generators, but its own environments.
            aside.env = self.task.make_env(self.env.num_envs, self.device)
            aside._restart(levels)
            return aside._play(repeat=True)
        if self.restarts:
            self._restart(self.hooks.sample_levels(self.env.num_envs))
        elif self._observation is None:
            self._restart(self.hooks.sample_levels(self.env.num_envs))
            self._queue, self._queued_goals = self._playing[:0], self._everywhere[:0]
        return self._play(repeat=self.restarts)

    def _restart(self, levels: Levels) -> None:
        self._playing = levels
        self._observation = self.env.reset(levels, goals=self.hooks.goals(levels))

    def _next_levels(self, count: int) -> tuple[Levels, Tensor]:
        """Return the next levels of the stream and the goal of the episode on each, ``int64[count]``."""
        if len(self._queue) < count:
            fresh = self.hooks.sample_levels(self.env.num_envs)
            self._queue = type(fresh).concatenate([self._queue, fresh])
            self._queued_goals = torch.cat([self._queued_goals, self.hooks.goals(fresh)])
        levels, self._queue = self._queue[:count], self._queue[count:]
        goals, self._queued_goals = self._queued_goals[:count], self._queued_goals[count:]
        return levels, goals

    def _play(self, *, repeat: bool) -> Rollout:
        env, observation = self.env, self._observation
        self.network.eval()
        assert observation is not None
        batches = [self._playing]
        index, num_levels = self._everywhere.clone(), env.num_envs
        columns: dict[str, list[Tensor]] = {name: [] for name in _COLUMNS}
        finals, final_rows = [observation[:0]], [self._everywhere[:0]]
        for t in range(self.num_steps):
            told = env.state["goal"].clone()
            outputs = self.policy(observation, told)
            logits = outputs[LOGITS]
            if not bool(torch.isfinite(logits).all()):
                _check_finite(t, observations=observation, logits=logits)
            actions = sample_actions(logits, self.actions_generator)
            step = env.step(actions)
            rewards = step.events.gather(1, told.unsqueeze(1)).squeeze(1).float() - step.cost
            row = (
                observation, told, actions, logits, outputs[VALUES], rewards,
                step.events & self._known_goals, step.terminated, step.truncated, index.clone(),
            )  # fmt: skip
            for name, column in zip(_COLUMNS, row, strict=True):
                columns[name].append(column)
            observation = step.observation
            done = step.terminated | step.truncated
            where = done.nonzero().squeeze(1)
            if len(where):
                finals.append(observation[where])
                final_rows.append(t * env.num_envs + where)
                levels, goals = (self._playing[where], told[where]) if repeat else self._next_levels(len(where))
                first = env.reset(levels, done, goals)
                observation = observation.index_copy(0, where, first)
                if not repeat:
                    self._playing = self._playing.replaced(where, levels)
                    batches.append(levels)
                    index[where] = torch.arange(num_levels, num_levels + len(where), device=self.device)
                    num_levels += len(where)
        self._observation = observation
        stacked = {name: torch.stack(column) for name, column in columns.items()}
        rollout = Rollout(
            **stacked,
            levels=type(self._playing).concatenate(batches),
            log_probs=_log_probs(stacked["logits"], stacked["actions"]),
            final_values=torch.zeros_like(stacked["values"]),
            last_values=self.policy(observation, env.state["goal"])[VALUES],
            importance=torch.ones_like(stacked["values"]),
            final_observations=torch.cat(finals),
            final_rows=torch.cat(final_rows),
            last_observations=observation,
        )
        rollout.final_values = self._final_values(rollout)
        _check_finite(
            self.num_steps,
            observations=rollout.observations,
            values=rollout.values,
            final_values=rollout.final_values,
            last_values=rollout.last_values,
        )
        return rollout

    def _final_values(self, rollout: Rollout) -> Tensor:
        """Return the values of the states where episodes were truncated, ``float32[T, N]``."""
        values = torch.zeros_like(rollout.values).flatten()
        truncated = rollout.truncated.flatten()[rollout.final_rows]
        if bool(truncated.any()):
            rows = rollout.final_rows[truncated]
            outputs = self.policy(rollout.final_observations[truncated], rollout.told_goals.flatten()[rows])
            values[rows] = outputs[VALUES]
        return values.view_as(rollout.values)

    def refresh(self, rollout: Rollout, played_for: Tensor) -> None:
        """Recompute the current policy's outputs for a relabelled rollout.

        An episode that continues after the last step keeps the new goal of its last transition.

        Args:
            rollout: the relabelled rollout, changed in place.
            played_for: ``int64[T, N]``, the goals before relabelling.
        """
        before = rollout.log_probs
        steps = [self.policy(*step) for step in zip(rollout.observations, rollout.told_goals, strict=True)]
        rollout.logits = torch.stack([outputs[LOGITS] for outputs in steps])
        rollout.values = torch.stack([outputs[VALUES] for outputs in steps])
        rollout.log_probs = _log_probs(rollout.logits, rollout.actions)
        rollout.final_values = self._final_values(rollout)
        rollout.last_values = self.policy(rollout.last_observations, rollout.told_goals[-1])[VALUES]
        ratio = (rollout.log_probs - before).exp()
        rollout.importance = torch.where(rollout.told_goals == played_for, 1.0, ratio)

    def state_dict(self) -> dict[str, Any]:
        """Return the environments, the stream of levels and the current observations."""
        if self.restarts or self._observation is None:
            return {}
        return {
            "env": self.env.state_dict(),
            "observation": self._observation,
            "playing": self._playing.tensors(),
            "queue": self._queue.tensors(),
            "queued_goals": self._queued_goals,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        if state:
            levels_type = self.task.levels_type
            self.env.load_state_dict(state["env"])
            self._observation = state["observation"].to(self.device)
            self._playing = levels_type.from_tensors(state["playing"]).to(self.device)
            self._queue = levels_type.from_tensors(state["queue"]).to(self.device)
            self._queued_goals = state["queued_goals"].to(self.device)


_COLUMNS = (
    "observations", "told_goals", "actions", "logits", "values", "rewards",
    "events", "terminated", "truncated", "level_index",
)  # fmt: skip


def _check_finite(step: int, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"The {name} hold NaN or infinity by step {step} of a rollout.")


def _log_probs(logits: Tensor, actions: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
