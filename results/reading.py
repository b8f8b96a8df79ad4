"""Reads results, those of a run or of a suite's publication, and ranks them. Nothing is written here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.run_folder import RunFolder, RunRequest
from goalposts.benchmark.experiment.suite import Suite
from goalposts.results.leaderboard import Leaderboard
from goalposts.results.publication import is_published, published_suite, read_published
from goalposts.results.ranking import build_leaderboard


@dataclasses.dataclass(frozen=True)
class Results:
    """The records of a folder."""

    suite: Suite
    records: list[Record]
    request: RunRequest | None
    """What a run was asked for; None of published records, of which nobody knows that."""

    def leaderboard(self) -> Leaderboard:
        """Return the ranking.

        Raises:
            RequestError: there is no record to rank.
        """
        if self.request is None:
            return build_leaderboard(self.suite, self.records)
        cells = list(self.request.cells.values())
        return build_leaderboard(self.suite, self.records, cells, self.request.fixed_rates)


def read_results(folder: Path) -> Results:
    """Read a run's folder or a suite's published records.

    Raises:
        CorruptFileError: a record is damaged.
        RequestError: the folder is neither.
    """
    run = RunFolder(folder)
    if is_published(folder) and not run.is_run:
        suite = published_suite(folder)
        return Results(suite, read_published(folder, suite), None)
    if not folder.is_dir():
        raise RequestError(f"There is no folder {str(folder)!r}; give that of a run, such as runs/quick.")
    inside = sorted(path.name for path in folder.iterdir() if is_published(path) or RunFolder(path).is_run)
    if inside and not run.is_run:
        raise RequestError(f"{str(folder)!r} holds results in {', '.join(inside)}; give one of these folders.")
    return Results(run.suite(), run.records(), run.request())
