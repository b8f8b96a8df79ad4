"""The frozen suites: which tasks, mitigations, rates and seeds, at what budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from goalposts.benchmark.errors import RequestError, first_problem, unknown_name
from goalposts.benchmark.training.config import TrainingConfig

STUDIES = Path(__file__).parents[1] / "studies"
"""What studies of hyperparameters chose, a folder for each suite and a file for each mitigation."""
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


Factored = Literal["learning_rate", "entropy_coeff", "clip_param"]
FACTORS: dict[Factored, tuple[float, float]] = {
    "learning_rate": (0.25, 4.0),
    "entropy_coeff": (0.1, 10.0),
    "clip_param": (0.5, 2.0),
}
"""What tuning a mitigation may multiply the settings of a task's training with, least and most."""


class MitigationPlan(_Model):
    """A mitigation with the hyperparameters that differ from its defaults, and its changes to the tasks' settings."""

    name: str
    hyperparameters: dict[str, Any] = {}
    selection: Literal["defaults", "in_distribution", "validation_shift"] = "defaults"
    """On which levels the hyperparameters were chosen."""
    factors: dict[Factored, float] = {}
    """What each task's own setting is multiplied with."""
    study: str | None = None
    """The id of the study that chose them; None for what nobody tuned."""

    @field_validator("factors")
    @classmethod
    def _within_what_tuning_may_do(cls, factors: dict[Factored, float]) -> dict[Factored, float]:
        for name, factor in factors.items():
            least, most = FACTORS[name]
            if not least <= factor <= most:
                raise ValueError(f"{name} is multiplied with {factor!r}; give {least:g} to {most:g}")
        return factors


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
    milestones: int = Field(0, ge=0)
    """How often an agent is evaluated in the course of its training, evenly spaced, the end not counted."""
    milestone_episodes: int = Field(200, gt=0)
    """Episodes a split at each of them."""
    sampling: Literal["sampled", "greedy"] = "sampled"
    ask_share: float = Field(0.1, ge=0, le=1)
    """Greatest share of evaluation episodes in which an agent that asks for help is given it."""

    @property
    def id(self) -> str:
        """The public id, such as ``quick-v1``."""
        return f"{self.name}-v{self.version}"


def read_tuned(path: Path) -> MitigationPlan:
    """Return what a study of hyperparameters chose, from the ``tuned.json`` of ``goalposts tune``.

    Raises:
        RequestError: the file is none.
    """
    try:
        return MitigationPlan.model_validate(json.loads(path.read_text(encoding="utf-8"))["plan"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(f"{str(path)!r} is no 'tuned.json' of 'goalposts tune': {first_problem(error)}.") from error


def tuned(suite: Suite) -> tuple[MitigationPlan, ...]:
    """Return the suite's mitigations as its studies chose them."""
    return tuple(read_tuned(STUDIES / suite.id / f"{plan.name}.json") for plan in suite.mitigations)


def _training(env_steps: int, **changes: Any) -> TrainingConfig:
    """Return settings chosen on the success rate on training levels at rates 0 and 1."""
    settings: dict[str, Any] = {
        "num_envs": 256,
        "num_steps": 16,
        "num_epochs": 4,
        "minibatch_size": 1024,
        "learning_rate": 4e-3,
        "gamma": 0.9,
        "gae_lambda": 0.9,
        "entropy_coeff": 0.001,
        "hidden_sizes": (64, 64),
    }
    return TrainingConfig(env_steps=env_steps, **{**settings, **changes})


LONG: dict[str, Any] = {"num_steps": 32, "minibatch_size": 2048, "learning_rate": 3e-3, "gamma": 0.95}
"""For tasks in which what is done now pays later."""

WALLS = {"wall_density": 0.1, "benign_wall_density": 0.2}
CORNER_7 = {"size": 7, **WALLS, "time_limit": 14}
"""A small world: random walking reaches either goal in less than a quarter of its episodes."""
DISH_7 = {"size": 7, **WALLS, "time_limit": 11}
KEYS_7 = {"size": 7, **WALLS, "time_limit": 24, "scarce": 3, "plentiful": 8}
MONSTERS_5 = {"size": 5, **WALLS, "time_limit": 60, "short": 30}

SMALL = (
    TaskPlan(task="corner", parameters=CORNER_7, training=_training(400_000)),
    TaskPlan(task="dish", parameters=DISH_7, training=_training(400_000)),
    TaskPlan(
        task="keys_and_chests",
        parameters=KEYS_7,
        training=_training(4_000_000, hidden_sizes=(128, 128), **{**LONG, "gamma": 0.999, "gae_lambda": 0.95}),
    ),
    TaskPlan(task="monsters", parameters=MONSTERS_5, training=_training(3_000_000, hidden_sizes=(128, 128), **LONG)),
    TaskPlan(task="convoy", training=_training(600_000, gamma=0.97, gae_lambda=0.95)),
    TaskPlan(task="triage", training=_training(800_000, gamma=0.5, hidden_sizes=(128, 128))),
    TaskPlan(task="fraud", training=_training(200_000)),
)
"""Every task, at a size and budget that fit two cores."""

FULL_VIEWS = tuple(
    TaskPlan(
        task=f"{plan.task}_full",
        parameters=plan.parameters,
        training=_training(600_000, network="conv", hidden_sizes=(64,), learning_rate=2e-3),
    )
    for plan in SMALL[:4]
)
"""The grid tasks seen whole; the network that learns from it is slower."""

QUICK_V1 = Suite(
    name="quick",
    version=1,
    description="Two tasks, four mitigations, three seeds: the whole story in three minutes on two cores.",
    tasks=tuple(plan for plan in SMALL if plan.task in ("corner", "fraud")),
    mitigations=tuple(MitigationPlan(name=name) for name in ("none", "domain_randomization", "accel", "goal_multi")),
    alphas=(0.0,),
    seeds=3,
)

SMOKE_V1 = Suite(
    name="smoke",
    version=1,
    description="Every task in seconds: shows that a machine works, not what a mitigation is worth.",
    tasks=tuple(
        plan.model_copy(update={"training": plan.training.model_copy(update={"env_steps": env_steps})})
        for plans, env_steps in ((SMALL, 40_000), (FULL_VIEWS, 8_000))
        for plan in plans
    ),
    mitigations=(MitigationPlan(name="none"), MitigationPlan(name="domain_randomization")),
    alphas=(0.0,),
    seeds=1,
    episodes=1000,
)

TASKS_V1 = Suite(
    name="tasks",
    version=1,
    description="Every task in small, trained as it comes and on randomized levels: which goals are misgeneralized.",
    tasks=SMALL,
    mitigations=(MitigationPlan(name="none"), MitigationPlan(name="domain_randomization")),
    alphas=(0.0,),
    seeds=3,
)

REPLAYED = {"buffer_size": 1000}
"""A level in the published buffer of 4,000 is replayed a dozen times; so it is in this one, in a small run."""

MITIGATIONS_V1 = Suite(
    name="mitigations",
    version=1,
    description="Three tasks in small, every mitigation, five rates: what each repairs, from which rate on.",
    tasks=tuple(plan for plan in SMALL if plan.task in ("corner", "dish", "fraud")),
    mitigations=(
        *(
            MitigationPlan(name=name)
            for name in ("none", "domain_randomization", "goal_position_randomization", "visual_randomization")
        ),
        *(
            MitigationPlan(name=name, hyperparameters=REPLAYED)
            for name in ("plr", "plr_oracle", "accel", "accel_restricted", "accel_oracle")
        ),
        *(
            MitigationPlan(name=name)
            for name in (
                *("proxy_adversary", "goal_told", "goal_multi", "goal_hindsight"),
                *("proxy_erasure", "ensemble", "ask_for_help"),
            )
        ),
    ),
    alphas=(0.0, 0.01, 0.03, 0.1, 1.0),
    seeds=3,
)

MITIGATIONS_V2 = MITIGATIONS_V1.model_copy(
    update={
        "version": 2,
        "description": MITIGATIONS_V1.description.replace("every mitigation", "every mitigation as it was tuned"),
        "mitigations": tuned(MITIGATIONS_V1),
    }
)

GRID_V1 = Suite(
    name="grid",
    version=1,
    description=(
        "Every task at full size over five disambiguation rates: for a GPU, or one night on sixteen processor cores."
    ),
    tasks=(
        *(
            TaskPlan(
                task=plan.task,
                training=plan.training.model_copy(
                    update={"env_steps": 8_000_000, "hidden_sizes": (128, 128), **LONG, "gamma": gamma}
                ),
            )
            for plan, gamma in zip(SMALL[:4], (0.97, 0.97, 0.999, 0.97), strict=True)
        ),
        *SMALL[4:],
    ),
    mitigations=tuple(MitigationPlan(name=name) for name in ("none", "domain_randomization", "accel", "goal_multi")),
    alphas=(0.0, 0.001, 0.01, 0.1, 1.0),
    seeds=5,
)

REPLAY_V1 = Suite(
    name="replay",
    version=1,
    description="Level replay on the tasks of its published claims, corner at 13×13 and keys_and_chests, at two rates.",
    tasks=(
        *(plan for plan in GRID_V1.tasks if plan.task == "corner"),
        *(plan for plan in SMALL if plan.task == "keys_and_chests"),
    ),
    mitigations=(
        MitigationPlan(name="none"),
        *(
            MitigationPlan(name=name, hyperparameters={"buffer_size": 400})
            for name in ("plr", "plr_oracle", "accel_oracle")
        ),
    ),
    alphas=(0.01, 0.1),
    seeds=3,
)
"""A place in the published buffer of 4,000 sees some thousand levels in 750 million steps, and 30 in 8 million; in a
tenth of it, 300."""

PROCGEN_V1 = Suite(
    name="procgen",
    version=1,
    description="Three Procgen games in full colour over seven rates, with the published settings: for GPUs.",
    tasks=tuple(
        TaskPlan(
            task=task,
            parameters=parameters,
            training=TrainingConfig(
                env_steps=25_000_000,
                num_envs=64,
                num_steps=256,
                num_epochs=3,
                minibatch_size=2048,
                learning_rate=5e-4,
                anneal=False,
                gamma=0.999,
                gae_lambda=0.95,
                entropy_coeff=0.01,
                normalize_rewards=True,
                network="impala",
                hidden_sizes=(256,),
                overlap=True,
            ),
        )
        for task, parameters in (
            ("coinrun", {"mode": "easy", "threads": 4}),
            ("maze_corner", {"mode": "easy", "threads": 4}),
            ("heist_sprites", {"mode": "easy", "threads": 4}),
        )
    ),
    mitigations=(MitigationPlan(name="none"),),
    alphas=(0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 1.0),
    seeds=3,
    episodes=1000,
    milestones=9,
)

COINRUN_LAPTOP_V1 = Suite(
    name="coinrun-laptop",
    version=1,
    description="CoinRun's wrong goal on a laptop: easy levels in plain colours at 32×32 pixels, over three rates.",
    tasks=(
        TaskPlan(
            task="coinrun",
            parameters={
                "mode": "easy",
                "backgrounds": False,
                "plain": True,
                "paint_velocity": True,
                "pixels": 32,
                "action_repeat": 2,
                "time_limit": 250,
            },
            training=TrainingConfig(
                env_steps=8_000_000,
                num_envs=64,
                num_steps=128,
                num_epochs=3,
                minibatch_size=1024,
                learning_rate=8e-4,
                gamma=0.98,
                gae_lambda=0.95,
                entropy_coeff=0.002,
                normalize_rewards=True,
                network="strided",
                hidden_sizes=(256,),
            ),
        ),
    ),
    mitigations=(MitigationPlan(name="none"),),
    alphas=(0.0, 0.1, 1.0),
    seeds=3,
    episodes=1000,
)

COINRUN_LAPTOP_V2 = COINRUN_LAPTOP_V1.model_copy(
    update={
        "version": 2,
        "tasks": tuple(
            plan.model_copy(update={"training": plan.training.model_copy(update={"gamma": 0.99, "network": "patches"})})
            for plan in COINRUN_LAPTOP_V1.tasks
        ),
    }
)
"""With less haste, which makes agents die less often, and a network that costs less."""

SUITES: dict[str, Suite] = {
    suite.id: suite
    for suite in (
        QUICK_V1,
        SMOKE_V1,
        TASKS_V1,
        MITIGATIONS_V1,
        MITIGATIONS_V2,
        GRID_V1,
        REPLAY_V1,
        PROCGEN_V1,
        COINRUN_LAPTOP_V1,
        COINRUN_LAPTOP_V2,
    )
}
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
