"""Reads what a run or a suite's publication left, and rebuilds its leaderboard and page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment import record
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.suite import Suite, get_suite
from goalposts.benchmark.tasks.registry import TASKS
from goalposts.cluster.driver import RUN_FILE, Run, read_run
from goalposts.results.leaderboard import Leaderboard, build_leaderboard, write_leaderboard
from goalposts.results.publication import is_published, published_suite, read_published
from goalposts.results.site import write_site, write_story_svg


def read_records(folder: Path) -> tuple[Suite, list[Record], Run | None]:
    """Return the suite of a run's folder or of published entries, its records, and what was asked for.

    Of published entries nobody knows that.

    Raises:
        RequestError: the folder is neither.
    """
    if is_published(folder) and not (folder / RUN_FILE).exists():
        return (suite := get_suite(published_suite(folder))), read_published(folder, suite), None
    if not folder.is_dir():
        raise RequestError(f"There is no folder {str(folder)!r}; give that of a run, such as runs/quick.")
    if within := sorted(path.name for path in folder.iterdir() if is_published(path) or (path / RUN_FILE).exists()):
        raise RequestError(f"{str(folder)!r} holds results in {', '.join(within)}; give one of these folders.")
    run = read_run(folder)
    paths = [folder / "cells" / cell_id / "record.json" for cell_id, _ in run.cells]
    found = [record.read(path) for path in paths if path.exists()]
    return get_suite(run.suite), [one for one in found if (one.cell_id, one.eval_id) in run.cells], run


def rebuild(folder: Path) -> tuple[Leaderboard, list[Record]]:
    """Build and return the leaderboard, write it and the page, and return the records of the folder's last run too.

    Raises:
        RequestError: the folder belongs to no run, or holds no record of it.
    """
    suite, records, run = read_records(folder)
    asked, fixed = (list(run.cells.values()), run.fixed_rates) if run else (None, ())
    board = build_leaderboard(suite, records, asked, fixed)
    write_leaderboard(folder, board)
    cases = {name: dataclasses.asdict(task.case) for name, task in TASKS.items()}
    page = write_site(folder, board, suite, cases, records)
    write_story_svg(page.with_name("capability_fidelity.svg"), board)
    return board, records
