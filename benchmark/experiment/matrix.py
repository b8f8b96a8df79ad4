"""The matrix of a suite: the cells of its selected part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.record import CellKey, Plugin
from goalposts.benchmark.experiment.suite import MitigationPlan, Suite, TaskPlan, small_plan
from goalposts.benchmark.loading import TASKS, is_file, registered
from goalposts.benchmark.measurement.plan import EvaluationPlan, Selects
from goalposts.benchmark.plugins.registry import LoadedPlugin, load_plugin
from goalposts.benchmark.tasks.registry import LoadedTask, load_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.training.config import TrainingConfig
from goalposts.benchmark.training.precision import native_bf16


@dataclasses.dataclass(frozen=True)
class Selection:
    """The requested part of a suite. Empty tuples mean all of it."""

    tasks: tuple[str, ...] = ()
    mitigations: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ()
    seeds: int | None = None
    tuned: tuple[MitigationPlan, ...] = ()
    """Choices of studies, which replace the suite's plans for these mitigations."""


@dataclasses.dataclass(frozen=True)
class _PlannedTask:
    """A task as the suite builds and trains it."""

    plan: TaskPlan
    loaded: LoadedTask
    task: Task[Any]


def _planned(plan: TaskPlan) -> _PlannedTask:
    loaded = load_task(plan.task)
    return _PlannedTask(plan, loaded, loaded.cls(**plan.parameters))


def _chosen_tasks(suite: Suite, references: Sequence[str]) -> tuple[list[_PlannedTask], list[_PlannedTask]]:
    """Return the suite's tasks and the chosen ones. Tasks outside the suite are trained by their own small plans."""
    own = [_planned(plan) for plan in suite.tasks]
    by_name = {planned.plan.task: planned for planned in own}
    for reference in dict.fromkeys(references):
        if reference in by_name:
            continue
        if not is_file(reference) and reference not in registered(TASKS):
            raise unknown_name(f"task of suite {suite.id!r}", reference, {*by_name, *registered(TASKS)})
        by_name[reference] = _planned(small_plan(reference))
    chosen = [by_name[reference] for reference in by_name if not references or reference in references]
    ids = [planned.task.id for planned in chosen]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise RequestError(f"Two of the tasks have the id {twice[0]!r}; give one of them another id.")
    return own, chosen


def _chosen_mitigations(
    suite: Suite, names: Sequence[str], tuned: Sequence[MitigationPlan]
) -> list[tuple[MitigationPlan, LoadedPlugin]]:
    plans = {plan.name: plan for plan in suite.mitigations}
    chosen = [plans.get(name, MitigationPlan(name=name)) for name in dict.fromkeys(names)] or list(suite.mitigations)
    loaded = [(plan, load_plugin(plan.name)) for plan in chosen]
    own = {plan.name: plan for plan in tuned}
    for name in own.keys() - {plugin.name for _, plugin in loaded}:
        raise RequestError(f"Tuned is {name!r}, which is not among the mitigations; add it with --mitigation.")
    return [(own.get(plugin.name, plan), plugin) for plan, plugin in loaded]


def cells_of(
    suite: Suite,
    selection: Selection,
    *,
    device: Literal["cpu", "cuda"],
    salt_commitment: str,
    selects: Selects | None = None,
) -> list[Cell]:
    """Return the cells of the chosen part of ``suite``, the most expensive first.

    A task has no cell of a mitigation that does not apply to it.

    Args:
        suite: the matrix.
        selection: the part of it.
        device: where cells are trained.
        salt_commitment: identifies the salt of the evaluation levels.
        selects: for tuning: the levels to evaluate on, in place of the splits.

    Raises:
        RequestError: an unknown task or mitigation, seeds below 1, a rate outside [0, 1], or a mitigation that applies
            to no chosen task.
    """
    seeds = suite.seeds if selection.seeds is None else selection.seeds
    if seeds < 1:
        raise RequestError(f"The number of seeds is {seeds!r}; give at least 1.")
    alphas = selection.alphas or suite.alphas
    for alpha in alphas:
        if not 0.0 <= alpha <= 1.0:
            raise RequestError(f"alpha is {alpha!r}; it is a probability, so give a number in [0, 1].")
    mitigations = _chosen_mitigations(suite, selection.mitigations, selection.tuned)
    own, chosen = _chosen_tasks(suite, selection.tasks)
    lacks = {
        plugin.name: {
            planned.task.id: lack
            for planned in {one.task.id: one for one in (*own, *chosen)}.values()
            if (lack := plugin.cls.inapplicable(planned.task)) is not None
        }
        for _, plugin in mitigations
    }
    cells: dict[str, Cell] = {}
    for planned in chosen:
        for mitigation, plugin in mitigations:
            if planned.task.id in lacks[plugin.name]:
                continue
            fixed = plugin.cls.fixed_alpha
            for alpha in alphas if fixed is None else (fixed,):
                for seed in range(seeds):
                    cell = _cell(suite, planned, mitigation, plugin, alpha, seed, device, salt_commitment, selects)
                    cell = dataclasses.replace(cell, inapplicable=tuple(lacks[plugin.name]))
                    cells[cell.cell_id] = cell
    for useless in lacks.keys() - {cell.key.mitigation for cell in cells.values()}:
        reasons = ", ".join(f"{one.task.id} has {lacks[useless][one.task.id]}" for one in chosen)
        raise RequestError(f"Mitigation {useless!r} applies to no chosen task: {reasons}; choose others.")
    if len({cell.key for cell in cells.values()}) < len(cells):
        raise RequestError("Two plugins have the same file and class name; rename one of them.")
    return sorted(cells.values(), key=lambda cell: -cell.training.env_steps)


def _cell(
    suite: Suite,
    planned: _PlannedTask,
    mitigation: MitigationPlan,
    plugin: LoadedPlugin,
    alpha: float,
    seed: int,
    device: Literal["cpu", "cuda"],
    salt_commitment: str,
    selects: Selects | None,
) -> Cell:
    cls, task = plugin.cls, planned.task
    training = _resolved(planned.plan.training, mitigation, plugin, task, device)
    return Cell(
        key=CellKey(suite=suite.id, task=task.id, mitigation=plugin.name, alpha=alpha, seed=seed),
        task=planned.loaded.reference,
        task_sha256=planned.loaded.sha256,
        training=training,
        reference=plugin.reference,
        hyperparameters=plugin.hyperparameters(mitigation.hyperparameters),
        selection=mitigation.selection,
        study=mitigation.study,
        plugin=Plugin(
            version=cls.version, author=cls.author, licence=cls.licence, paper=cls.paper, sha256=plugin.sha256
        ),
        knowledge=tuple(sorted(flag.value for flag in cls.uses)),
        fixed_rate=cls.fixed_alpha is not None,
        inapplicable=(),
        device=device,
        evaluation=EvaluationPlan.of(
            task,
            suite=suite.id,
            episodes=suite.episodes,
            milestones=suite.milestones,
            milestone_episodes=suite.milestone_episodes,
            gamma=training.gamma,
            sampling=suite.sampling,
            ask_share=suite.ask_share,
            salt_commitment=salt_commitment,
            selects=selects,
        ),
    )


def _resolved(
    training: TrainingConfig, mitigation: MitigationPlan, plugin: LoadedPlugin, task: Task[Any], device: str
) -> TrainingConfig:
    """Return the settings for a device and a mitigation, including the changes from tuning."""
    changes: dict[str, Any] = {
        "bf16": training.bf16 and native_bf16(device),
        "overlap": training.overlap and device == "cuda",
    }
    if plugin.cls.restart_rollouts:
        changes |= _whole_episodes(training, task)
    changes |= {name: getattr(training, name) * factor for name, factor in mitigation.factors.items()}
    return training.model_copy(update=changes)


def _whole_episodes(training: TrainingConfig, task: Task[Any]) -> dict[str, float]:
    """Return sizes for rollouts that restart: the same number of steps in total, but long enough for a whole episode.

    Otherwise the later part of a level is never played.
    """
    num_steps, num_envs = training.num_steps, training.num_envs
    while num_steps < task.time_limit and num_envs % 2 == 0:
        num_steps, num_envs = 2 * num_steps, num_envs // 2
    return {"num_steps": num_steps, "num_envs": num_envs}
