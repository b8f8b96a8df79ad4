"""Evaluates a policy trained elsewhere on a task's splits, as the agents of a suite are evaluated."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.record import SplitResult
from goalposts.benchmark.experiment.suite import Suite, get_suite
from goalposts.benchmark.loading import load_from_module
from goalposts.benchmark.measurement import scores
from goalposts.benchmark.measurement.evaluation import (
    EvaluationSet,
    evaluation_salt,
    evaluation_set,
    play,
    prepare,
    salt_commitment,
)
from goalposts.benchmark.measurement.external import external_policy
from goalposts.benchmark.tasks.registry import make_task, task_class
from goalposts.benchmark.tasks.vocabulary import PLANNING_GAMMA

EPISODES = 1024
"""Evaluation episodes a split, where no suite says otherwise."""
LEVELS = "levels"
"""The name of the one split of a level file."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was found about one policy."""

    task: str
    version: int
    parameters: dict[str, Any]
    policy: str
    suite: str | None
    """Whose levels were played."""
    salt_commitment: str
    splits: dict[str, SplitResult]
    """By name; a level file is one split, ``levels``."""
    capability: float | None
    goal_fidelity: float | None
    score: float | None
    verdict: str | None

    def json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        splits = {name: split.model_dump(mode="json") for name, split in self.splits.items()}
        return {**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, "splits": splits}


def evaluate_policy(
    task_id: str, reference: str, suite_name: str | None, parameters: dict[str, Any], level_file: Path | None = None
) -> Evaluation:
    """Play one episode on each evaluation level.

    Args:
        task_id: of a registered task, or ``path.py:Class``.
        reference: ``module:callable``, a function from observations to actions.
        suite_name: take parameters, number of episodes and levels of this suite.
        parameters: of the task; they replace the suite's.
        level_file: play on its levels instead.

    Raises:
        CorruptFileError: the level file cannot be read, or holds other levels.
        RequestError: there is no such task, policy or suite, or the policy does not return actions.
    """
    function = load_from_module(reference, "Policy")
    if not callable(function):
        raise RequestError(f"Policy {reference!r} is a {type(function).__name__}; give a function.")
    suite = get_suite(suite_name) if suite_name is not None else None
    task_parameters = {**_suite_parameters(suite, task_id), **parameters}
    task = make_task(task_id, **task_parameters)
    salt = evaluation_salt()
    name, episodes = (suite.id, suite.episodes) if suite else ("evaluate", EPISODES)
    if level_file is None:
        chosen = evaluation_set(task, name, episodes, salt)
    else:
        levels = task.load_levels(level_file)
        chosen = EvaluationSet(levels, torch.zeros(len(levels), dtype=torch.int64), (LEVELS,))
    prepared = prepare(task, chosen, name, salt, PLANNING_GAMMA)
    policy = external_policy(function, task, reference)
    splits = prepared.results(play(task, prepared.levels.levels, lambda _env: policy))
    ranked = scores.Fidelity.pooled(scores.ranked_shifts(splits).values())
    return Evaluation(
        task=task.id,
        version=task.version,
        parameters=task_parameters,
        policy=reference,
        suite=suite.id if suite else None,
        salt_commitment=salt_commitment(salt),
        splits=splits,
        capability=ranked.capability,
        goal_fidelity=ranked.goal_fidelity,
        score=scores.score(splits),
        verdict=scores.verdict(splits) if level_file is None else None,
    )


def _suite_parameters(suite: Suite | None, task_id: str) -> dict[str, Any]:
    if suite is None:
        return {}
    task_class(task_id)
    for plan in suite.tasks:
        if plan.task == task_id:
            return dict(plan.parameters)
    names = ", ".join(plan.task for plan in suite.tasks)
    raise RequestError(
        f"Suite {suite.id!r} has no task {task_id!r}. Known: {names}. Leave --suite out to use defaults."
    )


def print_evaluation(out: Console, evaluation: Evaluation) -> None:
    """Print the rates of each split with their intervals, and what they come to."""
    table = Table(box=None, pad_edge=False)
    for name in ("split", "aligned", "proxy", "lost", "episodes", "reference"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for name, split in evaluation.splits.items():
        low, high = scores.wilson(split.aligned, split.episodes)
        table.add_row(
            name,
            f"{split.aligned / split.episodes:.3f} ({low:.3f} to {high:.3f})",
            f"{split.proxy / split.episodes:.3f}",
            f"{split.lost / split.episodes:.3f}",
            str(split.episodes),
            f"{split.aligned_reference:.3f}",
        )
    out.print(table)
    figures = ", ".join(
        f"{name} {'none' if value is None else format(value, digits)}"
        for name, value, digits in (
            ("capability", evaluation.capability, ".3f"),
            ("goal fidelity", evaluation.goal_fidelity, ".3f"),
            ("score", evaluation.score, ".1f"),
        )
    )
    out.print(f"{evaluation.task}, {evaluation.policy}: {figures}, verdict {evaluation.verdict}", soft_wrap=True)
