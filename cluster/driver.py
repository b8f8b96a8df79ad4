"""The driver: schedules cells as Ray tasks, follows their progress, retries failed cells and survives lost workers."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from goalposts.benchmark.errors import GoalpostsError, RequestError
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.provenance import Provenance
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.run_cell import EVALUATES, Job, Outcome, finished_record, run_cell, write_failure
from goalposts.benchmark.experiment.run_folder import RunFolder
from goalposts.benchmark.plain import one_line
from goalposts.cluster.disk import DiskFullError, make_room

MAX_ATTEMPTS = 3
POLL_SECONDS = 0.5
DISK_SECONDS = 30.0
"""Seconds between two checks of the output folder's size, if it is limited."""
STALL_SECONDS = 900.0
"""A training cell whose metrics do not advance for this long is ended and retried."""
EVALUATION_SECONDS = 7200.0
"""The same limit during an evaluation, which may have to play a game's reference policies first."""


@dataclasses.dataclass
class Progress:
    """The known state of one cell during the run."""

    cell: Cell
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    env_steps: int = 0
    steps_per_second: float = 0.0
    attempts: int = 0
    attempt: str = ""
    """Identifies the last attempt."""
    error: str | None = None
    moved_at: float = 0.0
    """Monotonic time of the last change of ``env_steps``, or of the attempt's start."""


Observer = Callable[[Sequence[Progress]], None]
Notify = Callable[[str], None]


def run_cells(
    cells: Sequence[Cell],
    run: RunFolder,
    *,
    salt: str,
    driver: Provenance,
    gpus_per_cell: float,
    connect: Callable[[], Any],
    observe: Observer,
    notify: Notify,
    finished: Callable[[Record], None],
    checkpoint_seconds: float,
    max_disk_bytes: int | None = None,
) -> list[Progress]:
    """Run every cell that has no current record.

    Args:
        cells: the cells, in the order of scheduling.
        run: the output folder, claimed by the caller.
        salt: salt of the evaluation levels.
        driver: the code and the libraries that every worker must have.
        gpus_per_cell: share of a GPU for each cell.
        connect: returns the context manager that holds the connection to Ray. It is not called if no cell has to run.
        observe: called with the state of all cells at every poll.
        notify: called with messages for the user.
        finished: called once with the record of each cell that is done or has failed, cached ones first.
        checkpoint_seconds: least time between two checkpoints of a cell.
        max_disk_bytes: limit on the folder's size. Checkpoints of finished cells are deleted to stay below it.

    Raises:
        DiskFullError: a disk ran full, or the folder exceeded its limit. All other cells are stopped, and the run can
            be resumed.
    """
    progress = [Progress(cell) for cell in cells]
    for entry in progress:
        record, notice = finished_record(entry.cell, run)
        if notice:
            notify(notice)
        if record is not None:
            entry.state, entry.env_steps = "done", record.env_steps
            finished(record)
    waiting = [entry for entry in progress if entry.state == "waiting"]
    if not waiting:
        return progress
    jobs = {entry.cell.cell_id: Job(entry.cell, run.path, salt, driver, checkpoint_seconds) for entry in waiting}
    with connect():
        _check_capacity(gpus_per_cell)
        # Do not use ``options``: with it, Ray would let a process that holds one GPU run a cell meant for another.
        remote = ray.remote(num_cpus=1, num_gpus=gpus_per_cell, max_retries=0)(run_cell)

        def submit(entry: Progress) -> Any:
            entry.attempts += 1
            entry.attempt = uuid.uuid4().hex
            entry.env_steps = run.cell(entry.cell.cell_id).env_steps()
            return remote.remote(dataclasses.replace(jobs[entry.cell.cell_id], attempt=entry.attempt))

        running = {submit(entry): entry for entry in waiting}
        looked = -DISK_SECONDS
        try:
            while running:
                ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                for reference in ready:
                    entry = running.pop(reference)
                    outcome, record = _result(reference, entry.cell, run)
                    if _settle(entry, outcome, run.path, notify):
                        running[submit(entry)] = entry
                    else:
                        finished(record or write_failure(jobs[entry.cell.cell_id], str(entry.error)))
                for reference, entry in running.items():
                    if _stalled(entry, run):
                        still = f"{time.monotonic() - entry.moved_at:.0f}"
                        notify(f"{entry.cell.cell_id} made no progress for {still} s and is restarted.")
                        ray.cancel(reference, force=True)
                        entry.moved_at = time.monotonic()
                if max_disk_bytes is not None and time.monotonic() - looked >= DISK_SECONDS:
                    _make_room(progress, run, max_disk_bytes, notify)
                    looked = time.monotonic()
                observe(progress)
        except RayError as error:
            raise GoalpostsError(
                f"The connection to Ray was lost ({type(error).__name__}); run the same command again to go on."
            ) from error
        except BaseException:
            for reference in running:
                ray.cancel(reference, force=True)
            raise
    return progress


def _make_room(progress: Sequence[Progress], run: RunFolder, most_bytes: int, notify: Notify) -> None:
    done = [run.cell(entry.cell.cell_id) for entry in progress if entry.state == "done"]
    for name in make_room(run.path, done, most_bytes):
        notify(f"The checkpoint of {name} was deleted to stay below --max-disk; its record is kept.")


def _check_capacity(gpus_per_cell: float) -> None:
    """Refuse a request that no node can ever meet. Ray would wait for such a node without a message.

    Raises:
        RequestError: no node has a CPU and the share of a GPU for one cell.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus_per_cell for node in nodes):
        raise RequestError(
            f"No node of the Ray cluster has a CPU and {gpus_per_cell:g} GPUs for a cell; "
            "give a smaller --gpus-per-cell, 0 for none."
        )


def _result(reference: Any, cell: Cell, run: RunFolder) -> tuple[Outcome, Record | None]:
    """Return the outcome of an attempt, and the record if the cell is done."""
    try:
        outcome: Outcome = ray.get(reference)
    except RayError as error:
        first = str(error).strip().partition("\n")[0]
        return Outcome("failed", f"The worker was lost ({type(error).__name__}: {one_line(first)})"), None
    if outcome.status != "done":
        return outcome, None
    record, _ = finished_record(cell, run)
    if record is None:
        missing = f"Its record does not show in {str(run.path)!r}; is that a folder all nodes share?"
        return Outcome("failed", missing), None
    return outcome, record


def _settle(entry: Progress, outcome: Outcome, out: Path, notify: Notify) -> bool:
    """Process the outcome of an attempt. Return whether to retry the cell."""
    for notice in outcome.notices:
        notify(notice)
    if outcome.status == "disk_full":
        raise DiskFullError(
            f"The disk of {str(out)!r} is full. Free some space and run the same command again: finished cells and "
            "checkpoints are kept."
        )
    if outcome.status == "done":
        entry.state, entry.error = "done", None
        entry.env_steps = max(entry.env_steps, entry.cell.training.env_steps)
        return False
    entry.error = outcome.error
    if entry.attempts < MAX_ATTEMPTS:
        notify(f"{entry.cell.cell_id} failed and is retried ({entry.attempts}/{MAX_ATTEMPTS - 1}): {outcome.error}")
        entry.state, entry.steps_per_second = "waiting", 0.0
        return True
    entry.state = "failed"
    return False


def _stalled(entry: Progress, run: RunFolder) -> bool:
    """Read the cell's last metrics into ``entry``. Return whether a running cell has stalled for too long."""
    now = time.monotonic()
    folder = run.cell(entry.cell.cell_id)
    attempt, doing = folder.attempt()
    if entry.state == "waiting" and attempt == entry.attempt:
        entry.state, entry.moved_at = "running", now
    steps = folder.env_steps()
    if steps != entry.env_steps:
        if steps > entry.env_steps > 0:
            rate = (steps - entry.env_steps) / max(now - entry.moved_at, 1e-6)
            entry.steps_per_second = rate if not entry.steps_per_second else 0.7 * entry.steps_per_second + 0.3 * rate
        entry.env_steps, entry.moved_at = steps, now
    longest = EVALUATION_SECONDS if doing == EVALUATES else STALL_SECONDS
    return entry.state == "running" and now - entry.moved_at > longest
