"""The training loop: rollout, mitigation hooks, advantages, update, checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from goalposts.benchmark.agent import Agent, build_network
from goalposts.benchmark.errors import HookError, NonFiniteError, RequestError
from goalposts.benchmark.plugins.context import Context
from goalposts.benchmark.plugins.hooks import Hooks
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.randomness import Key, generator, stream_seed
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.advantages import generalized_advantages
from goalposts.benchmark.training.config import TrainingConfig
from goalposts.benchmark.training.learner import WEIGHTS, build_learner
from goalposts.benchmark.training.overlap import OverlappedCollector, can_overlap
from goalposts.benchmark.training.rewards import RewardScale
from goalposts.benchmark.training.rollout import Collector

if TYPE_CHECKING:
    from goalposts.benchmark.measurement.counts import Sampling

LogMetrics = Callable[[dict[str, float]], None]
CHECKPOINT_SHARE = 0.02
"""Largest share of the wall time that checkpoints may take."""


class Trainer:
    """One cell's training run. On a CPU it resumes after any iteration with bit-identical results.

    Args:
        task: the task to train on.
        mitigation: a fresh instance.
        alpha: the disambiguation rate.
        config: hyperparameters.
        stream: the key of the run's random streams: suite, task and seed. Runs that differ only in the mitigation share
            their streams. The mitigation's private stream also has its name in the key.
        mitigation_name: the name that is part of the private stream's key.
        device: where environments and network live.
        hooks: calls the mitigation's hooks. The conformance suite replaces it to watch them.

    Raises:
        RequestError: the mitigation does not apply to the task.
    """

    def __init__(
        self,
        task: Task[Any],
        mitigation: Mitigation,
        *,
        alpha: float,
        config: TrainingConfig,
        stream: tuple[Key, ...],
        mitigation_name: str,
        device: torch.device | str = "cpu",
        hooks: type[Hooks] = Hooks,
    ) -> None:
        if (lack := mitigation.inapplicable(task)) is not None:
            raise RequestError(
                f"Mitigation {mitigation_name!r} does not apply to task {task.id!r}, which has {lack}; choose others."
            )
        self.task = task
        self.config = config
        self.device = torch.device(device)
        self.env_steps = 0
        self.generators = {
            purpose: generator(*stream, purpose, device=self.device) for purpose in ("levels", "actions", "minibatches")
        }
        self.generators["mitigation"] = generator(*stream, "mitigation", mitigation_name, device=self.device)
        self.scale = RewardScale(config.num_envs, config.gamma, self.device) if config.normalize_rewards else None
        self.hooks = hooks(mitigation, task)
        self.hooks.setup(
            Context(
                task,
                type(mitigation).uses,
                alpha=alpha,
                training=config,
                generator=self.generators["mitigation"],
                level_generator=self.generators["levels"],
                rollouts=self,
            )
        )
        self.network = build_network(self.hooks, config, stream_seed(*stream, "network"), self.device)
        self.learner = build_learner(self.network, config)
        if type(mitigation).overrides("extra_loss"):
            self.learner.extra_loss = self.hooks.extra_loss
        overlaps = config.overlap and can_overlap(type(mitigation))
        actor = copy.deepcopy(self.network) if overlaps else self.network
        self.collector = Collector(
            task,
            self.hooks,
            actor,
            num_envs=config.num_envs,
            num_steps=config.num_steps,
            actions_generator=self.generators["actions"],
            device=self.device,
        )
        self.overlapped: OverlappedCollector | None = None
        """Collects during the update, if the configuration asks for it and the mitigation allows it."""
        if overlaps:
            streams = {name: stream for name, stream in self.generators.items() if name != "minibatches"}
            self.overlapped = OverlappedCollector(self.collector, actor, self.network, streams)

    def train(
        self,
        folder: Path,
        *,
        resume_from: checkpoint.Loaded | None = None,
        checkpoint_seconds: float = 5.0,
        log_metrics: LogMetrics | None = None,
        milestones: int = 0,
        at_milestone: Callable[[], None] | None = None,
    ) -> str:
        """Train until the budget is spent.

        Args:
            folder: where checkpoints are kept.
            resume_from: a checkpoint to continue from.
            checkpoint_seconds: least wall time between two checkpoints. The pause grows if checkpoints would take more
                than ``CHECKPOINT_SHARE`` of the time. 0 saves one after every iteration. The result is the same.
            log_metrics: called with each iteration's metrics.
            milestones: how many times, evenly spaced before the end, ``at_milestone`` is called.
            at_milestone: may evaluate the agent.

        Returns:
            The SHA-256 of the final checkpoint.
        """
        digest = None
        if resume_from is not None:
            state, self.env_steps, digest = resume_from
            self.load_state_dict(state)
        saved, pause = time.monotonic(), checkpoint_seconds
        while self.env_steps < self.config.env_steps:
            passed = self._milestones_passed(milestones)
            metrics = self.iterate()
            if log_metrics is not None:
                log_metrics(metrics)
            finished = self.env_steps >= self.config.env_steps
            if at_milestone is not None and not finished and self._milestones_passed(milestones) > passed:
                at_milestone()
            if finished or time.monotonic() - saved >= pause:
                begun = time.monotonic()
                digest = checkpoint.save(folder, self.state_dict(), self.env_steps)
                saved = time.monotonic()
                if checkpoint_seconds > 0:
                    pause = max(checkpoint_seconds, (saved - begun) / CHECKPOINT_SHARE)
        assert digest is not None
        return digest

    def _milestones_passed(self, milestones: int) -> int:
        return self.env_steps * (milestones + 1) // self.config.env_steps

    def iterate(self) -> dict[str, float]:
        """Collect one rollout, update on it, and return the iteration's metrics."""
        self.learner.set_schedules(self.env_steps)
        try:
            rollout = self._next_rollout()
        except NonFiniteError as error:
            raise NonFiniteError(
                f"{error} It began at environment step {self.env_steps}.", what=error.what, hook=error.hook
            ) from error
        self.env_steps += self.config.steps_per_rollout
        if type(self.hooks.mitigation).overrides("relabel"):
            played_for = rollout.told_goals.clone()
            rollout = self.hooks.relabel(rollout)
            self.collector.refresh(rollout, played_for)
        if self.scale is not None:
            self.scale.update(rollout, restarted=self.collector.restarts)
        self._estimate(rollout)
        self.hooks.after_rollout(rollout)
        columns = self._columns(rollout)
        metrics = {"env_steps": float(self.env_steps), **_rollout_metrics(rollout)}
        num_rows = len(columns[Columns.ACTIONS])
        lags = self.overlapped is not None and self.env_steps > self.config.steps_per_rollout
        metrics["policy_lag"] = float(lags)
        metrics["trained_share"] = num_rows / rollout.rewards.numel()
        if num_rows:
            metrics |= self.learner.update_on(
                columns,
                num_epochs=self.config.num_epochs,
                minibatch_size=self.config.minibatch_size,
                env_steps=self.env_steps,
                generator=self.generators["minibatches"],
            )
        return metrics

    def _next_rollout(self) -> Rollout:
        if self.overlapped is None:
            return self.collector.collect()
        last = self.env_steps + self.config.steps_per_rollout >= self.config.env_steps
        return self.overlapped.collect(last=last)

    def _columns(self, rollout: Rollout) -> dict[str, Tensor]:
        """Return the learner's columns ``[n, ...]``: the transitions with positive weight."""
        observations = self.hooks.observe(rollout.observations.flatten(0, 1), rollout.told_goals.flatten())
        columns = {
            Columns.OBS: observations,
            Columns.ACTIONS: rollout.actions.flatten(),
            Columns.ACTION_LOGP: rollout.log_probs.flatten(),
            Columns.ACTION_DIST_INPUTS: rollout.logits.flatten(0, 1),
            Postprocessing.ADVANTAGES: rollout.advantages.flatten(),
            Postprocessing.VALUE_TARGETS: rollout.value_targets.flatten(),
        }
        further = self.hooks.batch_columns(rollout, taken={*columns, WEIGHTS})
        columns |= {name: column.flatten(0, 1) for name, column in further.items()}
        weights = self.hooks.sample_weights(rollout)
        if weights is not None:
            columns[WEIGHTS] = weights.flatten()
            kept = columns[WEIGHTS] > 0
            if not bool(kept.all()):
                columns = {name: column[kept] for name, column in columns.items()}
            if bool((columns[WEIGHTS] == 1).all()):
                del columns[WEIGHTS]
        advantages = columns[Postprocessing.ADVANTAGES]
        if len(advantages) > 1:
            columns[Postprocessing.ADVANTAGES] = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return columns

    def steps_left(self) -> int:
        """Return how many steps of the budget are left."""
        return max(self.config.env_steps - self.env_steps, 0)

    def extra_rollout(self, levels: Levels) -> Rollout:
        """Play a rollout for a mitigation. It counts against the budget.

        Raises:
            HookError: there is no network yet, the budget is spent, or the levels may not be played.
        """
        if not hasattr(self, "collector"):
            raise HookError("Hook 'setup' asked for a rollout; there is no network yet. Ask in a later hook.")
        name = type(self.hooks.mitigation).__name__
        if self.env_steps >= self.config.env_steps + self.config.steps_per_rollout:
            raise HookError(
                f"{name} asked for a rollout when the budget of {self.config.env_steps} steps was spent; do not ask "
                "when context.steps_left() is 0."
            )
        deed = f"{name} asked for a rollout on"
        rollout = self.collector.collect(self.hooks.check_levels(deed, levels, self.config.num_envs))
        self.env_steps += self.config.steps_per_rollout
        self._estimate(rollout)
        return rollout

    def _estimate(self, rollout: Rollout) -> None:
        """Fill in advantages and value targets. They use normalized rewards if the configuration says so."""
        rewards = rollout.rewards if self.scale is None else self.scale.normalized(rollout.rewards)
        rollout.advantages, rollout.value_targets = generalized_advantages(
            dataclasses.replace(rollout, rewards=rewards), self.config.gamma, self.config.gae_lambda
        )

    def agent(self, sampling: Sampling) -> Agent:
        """Return the agent at this moment. Training continues in the same network."""
        return Agent(self.task, self.hooks, self.network, sampling)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            "module": self.network.state_dict(),
            "optimizers": [
                optimizer.state_dict() for _, optimizer in self.learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
            ],
            "generators": {name: stream.get_state() for name, stream in self.generators.items()},
            "collector": (self.overlapped or self.collector).state_dict(),
            "reward_scale": {} if self.scale is None else self.scale.state_dict(),
            "mitigation": self.hooks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        self.network.load_state_dict(state["module"])
        optimizers = self.learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
        for (_, optimizer), saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict({**saved, "state": {int(key): value for key, value in saved["state"].items()}})
        for name, saved in state["generators"].items():
            self.generators[name].set_state(saved)
        if self.scale is not None:
            self.scale.load_state_dict(state["reward_scale"])
        self.hooks.load_state_dict(state["mitigation"])
        (self.overlapped or self.collector).load_state_dict(state["collector"])


def _rollout_metrics(rollout: Rollout) -> dict[str, float]:
    episodes = int(rollout.done.sum())
    return {
        "reward_per_episode": float(rollout.rewards.sum()) / max(episodes, 1),
        "success_rate": float((rollout.terminated & (rollout.rewards > 0)).sum()) / max(episodes, 1),
        "episodes": float(episodes),
        "value_mean": float(rollout.values.mean()),
    }
