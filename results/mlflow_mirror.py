"""The MLflow mirror of a run: one parent run for its output folder, one nested run for each cell.

The records are authoritative. The mirror is a copy for browsing, and only the driver writes it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from goalposts.benchmark.errors import CorruptFileError, GoalpostsError
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.files import open_regular, own_folder, set_aside
from goalposts.benchmark.rows import read_rows
from goalposts.benchmark.tasks.vocabulary import OUTCOMES
from goalposts.results.leaderboard import Leaderboard

if TYPE_CHECKING:
    from mlflow.entities import Run

_BATCH = 1000
"""Largest number of metrics in one MLflow request."""
_PARAM_BATCH = 100
_MAX_PARAM_LENGTH = 6000
_KEY, _KIND, _SUITE, _CELL, _EVAL = (
    f"goalposts.{name}" for name in ("mirrored", "kind", "suite", "cell_id", "eval_id")
)


class Mirror:
    """Writes ``mlflow.db`` and ``mlartifacts/`` in an output folder, without MLflow's global state.

    Opening a new folder creates the database schema, which takes seconds. Logging is idempotent.
    """

    def __init__(self, out: Path, suite_id: str, notify: Callable[[str], None]) -> None:
        """Open the mirror of the output folder ``out``, and reopen its parent run if it has one.

        A broken database is set aside and made anew; ``notify`` is told.

        Raises:
            GoalpostsError: another program holds the database, or the disk does not let it be opened.
        """
        self._out = out.resolve()
        self._database = self._out / "mlflow.db"
        own_folder(self._out, "mlartifacts")
        if "MLFLOW_TRACKING_URI" in os.environ:  # Its value may hold a password.
            notify(f"MLFLOW_TRACKING_URI is not used; the MLflow mirror is {str(self._database)!r}.")
        if (problem := _fault_of(self._database)) is not None:
            name = _set_aside(self._database).name
            notify(f"The MLflow database is broken ({problem}); it was set aside as {name!r} and is made anew.")
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        with _quiet():
            from mlflow.tracking import MlflowClient

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # An error is raised as well, and told in one line.
            with closing(sqlite3.connect(self._database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            self._client = MlflowClient(tracking_uri=f"sqlite:///{self._database}")
            self._experiment_id = self._experiment(suite_id)
            self._parent_id = self._parent(suite_id)
            self._mirrored = self._finished_cells()

    def log_cell(self, record: Record) -> None:
        """Mirror a cell's record, metrics and ``record.json``, unless the cell is mirrored already."""
        identity = (record.cell_id, record.eval_id)
        if identity in self._mirrored:
            return
        folder = self._out / "cells" / record.cell_id
        metrics = [*_training_metrics(folder / "metrics.jsonl"), *_final_metrics(record)]
        with _quiet():
            run_id = self._start(_run_name(record), _cell_tags(record) | {"mlflow.parentRunId": self._parent_id})
            self._log(run_id, metrics, _params(record))
            self._log_file(run_id, folder / "record.json")
            if record.status == "done":
                self._client.set_tag(run_id, _KEY, "true")
                self._mirrored.add(identity)
            self._client.set_terminated(run_id, "FINISHED" if record.status == "done" else "FAILED")

    def log_leaderboard(self, leaderboard: Leaderboard) -> None:
        """Log the leaderboard's summary, file and page to the parent run."""
        metrics = [
            (_key(f"{entry.mitigation}/alpha={entry.alpha:g}/{quantity}"), interval.mean, 0)
            for entry in leaderboard.entries
            for quantity in ("score", "capability", "goal_fidelity")
            if (interval := getattr(entry, quantity)) is not None
        ]
        with _quiet():
            self._log(self._parent_id, metrics, {})
            for path in (self._out / "leaderboard.json", self._out / "site" / "index.html"):
                self._log_file(self._parent_id, path)

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the parent run and leave ``mlflow.db`` as one complete file. The folder's next run reopens the parent."""
        with _quiet():
            self._client.set_terminated(self._parent_id, status)
        with closing(sqlite3.connect(self._database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _experiment(self, suite_id: str) -> str:
        experiment = self._client.get_experiment_by_name(suite_id)
        if experiment is not None:
            return str(experiment.experiment_id)
        artifacts = (self._out / "mlartifacts").as_uri()
        return str(self._client.create_experiment(suite_id, artifact_location=artifacts))

    def _parent(self, suite_id: str) -> str:
        runs = list(self._runs(f"tags.`{_KIND}` = 'suite'"))
        if not runs:
            return self._start(suite_id, {_KIND: "suite", _SUITE: suite_id})
        run_id = str(runs[0].info.run_id)
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _finished_cells(self) -> set[tuple[str, str]]:
        """Return the mirrored cells, and delete failed or partial ones, which are logged again."""
        finished = set()
        for run in list(self._runs(f"tags.`{_KIND}` = 'cell'")):
            if _KEY in run.data.tags:
                finished.add((run.data.tags[_CELL], run.data.tags[_EVAL]))
            else:
                self._client.delete_run(run.info.run_id)
        return finished

    def _runs(self, condition: str) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], condition, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _start(self, name: str, tags: Mapping[str, str]) -> str:
        return str(self._client.create_run(self._experiment_id, tags=dict(tags), run_name=name).info.run_id)

    def _log_file(self, run_id: str, path: Path) -> None:
        if path.is_file() and not path.is_symlink():
            self._client.log_artifact(run_id, str(path))

    def _log(self, run_id: str, metrics: Iterable[tuple[str, float, int]], params: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        values = [Metric(name, value, now, step) for name, value, step in metrics]
        for start in range(0, len(values), _BATCH):
            self._client.log_batch(run_id, metrics=values[start : start + _BATCH])
        texts = [Param(name, value) for name, value in params.items()]
        for start in range(0, len(texts), _PARAM_BATCH):
            self._client.log_batch(run_id, params=texts[start : start + _PARAM_BATCH])


def _fault_of(database: Path) -> str | None:
    """Return why MLflow cannot use the file, such as a schema that was made in part; None if it can or it is missing.

    MLflow adds its first experiment when the schema is complete.

    Raises:
        GoalpostsError: whether it can be used cannot be told, because it is locked or the disk fails.
    """
    try:
        open_regular(database).close()
        with closing(sqlite3.connect(database)) as connection:
            experiments = connection.execute("SELECT count(*) FROM experiments").fetchone()[0]
            return None if experiments else "its schema is incomplete"
    except FileNotFoundError:
        return None
    except CorruptFileError as error:
        return str(error)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname in ("SQLITE_ERROR", "SQLITE_NOTADB") or "CORRUPT" in error.sqlite_errorname:
            return str(error)
        raise GoalpostsError(
            f"The MLflow database {str(database)!r} cannot be opened: {error}. End the program that holds it, or free "
            "the disk, and run the same command again."
        ) from error


def _set_aside(database: Path) -> Path:
    """Rename the database and what SQLite keeps beside it, which must never meet another; return its new path."""
    for suffix in ("-wal", "-shm", "-journal"):
        if os.path.lexists(beside := database.with_name(database.name + suffix)):
            set_aside(beside)
    return set_aside(database)


def _training_metrics(path: Path) -> Iterator[tuple[str, float, int]]:
    """Yield the metrics of a cell in training; what cannot be read is dropped."""
    try:
        rows = read_rows(path)
    except CorruptFileError:
        return
    for row in rows:
        if not isinstance(steps := row.get("env_steps"), int | float):
            return
        step = int(steps)
        for name, value in row.items():
            if name != "env_steps" and isinstance(value, int | float) and not isinstance(value, bool):
                yield _key(f"train/{name}"), float(value), step


def _final_metrics(record: Record) -> Iterator[tuple[str, float, int]]:
    for name in ("score", "capability", "goal_fidelity", "regret"):
        value: float | None = getattr(record, name)
        if value is not None:
            yield name, value, record.env_steps
    for split, result in record.splits.items():
        for outcome in OUTCOMES:
            if result.episodes:
                yield _key(f"{split}/{outcome}"), getattr(result, outcome) / result.episodes, record.env_steps


def _params(record: Record) -> dict[str, str]:
    fields = {
        "cell": record.cell.model_dump(),
        "device": record.device,
        "dtype": record.dtype,
        "config": record.config.model_dump(mode="json"),
    }
    return {_key(name): str(value)[:_MAX_PARAM_LENGTH] for name, value in _flattened(fields)}


def _flattened(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _cell_tags(record: Record) -> dict[str, str]:
    return {
        _KIND: "cell",
        _SUITE: record.cell.suite,
        _CELL: record.cell_id,
        _EVAL: record.eval_id,
        "goalposts.task": record.cell.task,
        "goalposts.mitigation": record.cell.mitigation,
        "goalposts.status": record.status,
        "goalposts.verdict": record.verdict or "",
        "goalposts.trust": record.trust,
        "goalposts.salt_commitment": record.salt_commitment,
        "goalposts.commit": record.commit.id or "",
        "goalposts.error": record.error or "",
    }


def _run_name(record: Record) -> str:
    cell = record.cell
    return f"{cell.task}/{cell.mitigation}/alpha={cell.alpha:g}/seed={cell.seed}"


def _key(name: str) -> str:
    """Return ``name`` with MLflow's allowed characters and length of a key."""
    return "".join(letter if letter.isalnum() or letter in "_-. :/" else "_" for letter in name)[:250]


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore deprecation warnings among MLflow's dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
