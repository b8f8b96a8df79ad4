"""Runs a suite's cells: plans them, trains them into a folder, and keeps mirror and leaderboard up to date."""

from __future__ import annotations

import math
from typing import Literal

import torch
from rich.console import Console

from goalposts._cli.mirroring import MirrorThread
from goalposts._cli.progress import RunDisplay
from goalposts._cli.reporting import write_pages
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.provenance import provenance
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.run_folder import RunFolder
from goalposts.benchmark.experiment.suite import Suite
from goalposts.cluster.connection import connected
from goalposts.cluster.driver import Progress, run_cells
from goalposts.cluster.estimate import estimate
from goalposts.results.leaderboard import Leaderboard
from goalposts.results.reading import read_results


def print_plan(suite: Suite, cells: list[Cell], gpus_per_cell: float, *, out: Console, err: Console) -> None:
    """Print the cells, and their estimated time on this machine."""
    for cell in cells:
        out.print(f"{cell.cell_id}  {cell.training.env_steps:,} steps", soft_wrap=True)
    total = sum(cell.training.env_steps for cell in cells)
    out.print(f"{suite.id}: {len(cells)} cells, {total:,} environment steps")
    if cells[0].device == "cuda" and not torch.cuda.is_available():
        out.print("These cells need a GPU, and this machine has none: their time cannot be measured here.")
        return
    with err.status("Measuring how fast this machine trains each task…"):
        found = estimate(cells, gpus_per_cell)
    for task, rate in found.rates.items():
        steps = sum(cell.training.env_steps for cell in cells if cell.key.task == task)
        out.print(f"{task}: {steps:,} steps at {rate:,.0f} a second and cell")
    out.print(
        f"About {_roughly(found.wall_seconds)} of training on this machine, {found.side_by_side} cells at a time, at "
        "the rates just measured without a mitigation; evaluation adds seconds a cell.",
        soft_wrap=True,
    )


def _roughly(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{seconds / 3600:.1f} hours"


def run_into(
    run: RunFolder,
    suite: Suite,
    cells: list[Cell],
    *,
    salt: str,
    address: str | None,
    gpus_per_cell: float,
    checkpoint_seconds: float,
    max_disk_bytes: int | None,
    err: Console,
) -> tuple[Leaderboard, list[Record], list[Progress]]:
    """Run ``cells`` into a folder and rebuild its leaderboard.

    Returns:
        The leaderboard, its records and the cells that failed.

    Raises:
        RequestError: the folder belongs to something else, or is in use.
    """
    with run.claimed(suite.id, cells, suite):
        mirror = MirrorThread(run.path, suite.id, lambda line: err.print(line, style="yellow", soft_wrap=True))
        status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
        try:
            with RunDisplay(err) as display:
                progress = run_cells(
                    cells,
                    run,
                    salt=salt,
                    driver=provenance(cells[0].device),
                    gpus_per_cell=gpus_per_cell,
                    connect=lambda: connected(address),
                    observe=display.update,
                    notify=display.notify,
                    finished=mirror.log_cell,
                    checkpoint_seconds=checkpoint_seconds,
                    max_disk_bytes=max_disk_bytes,
                )
            results = read_results(run.path)
            board = write_pages(run.path, results)
            mirror.log_leaderboard(board)
            failed = [entry for entry in progress if entry.state == "failed"]
            status = "FAILED" if failed else "FINISHED"
        finally:
            problem = mirror.finish(status)
        if problem is not None:
            err.print(f"MLflow could not be written ({problem}); records and leaderboard are complete.", style="yellow")
    return board, results.records, failed
