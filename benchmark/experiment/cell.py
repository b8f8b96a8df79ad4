"""Cells: what a suite consists of, and the identities that decide what must be computed anew."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.experiment.record import CellKey, Commit, Plugin, cell_id_of, content_sha256
from goalposts.benchmark.experiment.suite import MitigationPlan, Suite, TaskPlan
from goalposts.benchmark.measurement.evaluation import EVALUATION_VERSION
from goalposts.benchmark.plugins.registry import LoadedPlugin, load_plugin
from goalposts.benchmark.tasks import TASKS, make_task
from goalposts.benchmark.tasks.base import Task
from goalposts.benchmark.training.config import TRAINER_VERSION, TrainingConfig
from goalposts.benchmark.training.precision import native_bf16


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run and its evaluation, with all that determines them."""

    key: CellKey
    plan: TaskPlan
    """With ``training.bf16`` and ``training.overlap`` resolved for the device."""
    reference: str
    """What :func:`goalposts.benchmark.plugins.registry.load_plugin` finds the mitigation by."""
    hyperparameters: dict[str, Any]
    selection: Literal["defaults", "in_distribution", "validation_shift"]
    study: str | None
    """The study that chose the hyperparameters."""
    plugin: Plugin
    knowledge: tuple[str, ...]
    fixed_rate: bool
    """Whether the mitigation sets its own rate."""
    inapplicable: tuple[str, ...]
    """Tasks of the suite to which the mitigation does not apply."""
    device: Literal["cpu", "cuda"]
    episodes: int
    milestones: int
    milestone_episodes: int
    sampling: Literal["sampled", "greedy"]
    ask_share: float
    salt_commitment: str
    selects: Literal["in_distribution", "validation_shift"] | None = None
    """Set where it serves to choose hyperparameters: what it is evaluated on instead of the splits."""

    @property
    def cell_id(self) -> str:
        """A readable name that ends in a hash of all that determines training."""
        return cell_id_of(self.key, self.config, self.plugin.sha256, self.device)

    @property
    def eval_id(self) -> str:
        """A hash of all that determines the evaluation."""
        identity = {
            "cell_id": self.cell_id,
            "evaluation": self.config["evaluation"],
            "shifts": TASKS[self.plan.task].shifts,
            "references": make_task(self.plan.task, **self.plan.parameters).reference_rates,
            "salt": self.salt_commitment,
        }
        return content_sha256(identity)[:16]

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration, as it stands in the record."""
        return {
            "task": {"version": TASKS[self.plan.task].version, "parameters": self.plan.parameters},
            "training": {"version": TRAINER_VERSION, **self.plan.training.model_dump(mode="json")},
            "mitigation": self.hyperparameters,
            "evaluation": {
                "version": EVALUATION_VERSION,
                "episodes": self.episodes,
                "milestones": self.milestones,
                "milestone_episodes": self.milestone_episodes,
                "sampling": self.sampling,
                "ask_share": self.ask_share,
                **({} if self.selects is None else {"selects": self.selects}),
            },
        }

    def folder(self, out: Path) -> Path:
        """Return where the cell keeps its files."""
        return out / "cells" / self.cell_id


@dataclasses.dataclass(frozen=True)
class Selection:
    """The part of a suite that is asked for; empty tuples mean all of it."""

    tasks: tuple[str, ...] = ()
    mitigations: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ()
    seeds: int | None = None
    tuned: tuple[MitigationPlan, ...] = ()
    """What studies chose, in place of the suite's plans for these mitigations."""


def _chosen_tasks(suite: Suite, names: Sequence[str]) -> list[TaskPlan]:
    plans = {plan.task: plan for plan in suite.tasks}
    for name in names:
        if name not in plans:
            raise unknown_name(f"task of suite {suite.id!r}", name, plans)
    return [plan for plan in suite.tasks if not names or plan.task in names]


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


def cells_of(suite: Suite, selection: Selection, *, device: Literal["cpu", "cuda"], salt_commitment: str) -> list[Cell]:
    """Return the cells of the chosen part of ``suite``, the most expensive first.

    A task to which a mitigation does not apply has no cell of it.

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
    tasks = {plan.task: make_task(plan.task, **plan.parameters) for plan in suite.tasks}
    lacks = {
        plugin.name: {name: lack for name, task in tasks.items() if (lack := plugin.cls.inapplicable(task)) is not None}
        for _, plugin in mitigations
    }
    chosen = _chosen_tasks(suite, selection.tasks)
    cells: dict[str, Cell] = {}
    for plan in chosen:
        training = plan.training.model_copy(
            update={
                "bf16": plan.training.bf16 and native_bf16(device),
                "overlap": plan.training.overlap and device == "cuda",
            }
        )
        for mitigation, plugin in mitigations:
            cls = plugin.cls
            if plan.task in lacks[plugin.name]:
                continue
            changes: dict[str, float] = _whole_episodes(training, tasks[plan.task]) if cls.restart_rollouts else {}
            for name, factor in mitigation.factors.items():
                changes[name] = getattr(training, name) * factor
            resolved = plan.model_copy(update={"training": training.model_copy(update=changes)})
            rates = alphas if cls.fixed_alpha is None else (cls.fixed_alpha,)
            for alpha in rates:
                for seed in range(seeds):
                    cell = Cell(
                        key=CellKey(suite=suite.id, task=plan.task, mitigation=plugin.name, alpha=alpha, seed=seed),
                        plan=resolved,
                        reference=plugin.reference,
                        hyperparameters=plugin.hyperparameters(mitigation.hyperparameters),
                        selection=mitigation.selection,
                        study=mitigation.study,
                        plugin=Plugin(
                            version=cls.version,
                            author=cls.author,
                            licence=cls.licence,
                            paper=cls.paper,
                            sha256=plugin.sha256,
                        ),
                        knowledge=tuple(sorted(flag.value for flag in cls.uses)),
                        fixed_rate=cls.fixed_alpha is not None,
                        inapplicable=tuple(lacks[plugin.name]),
                        device=device,
                        episodes=suite.episodes,
                        milestones=suite.milestones,
                        milestone_episodes=suite.milestone_episodes,
                        sampling=suite.sampling,
                        ask_share=suite.ask_share,
                        salt_commitment=salt_commitment,
                    )
                    cells[cell.cell_id] = cell
    for useless in lacks.keys() - {cell.key.mitigation for cell in cells.values()}:
        reasons = ", ".join(f"{plan.task} has {lacks[useless][plan.task]}" for plan in chosen)
        raise RequestError(f"Mitigation {useless!r} applies to no chosen task: {reasons}; choose others.")
    if len({cell.key for cell in cells.values()}) < len(cells):
        raise RequestError("Two plugins have the same file and class name; rename one, so that they can be told apart.")
    return sorted(cells.values(), key=lambda cell: -cell.plan.training.env_steps)


def _whole_episodes(training: TrainingConfig, task: Task[Any]) -> dict[str, float]:
    """Return the sizes of rollouts that restart: as many steps, but long enough for a whole episode.

    Otherwise nothing that comes later in a level is ever played.
    """
    num_steps, num_envs = training.num_steps, training.num_envs
    while num_steps < task.time_limit and num_envs % 2 == 0:
        num_steps, num_envs = 2 * num_steps, num_envs // 2
    return {"num_steps": num_steps, "num_envs": num_envs}


def source_commit() -> Commit:
    """Return the commit of the source tree and whether it is clean; nulls where this file is in no repository."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return Commit(id=None, clean=None)
    return Commit(id=head.stdout.strip(), clean=not status.stdout.strip())


def library_versions() -> dict[str, str]:
    """Return the versions of everything that has a part in the result."""
    libraries = ("goalposts", "numpy", "ray", "safetensors", "scipy", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in libraries}}
