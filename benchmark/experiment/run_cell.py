"""Runs one cell in the calling process: trains or resumes, evaluates, and writes the record."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import platform
import resource
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from goalposts.benchmark.canonical import canonical_json
from goalposts.benchmark.errors import CorruptFileError, GoalpostsError
from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.provenance import Provenance, provenance
from goalposts.benchmark.experiment.record import Record, Timing
from goalposts.benchmark.experiment.run_folder import CellFolder, RunFolder
from goalposts.benchmark.files import open_regular, set_aside, write_atomically
from goalposts.benchmark.measurement import scores
from goalposts.benchmark.measurement.counts import Milestone
from goalposts.benchmark.measurement.episodes import Episodes
from goalposts.benchmark.measurement.evaluation import (
    EvaluationSet,
    Prepared,
    action_stream,
    play_agent,
    prepare,
    split_counts,
)
from goalposts.benchmark.plain import one_line
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.rows import read_rows
from goalposts.benchmark.tasks.registry import load_task, make_task
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.loop import Trainer

EVALUATES = "evaluates"
"""The note of an attempt while it evaluates."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A cell with the driver's settings for the worker."""

    cell: Cell
    out: Path
    salt: str
    driver: Provenance
    """Provenance of the process that starts the run. The worker's must match it."""
    checkpoint_seconds: float
    attempt: str = ""
    """Identifies this attempt. The worker notes it at the start."""

    @property
    def folder(self) -> CellFolder:
        """The cell's folder."""
        return RunFolder(self.out).cell(self.cell.cell_id)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of running a cell."""

    status: Literal["done", "failed", "disk_full"]
    error: str | None = None
    notices: tuple[str, ...] = ()
    """Messages for the user, such as a corrupt file that was set aside."""


def finished_record(cell: Cell, run: RunFolder) -> tuple[Record | None, str | None]:
    """Return the cell's record if it is finished and current, and a notice if a damaged file was set aside.

    A cell whose checkpoint was deleted keeps its record. A cell whose checkpoint is damaged loses it.
    """
    folder = run.cell(cell.cell_id)
    try:
        folder.check_no_link()
    except CorruptFileError as error:
        return None, str(error)
    if not os.path.lexists(folder.record):
        return None, None
    try:
        record = records.read(folder.record)
    except CorruptFileError as error:
        return None, f"{error} It was set aside as {set_aside(folder.record).name}, and the cell runs again."
    if record.status != "done" or record.eval_id != cell.eval_id or record.cell_id != cell.cell_id:
        return None, None
    if os.path.lexists(folder.checkpoint) and checkpoint.file_checksum(folder.checkpoint) != record.checkpoint_sha256:
        set_aside(folder.checkpoint)
        return (
            None,
            f"The checkpoint of {cell.cell_id} is damaged; it was set aside, and the cell runs again.",
        )
    return record, None


def run_cell(job: Job) -> Outcome:
    """Run a cell to its record. Every failure becomes an outcome, so that none hides another."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # If a record says float32, it was float32.
    notices: list[str] = []
    try:
        folder = RunFolder(job.out).new_cell(job.cell.cell_id)
        with folder.held():
            folder.note_attempt(job.attempt)
            try:
                provenance(job.cell.device).check_like(job.driver)
                _run(job, folder, notices)
            except GoalpostsError as error:
                message = one_line(error)
                write_failure(job, message)
                return Outcome("failed", message, tuple(notices))
    except Exception as error:
        if _disk_is_full(error):
            return Outcome("disk_full", str(error), tuple(notices))
        message = f"{type(error).__name__}: {one_line(error)}"
        write_failure(job, message)
        return Outcome("failed", message, tuple(notices))
    return Outcome("done", notices=tuple(notices))


def _disk_is_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in str(error)


def _run(job: Job, folder: CellFolder, notices: list[str]) -> None:
    cell = job.cell
    _reset_peak_memory(cell.device)
    state, moved = checkpoint.load_or_set_aside(folder.checkpoint)
    if moved is not None:
        notices.append(
            f"A checkpoint of {cell.cell_id} is damaged; it was set aside as {moved.name}, the cell restarts."
        )
    trainer = make_trainer(cell)
    begun = state[1] if state else 0
    series = folder.milestones(cell.eval_id)
    with _Rows(folder.metrics, begun) as metrics, _Rows(series, begun) as milestones:
        seconds = metrics.last.get("seconds")
        clock = _Clock(seconds if isinstance(seconds, int | float) else 0.0)
        digest = trainer.train(
            folder.checkpoint,
            resume_from=state,
            checkpoint_seconds=job.checkpoint_seconds,
            log_metrics=lambda row: metrics.append({**row, "seconds": clock.seconds()}),
            milestones=cell.evaluation.milestones,
            at_milestone=lambda: milestones.append(evaluate_milestone(job, trainer).model_dump(mode="json")),
        )
    trained = clock.seconds()
    record = evaluate(job, trainer, digest)
    timing = Timing(
        wall_seconds=clock.seconds(),
        steps_per_second=round(trainer.env_steps / max(trained, 1e-3), 1),
        peak_memory_bytes=_peak_memory(cell.device),
    )
    records.write(folder.record, record.model_copy(update={"timing": timing}))


def make_trainer(cell: Cell) -> Trainer:
    """Return the cell's trainer before its first step.

    Raises:
        GoalpostsError: the files of the task or the mitigation have changed since the run began.
    """
    task, plugin = load_task(cell.task), load_plugin(cell.reference)
    for name, found, wanted in (
        (cell.key.mitigation, plugin.sha256, cell.plugin.sha256),
        (cell.key.task, task.sha256, cell.task_sha256),
    ):
        if found != wanted:
            raise GoalpostsError(
                f"The files of {name!r} on {platform.node()} have the hash {found}, those that the run began with "
                f"{wanted}; give every machine the same files, and run the same command again."
            )
    return Trainer(
        task.cls(**cell.parameters),
        plugin.cls(**cell.hyperparameters),
        alpha=cell.key.alpha,
        config=cell.training,
        stream=(cell.key.suite, cell.key.task, cell.key.seed),
        mitigation_name=cell.key.mitigation,
        device=cell.device,
    )


def evaluate(job: Job, trainer: Trainer, digest: str) -> Record:
    """Evaluate the trained agent and write its episodes. Return its record, including the milestones it passed."""
    job.folder.note_attempt(job.attempt, EVALUATES)
    prepared = _prepared(job)
    episodes = _play(job, trainer, prepared.levels, "evaluation")
    prepared.write_episodes(job.folder.episodes, episodes)
    splits = prepared.results(episodes)
    return _record(
        job,
        status="done",
        env_steps=trainer.env_steps,
        splits=splits,
        series=read_series(job.folder.milestones(job.cell.eval_id)),
        regret=prepared.regret(episodes),
        **scores.summary(splits),
        checkpoint_sha256=digest,
    )


def evaluate_milestone(job: Job, trainer: Trainer) -> Milestone:
    """Evaluate an agent during training on the first levels of each split. This does not affect its training."""
    job.folder.note_attempt(job.attempt, EVALUATES)
    chosen = _prepared(job).first(job.cell.evaluation.milestone_episodes)
    episodes = _play(job, trainer, chosen, f"milestone {trainer.env_steps}")
    job.folder.note_attempt(job.attempt)
    return Milestone(env_steps=trainer.env_steps, splits=split_counts(chosen, episodes))


_PREPARED: OrderedDict[str, Prepared] = OrderedDict()
"""Cache of this process: evaluation sets by the ids of their plans, the last used last."""
MOST_PREPARED = 8


def _prepared(job: Job) -> Prepared:
    """Return the cell's evaluation set, drawn once per process."""
    cell, plan = job.cell, job.cell.evaluation
    if plan.id not in _PREPARED:
        _PREPARED[plan.id] = prepare(make_task(cell.task, **cell.parameters), plan, job.salt)
    _PREPARED.move_to_end(plan.id)
    while len(_PREPARED) > MOST_PREPARED:
        _PREPARED.popitem(last=False)
    return _PREPARED[plan.id]


def _play(job: Job, trainer: Trainer, chosen: EvaluationSet, purpose: str) -> Episodes:
    cell = job.cell
    random = action_stream(cell.evaluation, cell.key.seed, job.salt, purpose, cell.device)
    agent = trainer.agent(cell.evaluation.sampling)
    return play_agent(agent, cell.evaluation, chosen, random, task=_prepared(job).task, device=cell.device)


def read_series(path: Path) -> list[Milestone]:
    """Return the milestones that a cell has passed under one evaluation. Those of another evaluation do not count."""
    milestones: list[Milestone] = []
    with suppress(ValidationError):  # The remaining rows are dropped, as in any file of rows.
        milestones.extend(Milestone.model_validate(row) for row in read_rows(path))
    return milestones


def _record(job: Job, **values: Any) -> Record:
    cell, here = job.cell, provenance(job.cell.device)
    empty = dict.fromkeys(("regret", "capability", "goal_fidelity", "score", "verdict", "checkpoint_sha256"))
    return Record(
        **{"splits": {}, "env_steps": 0, **empty, **values},
        cell=cell.key,
        cell_id=cell.cell_id,
        eval_id=cell.eval_id,
        device=cell.device,
        dtype="bfloat16" if cell.training.bf16 else "float32",
        knowledge=list(cell.knowledge),
        selection=cell.selection,
        study=cell.study,
        fixed_rate=cell.fixed_rate,
        inapplicable=list(cell.inapplicable),
        trust="self_reported",
        plugin=cell.plugin,
        versions=here.versions,
        commit=here.commit,
        source_sha256=here.source_sha256,
        machine=here.machine,
        config=cell.config,
        salt_commitment=cell.evaluation.salt_commitment,
        sampling=cell.evaluation.sampling,
        timing=Timing(wall_seconds=0.0, steps_per_second=0.0, peak_memory_bytes=0),
    )


def write_failure(job: Job, error: str) -> Record:
    """Return the record of a cell that failed, and write it if the disk allows."""
    record = _record(job, status="failed", error=error)
    try:
        records.write(RunFolder(job.out).new_cell(job.cell.cell_id).record, record)
    except (OSError, GoalpostsError):
        return record  # The user still sees the failure. A full disk must not hide why the cell failed.
    return record


class _Rows:
    """A file of JSON lines that a cell appends to. Rows past the resumed checkpoint are dropped first.

    Unreadable rows are dropped too. A link, or anything else that is not a regular file, is set aside.
    """

    def __init__(self, path: Path, env_steps: int) -> None:
        try:
            rows = read_rows(path)
        except CorruptFileError:
            set_aside(path)
            rows = []
        kept = [row for row in itertools.takewhile(_has_steps, rows) if row["env_steps"] <= env_steps]
        self.last: Mapping[str, Any] = kept[-1] if kept else {}
        """The last kept row."""
        write_atomically(path, "".join(f"{canonical_json(row)}\n" for row in kept))
        self._path = path

    def __enter__(self) -> _Rows:
        self._open = ExitStack()
        self._file = self._open.enter_context(open_regular(self._path, "append"))
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def append(self, row: Mapping[str, Any]) -> None:
        self._file.write(f"{canonical_json(row)}\n".encode())
        self._file.flush()


def _has_steps(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("env_steps"), int | float)


class _Clock:
    """Seconds that a cell has taken, including earlier attempts up to the checkpoint."""

    def __init__(self, before: float) -> None:
        self._zero = time.monotonic() - before

    def seconds(self) -> float:
        return round(time.monotonic() - self._zero, 3)


def _reset_peak_memory(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # Not Linux, or not permitted: the peak is then that of the whole process.


def _peak_memory(device: str) -> int:
    """Return the peak memory of this cell in bytes: of the GPU if it trained on one, else of the process."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
