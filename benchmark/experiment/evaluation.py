"""Evaluates one policy like the agents of a suite. It is an agent of ours, or any function of observations."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from goalposts.benchmark.agent import Agent
from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.agents import TrainedAgent
from goalposts.benchmark.experiment.suite import Suite, get_suite
from goalposts.benchmark.measurement import scores
from goalposts.benchmark.measurement.counts import SplitResult
from goalposts.benchmark.measurement.episodes import play
from goalposts.benchmark.measurement.evaluation import (
    EvaluationSet,
    Prepared,
    action_stream,
    play_agent,
    prepare,
    prepared_on,
)
from goalposts.benchmark.measurement.external import ExternalPolicy, external_policy
from goalposts.benchmark.measurement.plan import EvaluationPlan, evaluation_salt, salt_commitment
from goalposts.benchmark.tasks.registry import load_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import PLANNING_GAMMA

EPISODES = 1024
"""Evaluation episodes on each split, unless a suite sets another number."""
LEVELS = "levels"
"""The name of the one split of a level file."""
OWN = "evaluate"
"""Stands for the suite in the key of the levels if no suite is named."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The results of one policy."""

    task: str
    version: int
    parameters: dict[str, Any]
    policy: str
    suite: str | None
    """The suite whose levels were played."""
    salt_commitment: str
    splits: dict[str, SplitResult]
    """Results by split. A level file is one split, ``levels``."""
    capability: float | None
    goal_fidelity: float | None
    score: float | None
    verdict: str | None
    equals_record: bool | None = None
    """Whether the counts equal those of the agent's record. None if they are of other levels."""

    def json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        splits = {name: split.model_dump(mode="json") for name, split in self.splits.items()}
        return {**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, "splits": splits}


def evaluate(
    policy: Agent | ExternalPolicy,
    task: str | None = None,
    *,
    suite: str | None = None,
    parameters: dict[str, Any] | None = None,
    levels: str | os.PathLike[str] | None = None,
    episodes: int | None = None,
    name: str | None = None,
) -> Evaluation:
    """Play one episode on each evaluation level.

    Args:
        policy: an agent, or a function from an array of observations to actions.
        task: an id or ``path.py:Class``. By default it is the agent's own.
        suite: use parameters, number of episodes and levels of this suite. By default an agent with a record is
            evaluated as in its record.
        parameters: parameters of the task. They replace the suite's.
        levels: play on the levels of this file instead.
        episodes: episodes on each split, at least 1.
        name: name of the policy.

    Raises:
        CorruptFileError: the level file cannot be read, or holds other levels.
        RequestError: there is no such task or suite, or the policy does not return actions.
    """
    name = name or _name_of(policy)
    if isinstance(policy, TrainedAgent) and not (suite or levels or episodes or parameters):
        return _as_recorded(policy, task, name)
    if task is None:
        if not isinstance(policy, Agent):
            raise RequestError("The task is missing, and a function has none of its own; give its id.")
        task, given = policy.task.id, policy.task.parameters.model_dump(exclude_unset=True)
    else:
        given = {}
    chosen_suite = get_suite(suite) if suite is not None else None
    built = load_task(task).cls(**{**given, **_suite_parameters(chosen_suite, task), **(parameters or {})})
    if isinstance(policy, Agent) and built.observation_shape != policy.task.observation_shape:
        raise RequestError(
            f"The agent sees observations of shape {policy.task.observation_shape}, and task {task!r} with these "
            f"parameters has {built.observation_shape}; give the agent's own parameters."
        )
    salt = evaluation_salt()
    default = chosen_suite.episodes if chosen_suite is not None else EPISODES
    plan = EvaluationPlan.of(
        built,
        suite=chosen_suite.id if chosen_suite is not None else OWN,
        episodes=default if episodes is None else episodes,
        gamma=PLANNING_GAMMA,
        salt_commitment=salt_commitment(salt),
    )
    if levels is None:
        prepared = prepare(built, plan, salt)
    else:
        read = built.load_levels(Path(levels))
        split = torch.zeros(len(read), dtype=torch.int64)
        prepared = prepared_on(built, EvaluationSet(read, split, (LEVELS,)), plan.suite, salt, plan.gamma)
    splits = _played(policy, built, plan, prepared, salt, name)
    return _evaluation(built, plan, splits, name)


def _as_recorded(agent: TrainedAgent, task: str | None, name: str) -> Evaluation:
    """Evaluate an agent as its record was evaluated, and compare the counts."""
    record, plan, salt = agent.record, agent.record.config.evaluation, evaluation_salt()
    if task is not None and load_task(task).cls.id != record.cell.task:
        raise RequestError(f"The agent plays {record.cell.task!r}, not {task!r}; give that task.")
    same = plan.salt_commitment == salt_commitment(salt)
    plan = plan.model_copy(update={"salt_commitment": salt_commitment(salt)})
    prepared = prepare(agent.task, plan, salt)
    random = action_stream(plan, record.cell.seed, salt, "evaluation")
    splits = prepared.results(play_agent(agent, plan, prepared.levels, random))
    found = _evaluation(agent.task, plan, splits, name)
    return dataclasses.replace(found, equals_record=splits == record.splits if same else None)


def _played(
    policy: Agent | ExternalPolicy, task: Task[Any], plan: EvaluationPlan, prepared: Prepared, salt: str, name: str
) -> dict[str, SplitResult]:
    if isinstance(policy, Agent):
        random = action_stream(plan, 0, salt, "evaluation")
        return prepared.results(play_agent(policy, plan, prepared.levels, random, task=task))
    act = external_policy(policy, task, name)
    return prepared.results(play(task, prepared.levels.levels, lambda _env: act))


def _evaluation(task: Task[Any], plan: EvaluationPlan, splits: dict[str, SplitResult], name: str) -> Evaluation:
    return Evaluation(
        task=task.id,
        version=task.version,
        parameters=task.parameters.model_dump(mode="json", exclude_unset=True),
        policy=name,
        suite=None if plan.suite == OWN else plan.suite,
        salt_commitment=plan.salt_commitment,
        splits=splits,
        **scores.summary(splits),
    )


def _name_of(policy: Agent | ExternalPolicy) -> str:
    if isinstance(policy, TrainedAgent):
        return policy.name
    return getattr(policy, "__name__", type(policy).__name__)


def _suite_parameters(suite: Suite | None, task: str) -> dict[str, Any]:
    if suite is None:
        return {}
    for plan in suite.tasks:
        if plan.task == task:
            return dict(plan.parameters)
    names = ", ".join(plan.task for plan in suite.tasks)
    raise RequestError(f"Suite {suite.id!r} has no task {task!r}. Known: {names}. Leave --suite out to use defaults.")
