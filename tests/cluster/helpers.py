"""Tiny cells and what runs them without Ray."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.benchmark.experiment.provenance import provenance
from goalposts.benchmark.experiment.run_cell import Job
from goalposts.benchmark.experiment.run_folder import CellFolder, RunFolder
from goalposts.benchmark.experiment.suite import Suite, TaskPlan, get_suite
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, salt_commitment
from goalposts.benchmark.training.config import TrainingConfig

TINY = TrainingConfig(
    env_steps=2048, num_envs=32, num_steps=16, minibatch_size=256, num_epochs=1, hidden_sizes=(8,), bf16=False
)
"""Four iterations."""
STOPS_ONCE = """
from pathlib import Path
from goalposts import Mitigation

class Stops(Mitigation):
    rollouts = 0

    def after_rollout(self, rollout):
        self.rollouts += 1
        marker = Path(__file__).with_name("go-on")
        if self.rollouts == 3 and not marker.exists():
            marker.touch()
            raise OSError("the machine stopped")
"""
"""A plugin that stops in the third iteration, the first time it runs."""


def tiny_suite() -> Suite:
    """Return smoke, shrunk to four iterations on fraud."""
    return get_suite("smoke").model_copy(update={"tasks": (TaskPlan(task="fraud", training=TINY),)})


def tiny_cell(mitigation: str = "none", seed: int = 0) -> Cell:
    """Return one cell of :func:`tiny_suite`."""
    selection = Selection(mitigations=(mitigation,), seeds=seed + 1)
    cells = cells_of(tiny_suite(), selection, device="cpu", salt_commitment=salt_commitment(PUBLIC_SALT))
    return next(cell for cell in cells if cell.key.seed == seed)


def job(cell: Cell, out: Path, salt: str = PUBLIC_SALT) -> Job:
    """Return a job that writes a checkpoint after every iteration."""
    return Job(cell, out, salt, provenance("cpu"), checkpoint_seconds=0.0)


def evaluated(cell: Cell, **changes: Any) -> Cell:
    """Return the cell with another plan of its evaluation."""
    return dataclasses.replace(cell, evaluation=cell.evaluation.model_copy(update=changes))


def folder_of(cell: Cell, out: Path) -> CellFolder:
    """Return the cell's folder in a run's."""
    return RunFolder(out).cell(cell.cell_id)


def record_json(cell: Cell, out: Path) -> dict[str, Any]:
    """Return the cell's record without the part that may differ between equal runs."""
    record: dict[str, Any] = json.loads(folder_of(cell, out).record.read_text())
    del record["timing"]
    return record


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return size and times of everything in a folder, and of itself."""
    paths = [folder, *folder.rglob("*")]
    stats = {path.relative_to(folder).as_posix(): path.lstat() for path in paths}
    return {name: (one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in stats.items()}
