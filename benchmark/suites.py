"""The frozen suites: which tasks, mitigations, rates and seeds, at what budget."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.errors import unknown_name
from benchmark.training.config import TrainingConfig

BASELINE = "none"
"""The mitigation that all others are compared with."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskPlan(_Model):
    """How a suite trains one task."""

    task: str
    parameters: dict[str, Any] = {}
    """The task's own parameters."""
    training: TrainingConfig


class MitigationPlan(_Model):
    """A mitigation with the hyperparameters that differ from its defaults."""

    name: str
    hyperparameters: dict[str, Any] = {}
    selection: Literal["defaults", "in_distribution", "validation_shift"] = "defaults"
    """On which levels the hyperparameters were chosen."""


class Suite(_Model):
    """A versioned matrix with budgets."""

    name: str
    """Without the version."""
    version: int = Field(gt=0)
    description: str
    tasks: tuple[TaskPlan, ...]
    mitigations: tuple[MitigationPlan, ...]
    alphas: tuple[float, ...]
    seeds: int = Field(gt=0)
    """Seeds 0 to ``seeds - 1``."""
    episodes: int = Field(1024, ge=1000)
    """Evaluation episodes a split."""
    sampling: Literal["sampled", "greedy"] = "sampled"

    @property
    def id(self) -> str:
        """The public id, such as ``quick-v1``."""
        return f"{self.name}-v{self.version}"


CORNER_7 = {"size": 7, "wall_density": 0.1, "benign_wall_density": 0.2, "time_limit": 15}
"""The small corner world: random walking reaches either goal in less than a quarter of its episodes."""


def _quick_training(env_steps: int) -> TrainingConfig:
    """Return settings chosen on the success rate on training levels at rates 0 and 1."""
    return TrainingConfig(
        env_steps=env_steps,
        num_envs=256,
        num_steps=16,
        num_epochs=4,
        minibatch_size=1024,
        learning_rate=4e-3,
        gamma=0.9,
        gae_lambda=0.9,
        entropy_coeff=0.001,
        hidden_sizes=(64, 64),
    )


QUICK_V1 = Suite(
    name="quick",
    version=1,
    description="Two tasks, four mitigations, three seeds: the whole story in three minutes on two cores.",
    tasks=(
        TaskPlan(task="corner", parameters=CORNER_7, training=_quick_training(400_000)),
        TaskPlan(task="fraud", training=_quick_training(200_000)),
    ),
    mitigations=tuple(MitigationPlan(name=name) for name in ("none", "domain_randomization", "accel", "goal_multi")),
    alphas=(0.0,),
    seeds=3,
)

SMOKE_V1 = Suite(
    name="smoke",
    version=1,
    description="Every task in seconds: shows that a machine works, not what a mitigation is worth.",
    tasks=(
        TaskPlan(task="corner", parameters=CORNER_7, training=_quick_training(40_000)),
        TaskPlan(task="fraud", training=_quick_training(40_000)),
    ),
    mitigations=(MitigationPlan(name="none"), MitigationPlan(name="domain_randomization")),
    alphas=(0.0,),
    seeds=1,
    episodes=1000,
)

SUITES: dict[str, Suite] = {suite.id: suite for suite in (QUICK_V1, SMOKE_V1)}
"""Every suite by its id; the newest version of a name is last."""


def get_suite(name: str) -> Suite:
    """Return the suite with the id ``name``, or the newest version of the name ``name``.

    Raises:
        RequestError: there is none.
    """
    if name in SUITES:
        return SUITES[name]
    versions = [suite for suite in SUITES.values() if suite.name == name]
    if not versions:
        raise unknown_name("suite", name, {*SUITES, *(suite.name for suite in SUITES.values())})
    return max(versions, key=lambda suite: suite.version)
