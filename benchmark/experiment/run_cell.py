"""Runs one cell in the process it is called in: train or resume, evaluate, write the record."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from goalposts.benchmark.errors import CorruptFileError, GoalpostsError, RequestError
from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.record import Commit, Milestone, Record, Timing, canonical_json
from goalposts.benchmark.files import locked, open_regular, own_folder, set_aside, write_atomically
from goalposts.benchmark.measurement import scores
from goalposts.benchmark.measurement.evaluation import (
    Episodes,
    EvaluationSet,
    Prepared,
    play,
    prepare_cached,
    salt_commitment,
    split_counts,
)
from goalposts.benchmark.plain import one_line
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.rows import read_rows
from goalposts.benchmark.tasks import make_task
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.loop import Trainer

STARTED_FILE, EVALUATES = "started", "evaluates"
"""In a cell's folder, which attempt began last, and a word more while it evaluates."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A cell with what the driver knows and the worker needs."""

    cell: Cell
    out: Path
    salt: str
    commit: Commit
    versions: dict[str, str]
    checkpoint_seconds: float
    attempt: str = ""
    """Names this attempt; the worker writes it into ``STARTED_FILE`` when it begins."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    status: Literal["done", "failed", "disk_full"]
    error: str | None = None
    notices: tuple[str, ...] = ()
    """What the user should know, such as a corrupt file that was set aside."""


def finished_record(cell: Cell, out: Path) -> tuple[Record | None, str | None]:
    """Return the cell's record if it is done and current; and a notice if a damaged file was set aside.

    A cell whose checkpoint was deleted keeps its record; one whose checkpoint is damaged does not.
    """
    path = cell.folder(out) / "record.json"
    if not os.path.lexists(path):
        return None, None
    try:
        record = records.read(path)
    except CorruptFileError as error:
        return None, f"{error} It was set aside as {set_aside(path).name}, and the cell runs again."
    if record.status != "done" or record.eval_id != cell.eval_id or record.cell_id != cell.cell_id:
        return None, None
    folder = cell.folder(out) / "checkpoint"
    if os.path.lexists(folder) and checkpoint.file_checksum(folder) != record.checkpoint_sha256:
        set_aside(folder)
        return (
            None,
            f"The checkpoint of {cell.cell_id} is damaged; it was set aside, and the cell runs again.",
        )
    return record, None


def run_cell(job: Job) -> Outcome:
    """Run a cell to its record; every failure becomes an outcome, so that none hides another."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # Where a record says float32, it was.
    notices: list[str] = []
    try:
        folder = own_folder(job.out, "cells", job.cell.cell_id)
        with locked(folder / ".lock"):
            _note(job)
            try:
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


def _note(job: Job, *doing: str) -> None:
    """Note which attempt goes on, and what it does, for the driver to see."""
    write_atomically(job.cell.folder(job.out) / STARTED_FILE, " ".join((job.attempt, *doing)))


def _disk_is_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in str(error)


def _run(job: Job, folder: Path, notices: list[str]) -> None:
    cell = job.cell
    _reset_peak_memory(cell.device)
    state, moved = checkpoint.load_or_set_aside(folder / "checkpoint")
    if moved is not None:
        notices.append(
            f"A checkpoint of {cell.cell_id} is damaged; it was set aside as {moved.name}, the cell restarts."
        )
    trainer = make_trainer(cell)
    begun = state[1] if state else 0
    series = folder / f"series-{cell.eval_id}.jsonl"
    with _Rows(folder / "metrics.jsonl", begun) as metrics, _Rows(series, begun) as milestones:
        seconds = metrics.last.get("seconds")
        clock = _Clock(seconds if isinstance(seconds, int | float) else 0.0)
        digest = trainer.train(
            folder / "checkpoint",
            resume_from=state,
            checkpoint_seconds=job.checkpoint_seconds,
            report=lambda row: metrics.append({**row, "seconds": clock.seconds()}),
            milestones=cell.milestones,
            at_milestone=lambda: milestones.append(evaluate_milestone(job, trainer).model_dump(mode="json")),
        )
    trained = clock.seconds()
    record = evaluate(job, trainer, digest, series)
    timing = Timing(
        wall_seconds=clock.seconds(),
        steps_per_second=round(trainer.env_steps / max(trained, 1e-3), 1),
        peak_memory_bytes=_peak_memory(cell.device),
    )
    records.write(folder / "record.json", record.model_copy(update={"timing": timing}))


def make_trainer(cell: Cell) -> Trainer:
    """Return the cell's trainer, before its first step."""
    task = make_task(cell.plan.task, **cell.plan.parameters)
    plugin = load_plugin(cell.reference)
    if plugin.sha256 != cell.plugin.sha256:
        raise GoalpostsError(
            f"The files of {cell.key.mitigation!r} differ from those the run began with; run the same command again."
        )
    mitigation = plugin.cls(**cell.hyperparameters)
    return Trainer(
        task,
        mitigation,
        alpha=cell.key.alpha,
        config=cell.plan.training,
        stream=(cell.key.suite, cell.key.task, cell.key.seed),
        mitigation_name=cell.key.mitigation,
        device=cell.device,
    )


def evaluate(job: Job, trainer: Trainer, digest: str, series: Path) -> Record:
    """Evaluate the trained agent, write its episodes, and return its record with the milestones in ``series``."""
    _note(job, EVALUATES)
    prepared = _prepared(job)
    episodes = _play(job, trainer, prepared.levels, "evaluation")
    prepared.write_episodes(job.cell.folder(job.out) / "episodes.parquet", episodes)
    splits = prepared.results(episodes)
    return _record(
        job,
        status="done",
        env_steps=trainer.env_steps,
        splits=splits,
        series=read_series(series),
        regret=prepared.regret(episodes),
        **scores.summary(splits),
        checkpoint_sha256=digest,
    )


def evaluate_milestone(job: Job, trainer: Trainer) -> Milestone:
    """Evaluate an agent in training on the first levels of each split; its training goes on as if nothing was."""
    _note(job, EVALUATES)
    chosen = _prepared(job).first(job.cell.milestone_episodes)
    episodes = _play(job, trainer, chosen, f"milestone {trainer.env_steps}")
    _note(job)
    return Milestone(env_steps=trainer.env_steps, splits=split_counts(chosen, episodes))


def _prepared(job: Job) -> Prepared:
    cell, key = job.cell, job.cell.key
    parameters = canonical_json(cell.plan.parameters)
    gamma = cell.plan.training.gamma
    return prepare_cached(key.task, parameters, key.suite, cell.episodes, job.salt, gamma, cell.selects)


def _play(job: Job, trainer: Trainer, chosen: EvaluationSet, purpose: str) -> Episodes:
    cell, key = job.cell, job.cell.key
    random = generator(key.suite, key.task, key.seed, job.salt, purpose, device=cell.device)
    policy = trainer.policy(cell.sampling, random)
    return play(
        _prepared(job).task,
        chosen.levels,
        lambda _env: policy,
        gamma=cell.plan.training.gamma,
        ask_share=cell.ask_share,
        device=cell.device,
    )


def read_series(path: Path) -> list[Milestone]:
    """Return the milestones that a cell has passed under one evaluation; one trained under another has none."""
    milestones: list[Milestone] = []
    with suppress(ValidationError):  # The rest is dropped, as of any file of rows.
        milestones.extend(Milestone.model_validate(row) for row in read_rows(path))
    return milestones


def _record(job: Job, **values: Any) -> Record:
    cell = job.cell
    empty = dict.fromkeys(("regret", "capability", "goal_fidelity", "score", "verdict", "checkpoint_sha256"))
    return Record(
        **{"splits": {}, "env_steps": 0, **empty, **values},
        cell=cell.key,
        cell_id=cell.cell_id,
        eval_id=cell.eval_id,
        device=cell.device,
        dtype="bfloat16" if cell.plan.training.bf16 else "float32",
        knowledge=list(cell.knowledge),
        selection=cell.selection,
        study=cell.study,
        fixed_rate=cell.fixed_rate,
        inapplicable=list(cell.inapplicable),
        trust="self_reported",
        plugin=cell.plugin,
        versions=job.versions,
        commit=job.commit,
        config=cell.config,
        salt_commitment=salt_commitment(job.salt),
        sampling=cell.sampling,
        timing=Timing(wall_seconds=0.0, steps_per_second=0.0, peak_memory_bytes=0),
    )


def write_failure(job: Job, error: str) -> Record:
    """Return the record of a cell that failed, and write it where the disk allows."""
    record = _record(job, status="failed", error=error)
    try:
        records.write(own_folder(job.out, "cells", job.cell.cell_id) / "record.json", record)
    except (OSError, RequestError):
        return record  # The failure still reaches the user; a full disk must not hide why the cell failed.
    return record


class _Rows:
    """A file of JSON lines that a cell appends to; rows past the checkpoint that is resumed are dropped first.

    So is what cannot be read; a link or whatever else is no regular file is set aside.
    """

    def __init__(self, path: Path, env_steps: int) -> None:
        try:
            rows = read_rows(path)
        except CorruptFileError:
            set_aside(path)
            rows = []
        kept = [row for row in itertools.takewhile(_has_steps, rows) if row["env_steps"] <= env_steps]
        self.last: Mapping[str, Any] = kept[-1] if kept else {}
        """The last row kept."""
        write_atomically(path, "".join(f"{canonical_json(row)}\n" for row in kept))
        self._path = path

    def __enter__(self) -> _Rows:
        self._file = open_regular(self._path, "append")
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def append(self, row: Mapping[str, Any]) -> None:
        self._file.write(f"{canonical_json(row)}\n".encode())
        self._file.flush()


def _has_steps(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("env_steps"), int | float)


class _Clock:
    """Seconds that a cell has taken, those of earlier attempts up to the checkpoint included."""

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
        return  # Not Linux, or not allowed: the peak is then that of the whole process.


def _peak_memory(device: str) -> int:
    """Return the peak memory of this cell in bytes: of the GPU where it trained on one, else of the process."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
