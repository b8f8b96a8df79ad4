"""Chooses hyperparameters with Optuna. A trial is a set of cells, which Ray runs like those of a suite.

The test shifts play no part in it. A tuning cell is evaluated on levels of the training distribution and of the task's
validation shift. An evaluation can draw none of these levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from goalposts.benchmark.canonical import content_sha256
from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.suite import FACTORS, MitigationPlan, Suite
from goalposts.benchmark.measurement.plan import EVALUATION_VERSION, Selects
from goalposts.benchmark.measurement.scores import passes_gate
from goalposts.benchmark.plugins.registry import LoadedPlugin, load_plugin
from goalposts.benchmark.randomness import stream_seed
from goalposts.benchmark.tasks.registry import task_class
from goalposts.benchmark.tasks.vocabulary import IN_DISTRIBUTION, VALIDATION_SHIFT
from goalposts.benchmark.training.config import TRAINER_VERSION

FACTOR = "factor_"
"""Prefix of the names of PPO's parameters, so that they cannot collide with a mitigation's own."""
OUTCOME, PRUNED, FAILED = "outcome", "PRUNED", "FAIL"
"""A trial's attribute for its outcome: its value, or the name of one of Optuna's states."""
TOGETHER = 4
"""Trials that start at once. It is part of the study, so that the study does not depend on the machine."""

RunCells = Callable[[Sequence[Cell]], Mapping[str, Record]]
"""Runs cells and returns their records by cell id."""


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """The settings of a study: what is tuned, and on which cells."""

    suite: Suite
    plugin: LoadedPlugin
    selection: Selects
    tasks: tuple[str, ...]
    alphas: tuple[float, ...]
    seeds: int
    device: Literal["cpu", "cuda"]
    salt_commitment: str

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """Search range of each parameter."""
        space: dict[str, BaseDistribution] = {
            f"{FACTOR}{name}": FloatDistribution(low, high, log=True) for name, (low, high) in FACTORS.items()
        }
        for name, where in self.plugin.cls.search_space.items():
            space[name] = _distribution(self.plugin.cls.defaults()[name], **where)
        return space

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters of the first trial: those of the suite, or else the mitigation's defaults."""
        factors = {f"{FACTOR}{name}": self.own.factors.get(name, 1.0) for name in FACTORS}
        defaults = {**self.plugin.cls.defaults(), **self.own.hyperparameters, **factors}
        return {name: defaults[name] for name in self.space}

    @property
    def own(self) -> MitigationPlan:
        """The suite's plan for the mitigation. A trial keeps its settings that are not searched."""
        plans = (one for one in self.suite.mitigations if one.name == self.plugin.reference)
        return next(plans, MitigationPlan(name=self.plugin.reference))

    @property
    def study(self) -> str:
        """The study's id: a readable name that ends in a hash of everything that determines its course."""
        identity = {
            "cells": [[cell.cell_id for cell in step] for step in self.steps(self.defaults)],
            "space": {name: optuna.distributions.distribution_to_json(one) for name, one in self.space.items()},
            "together": TOGETHER,
            "versions": [TRAINER_VERSION, EVALUATION_VERSION],
        }
        return f"{self.suite.id}/{self.plugin.name}/{self.selection}/{content_sha256(identity)[:10]}"

    def mitigation(self, parameters: Mapping[str, Any]) -> MitigationPlan:
        """Return ``parameters`` as a suite's plan: the mitigation's hyperparameters, and PPO's factors."""
        factors = {name.removeprefix(FACTOR): value for name, value in parameters.items() if name.startswith(FACTOR)}
        own = {name: value for name, value in parameters.items() if not name.startswith(FACTOR)}
        return MitigationPlan(
            name=self.plugin.reference,
            hyperparameters={**self.own.hyperparameters, **own},
            factors=factors,
            selection=self.selection,
        )

    def parameters(self, mitigation: MitigationPlan) -> dict[str, Any]:
        """Return the parameters that :meth:`mitigation` turned into a plan."""
        factors = {f"{FACTOR}{name}": value for name, value in mitigation.factors.items()}
        return {name: value for name, value in {**factors, **mitigation.hyperparameters}.items() if name in self.space}

    def steps(self, parameters: Mapping[str, Any]) -> list[list[Cell]]:
        """Return the cells of a trial, grouped in steps: one for each seed and task.

        A trial may be pruned after each step. The cells belong to a suite with another name, so that no tuning seed is
        one of the suite's seeds.
        """
        tuning = self.suite.model_copy(
            update={
                "name": f"{self.suite.name}-tuning",
                "mitigations": (self.mitigation(parameters),),
                "milestones": 0,
            }
        )
        chosen = Selection(self.tasks, (), self.alphas, self.seeds)
        cells = cells_of(
            tuning, chosen, device=self.device, salt_commitment=self.salt_commitment, selects=self.selection
        )
        steps: dict[tuple[int, str], list[Cell]] = {}
        for cell in sorted(cells, key=lambda cell: (cell.key.seed, cell.training.env_steps, cell.key.task)):
            step = steps.setdefault((cell.key.seed, cell.key.task), [])
            step.append(cell)
        return list(steps.values())


def _distribution(
    default: Any, low: float = 0, high: float = 0, log: bool = False, choices: Sequence[Any] | None = None
) -> BaseDistribution:
    if choices is not None:
        return CategoricalDistribution(choices)
    if isinstance(low, int) and isinstance(high, int) and isinstance(default, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def plan_tuning(
    suite: Suite,
    mitigation: str,
    *,
    selection: Selects,
    tasks: Sequence[str],
    alphas: Sequence[float],
    seeds: int,
    device: Literal["cpu", "cuda"],
    salt_commitment: str,
) -> StudyPlan:
    """Return the plan of a study.

    Raises:
        RequestError: there is no such mitigation or task, a task has no validation shift, or the suite gives the
            mitigation a hyperparameter outside its search range.
    """
    chosen = tuple(tasks) or tuple(plan.task for plan in suite.tasks)
    plan = StudyPlan(suite, load_plugin(mitigation), selection, chosen, tuple(alphas), seeds, device, salt_commitment)
    plan.steps(plan.defaults)
    for name, where in plan.space.items():
        value = plan.defaults[name]
        if not _lies_in(where, value):
            raise RequestError(
                f"Suite {suite.id!r} gives {plan.plugin.name!r} {name}={value!r}, outside of its search space; widen "
                "the 'search_space', so that the first trial can have the suite's settings."
            )
    lacking = [task for task in chosen if task_class(task).validation is None]
    if selection == VALIDATION_SHIFT and lacking:
        raise RequestError(
            f"Without a validation shift: {', '.join(lacking)}. Leave them out with --task, or choose "
            "in distribution with --selection in_distribution."
        )
    return plan


def _lies_in(where: BaseDistribution, value: Any) -> bool:
    if isinstance(where, CategoricalDistribution):
        return value in where.choices
    assert isinstance(where, IntDistribution | FloatDistribution)
    return bool(where.low <= value <= where.high)


def objective(records: Sequence[Record], selection: Selects) -> float:
    """Return the value of a trial so far, over the cells of its steps.

    On the validation shift it is the mean goal-fidelity score. As on the leaderboard, an agent that fails the gate in
    distribution scores at most 0. In distribution it is 100 times the mean ratio of the agent's aligned rate to the
    aligned reference's.
    """
    return sum(_worth(record, selection) for record in records) / len(records)


def _worth(record: Record, selection: Selects) -> float:
    seen = record.splits[IN_DISTRIBUTION]
    if selection == IN_DISTRIBUTION:
        return 100 * seen.aligned / seen.episodes / seen.aligned_reference
    if record.score is None:
        raise RequestError(
            f"The references of task {record.cell.task!r} do not differ enough on its validation shift; leave it out."
        )
    return record.score if passes_gate(seen) else min(record.score, 0.0)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The result of a study."""

    study: str
    trials: int
    """Trials that count: complete and pruned ones."""
    pruned: int
    value: float
    """Value of the best trial."""
    default_value: float | None
    """Value of the first trial, which has the defaults. None if it was pruned or failed."""
    plan: MitigationPlan
    """The choice, in the form for a suite."""


def open_study(plan: StudyPlan, folder: Path) -> optuna.Study:
    """Return the study in ``folder``, or a new one. An interrupted round is settled first.

    If its outcomes were known, they are reported to Optuna. Otherwise its trials are marked as failed and asked for
    again, with the same parameters. Their cells have kept their results.

    Raises:
        RequestError: the study cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder.absolute() / "study.db"
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=plan.study,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=TOGETHER, n_warmup_steps=0),
            load_if_exists=True,
        )
        begun = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    except (SQLAlchemyError, StorageInternalError) as error:
        raise RequestError(
            f"The study {str(path)!r} cannot be read ({type(error).__name__}); move it away and run the same command "
            "again: the cells of its trials are kept."
        ) from error
    known = all(OUTCOME in trial.user_attrs for trial in begun)
    for trial in begun:
        _tell(study, trial.number, trial.user_attrs[OUTCOME] if known else FAILED)
    return study


def _tell(study: optuna.Study, number: int, outcome: float | str) -> None:
    """Report a trial's outcome to Optuna: its value, ``PRUNED`` or ``FAILED``."""
    if isinstance(outcome, str):
        study.tell(number, state=TrialState[outcome])
    else:
        study.tell(number, outcome)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count towards the requested number: complete and pruned ones."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def tune(
    plan: StudyPlan, study: optuna.Study, trials: int, run: RunCells, notify: Callable[[str], None] = lambda _line: None
) -> Tuned:
    """Continue ``study`` until it has ``trials`` trials that count, and return its result.

    Raises:
        RequestError: no trial was completed.
    """
    while (done := len(counted(study))) < trials:
        _round(plan, study, min(TOGETHER, trials - done), run, notify)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise RequestError(f"All {trials} trials failed; see the messages above, or ask for more with --trials.")
    best = study.best_trial
    return Tuned(
        study=plan.study,
        trials=len(counted(study)),
        pruned=len(counted(study)) - len(complete),
        value=study.best_value,
        default_value=next((trial.value for trial in complete if trial.params == plan.defaults), None),
        plan=plan.mitigation(best.params).model_copy(update={"name": plan.plugin.name, "study": plan.study}),
    )


def _round(plan: StudyPlan, study: optuna.Study, count: int, run: RunCells, notify: Callable[[str], None]) -> None:
    """Start ``count`` trials together and run them step by step. Pruned trials count as well."""
    done = len(counted(study))
    # A new seed for each round, so that an interruption does not change what later rounds draw.
    study.sampler = optuna.samplers.TPESampler(
        seed=stream_seed(plan.study, done) % 2**32, n_startup_trials=2 * TOGETHER
    )
    if done == 0 and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(plan.defaults)
    asked = [study.ask(plan.space) for _ in range(count)]
    steps = {trial.number: plan.steps(trial.params) for trial in asked}
    found: dict[int, list[Record]] = {trial.number: [] for trial in asked}
    pruned: set[int] = set()
    for step in range(len(steps[asked[0].number])):
        going = [trial for trial in asked if trial.number not in pruned]
        records = run([cell for trial in going for cell in steps[trial.number][step]])
        for trial in going:
            new = [records[cell.cell_id] for cell in steps[trial.number][step]]
            failed = [record for record in new if record.status != "done"]
            if failed:
                pruned.add(trial.number)
                notify(f"Trial {trial.number} failed and counts as pruned: {failed[0].error}")
                continue
            found[trial.number] += new
            trial.report(objective(found[trial.number], plan.selection), step)
            if step + 1 < len(steps[trial.number]) and trial.should_prune():
                pruned.add(trial.number)
                notify(f"Trial {trial.number} is pruned after step {step + 1} of {len(steps[trial.number])}.")
    outcomes = {
        trial.number: PRUNED if trial.number in pruned else objective(found[trial.number], plan.selection)
        for trial in asked
    }
    # Record all outcomes before reporting the first one: a round with only some outcomes reported draws differently.
    for trial in asked:
        trial.set_user_attr(OUTCOME, outcomes[trial.number])
    for number, outcome in outcomes.items():
        _tell(study, number, outcome)
