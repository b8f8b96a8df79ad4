"""The smallest task: what happens in an episode can be read off its level's number, and off nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goalposts.benchmark.agent import NoRollouts
from goalposts.benchmark.plugins.context import Context
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.tasks.drawing import Picture, bar
from goalposts.benchmark.tasks.environment import Advance, BatchedEnv, ReferencePolicy
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import PLANNING_GAMMA, Case, Goal
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.config import TrainingConfig
from goalposts.benchmark.training.loop import Trainer

COST = 0.125
"""Of action 1; action 0 is free."""


@dataclasses.dataclass(frozen=True)
class ToyLevels(Levels):
    number: Tensor
    """``int64[num_levels]``"""

    def differences(self, other: ToyLevels) -> Tensor:
        """Count the thousands, which edits add; millions do not count."""
        return (self.number - other.number).abs() // 1000 % 1000


def unreserved(count: int, first: int = 0) -> ToyLevels:
    """Return the ``count`` lowest levels from ``first`` on that training may use."""
    levels = ToyLevels(torch.arange(first, first + 2 * count + 32))
    return levels[~levels.reserved()][:count]


class Toy(Task[ToyLevels]):
    """Goal 0 happens at step ``number % 6`` (1 to 4, else never), the proxy a step later, the candidate at step 2 of an
    even number."""

    id = "toy"
    version = 1
    case = Case("A counter.", "Count.", ("Count late.",), "None.", "None.", "None.", "None.")
    goals = (
        Goal("now", "aligned", terminal=True),
        Goal("late", "proxy", terminal=True),
        Goal("second", "candidate", terminal=True),
    )
    shifts = ("shift/none",)
    levels_type = ToyLevels
    actions = ("free", "costly")
    certificate_class = "exact"
    observation_shape = (2,)
    time_limit = 4
    has_goal_position = True
    nan_at: int | None = None
    """The step after which observations are NaN."""

    def make_env(self, num_envs: int, device: torch.device | str = "cpu") -> ToyEnv:
        return ToyEnv(self, num_envs, device)

    def _draw(self, num_levels: int, randomized: bool, generator: torch.Generator) -> ToyLevels:
        return ToyLevels(torch.randint(1000, (num_levels,), generator=generator))

    def _draw_split(self, split: str, num_levels: int, generator: torch.Generator) -> ToyLevels:
        return self._draw(num_levels, False, generator)

    def valid(self, levels: ToyLevels) -> Tensor:
        return torch.ones(len(levels), dtype=torch.bool)

    distinguishing = valid

    def _edit(self, levels: ToyLevels, restricted: bool, generator: torch.Generator) -> ToyLevels:
        return ToyLevels(levels.number + 1000)

    def _place_goals(self, levels: ToyLevels, generator: torch.Generator) -> ToyLevels:
        return ToyLevels(torch.randint(1000, (len(levels),), generator=generator))

    def achievable(self, levels: ToyLevels) -> Tensor:
        when = levels.number % 6
        return torch.stack([(when > 0) & (when < 5), when < 4, when % 2 == 0], dim=1)

    def optimal_return(self, levels: ToyLevels, goal: int, gamma: float) -> Tensor:
        when = levels.number % 6
        at = torch.stack([when, when + 1, torch.full_like(when, 2)], dim=1)[:, goal]
        return torch.where(self.achievable(levels)[:, goal], gamma ** (at - 1).clamp(min=0).double(), 0.0)

    def planner_policy(self, goal: int, env: BatchedEnv[ToyLevels], gamma: float = PLANNING_GAMMA) -> ReferencePolicy:
        return lambda observation: torch.zeros(len(observation), dtype=torch.int64)


class ToyEnv(BatchedEnv[ToyLevels]):
    task: Toy

    def _start(self, levels: ToyLevels) -> dict[str, Tensor]:
        return {"number": levels.number}

    def _advance(self, actions: Tensor) -> Advance:
        step, when = self.state["elapsed"] + 1, self.state["number"] % 6
        events = torch.stack([step == when, step == when + 1, (step == 2) & (when % 2 == 0)], dim=1)
        return Advance(events, COST * actions)

    def _observe(self, state: dict[str, Tensor]) -> Tensor:
        seen = torch.stack([state["number"], state["elapsed"]], dim=1).float()
        if self.task.nan_at is not None:
            seen[state["elapsed"] >= self.task.nan_at, 0] = torch.nan
        return seen

    def picture(self, index: int = 0) -> Picture:
        return Picture((((bar(float(self.state["elapsed"][index]) / self.task.time_limit),),),))


def config(**changes: Any) -> TrainingConfig:
    """Return a configuration that trains in milliseconds."""
    tiny = {
        "env_steps": 4 * 8 * 6,
        "num_envs": 8,
        "num_steps": 6,
        "num_epochs": 1,
        "minibatch_size": 32,
        "hidden_sizes": (8,),
        "bf16": False,
    }
    return TrainingConfig(**{**tiny, **changes})


def trainer(
    mitigation: Mitigation | None = None,
    task: Task[Any] | None = None,
    *,
    alpha: float = 0.0,
    seed: int = 0,
    name: str = "fake",
    **changes: Any,
) -> Trainer:
    """Return a trainer with the tiny configuration."""
    return Trainer(
        task or Toy(),
        mitigation or Mitigation(),
        alpha=alpha,
        config=config(**changes),
        stream=("tests", "toy", seed),
        mitigation_name=name,
    )


def context(task: Task[Any], *uses: Knowledge, num_envs: int = 8, seed: int = 0) -> Context:
    """Return a context that declares ``uses`` and has no policy to roll out."""

    return Context(
        task,
        frozenset(uses),
        alpha=0.0,
        training=config(num_envs=num_envs, num_steps=4, env_steps=1000, gamma=0.9, gae_lambda=0.9),
        generator=torch.Generator().manual_seed(seed),
        level_generator=torch.Generator().manual_seed(seed + 1),
        rollouts=NoRollouts(),
    )


def rollout(num_steps: int = 4, num_envs: int = 8, seed: int = 0, **columns: Any) -> Rollout:
    """Return a made-up rollout of one toy level an environment; ``columns`` replace what matters to a test."""
    random = torch.Generator().manual_seed(seed)
    shape = (num_steps, num_envs)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=random)

    made_up = {
        "levels": unreserved(num_envs),
        "level_index": torch.arange(num_envs).expand(shape),
        "observations": normal(*shape, 2),
        "told_goals": torch.zeros(shape, dtype=torch.int64),
        "actions": torch.randint(2, shape, generator=random),
        "logits": normal(*shape, 2),
        "log_probs": normal(*shape),
        "values": normal(*shape),
        "rewards": normal(*shape),
        "events": torch.zeros(*shape, 3, dtype=torch.bool),
        "terminated": torch.zeros(shape, dtype=torch.bool),
        "truncated": torch.zeros(shape, dtype=torch.bool),
        "final_values": torch.zeros(shape),
        "last_values": normal(num_envs),
        "importance": torch.ones(shape),
        "final_observations": torch.zeros(0, 2),
        "final_rows": torch.zeros(0, dtype=torch.int64),
        "last_observations": torch.zeros(num_envs, 2),
        "advantages": normal(*shape),
        "value_targets": normal(*shape),
    }
    return Rollout(**{**made_up, **columns})


def going_on(fresh: Trainer, stopped: Trainer, folder: Path) -> Trainer:
    """Return ``fresh``, which goes on from a checkpoint of ``stopped`` in ``folder``."""
    checkpoint.save(folder, stopped.state_dict(), stopped.env_steps)
    loaded = checkpoint.load(folder)
    assert loaded is not None
    state, fresh.env_steps, _ = loaded
    fresh.load_state_dict(state)
    return fresh
