"""Writes the MLflow mirror from its own thread, so that training never waits for a database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from goalposts.benchmark.experiment.record import Record
from goalposts.results.leaderboard import Leaderboard
from goalposts.results.mlflow_mirror import Mirror


class MirrorThread:
    """A mirror whose calls return at once. The first failure ends it, and :meth:`finish` reports it."""

    def __init__(self, out: Path, suite: str, notify: Callable[[str], None]) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._mirror: Future[Mirror] = self._executor.submit(Mirror, out, suite, notify)
        self._calls: list[Future[None]] = []

    def _submit(self, call: Callable[[Mirror], None]) -> None:
        self._calls.append(self._executor.submit(lambda: call(self._mirror.result())))

    def log_cell(self, record: Record) -> None:
        """Mirror a cell that is done or has failed."""
        self._submit(lambda mirror: mirror.log_cell(record))

    def log_leaderboard(self, leaderboard: Leaderboard) -> None:
        """Mirror the result of the run, and mark it finished."""
        self._submit(lambda mirror: mirror.log_leaderboard(leaderboard))

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> str | None:
        """Mark the run as ended and wait for all calls; return why the mirror is incomplete, or None."""
        self._submit(lambda mirror: mirror.close(status))
        self._executor.shutdown(wait=True)
        for call in self._calls:
            if (error := call.exception()) is not None:
                return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return None
