"""Estimates how long a plan takes, from rates measured on this machine."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence

import torch

from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.training.loop import Trainer

MEASURED_ITERATIONS = 2
"""Timed iterations for a rate, after one that is not timed."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The time to train cells in parallel on this machine."""

    rates: dict[str, float]
    """Environment steps per second by task, of one cell alone that trains without a mitigation."""
    env_steps: int
    """Total over all cells."""
    side_by_side: int
    """Cells that run at once."""
    wall_seconds: float
    """Seconds of training alone."""


def measured_rate(cell: Cell) -> float:
    """Return the environment steps per second of a cell on this machine, without its mitigation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = Trainer(
            make_task(cell.task, **cell.parameters),
            Mitigation(),
            alpha=0.0,
            config=cell.training,
            stream=("estimate", cell.key.task),
            mitigation_name="none",
            device=cell.device,
        )
        trainer.iterate()
        started = time.perf_counter()
        for _ in range(MEASURED_ITERATIONS):
            trainer.iterate()
        if cell.device == "cuda":
            torch.cuda.synchronize()
        return MEASURED_ITERATIONS * cell.training.steps_per_rollout / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)


def estimate(cells: Sequence[Cell], gpus_per_cell: float) -> Estimate:
    """Measure every task's rate, and return the estimate for all ``cells``."""
    rates = {task: measured_rate(cell) for task, cell in {cell.key.task: cell for cell in cells}.items()}
    side_by_side = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if gpus_per_cell > 0:
        side_by_side = min(side_by_side, max(1, int(torch.cuda.device_count() / gpus_per_cell)))
    seconds = sum(cell.training.env_steps / rates[cell.key.task] for cell in cells)
    return Estimate(
        rates=rates,
        env_steps=sum(cell.training.env_steps for cell in cells),
        side_by_side=side_by_side,
        wall_seconds=seconds / min(side_by_side, len(cells)),
    )
