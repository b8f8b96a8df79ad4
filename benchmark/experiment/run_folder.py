"""The run folder: its layout, its lock, and how it is read. Reading a run needs neither Ray nor torch.

A run writes ``run.json`` (the request), ``suite.toml`` (the suite), ``cells/<cell_id>/`` (a folder for each cell),
``leaderboard.json``, ``site/`` and the MLflow mirror. Links inside it are never followed.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.record import CellKey, Record
from goalposts.benchmark.experiment.suite import Suite, get_suite, read_suite, suite_toml
from goalposts.benchmark.files import locked, open_regular, own_folder, read_regular_text, write_atomically
from goalposts.benchmark.rows import last_rows

if TYPE_CHECKING:
    from goalposts.benchmark.experiment.cell import Cell

RUN_FILE, SUITE_FILE, LOCK_FILE, LEADERBOARD_FILE = "run.json", "suite.toml", ".lock", "leaderboard.json"
MOST_BYTES = 64 * 1024 * 1024
"""Largest size of ``run.json``. Ten thousand cells take four million bytes."""
_CONTENTS = {RUN_FILE, SUITE_FILE, LOCK_FILE, LEADERBOARD_FILE, "cells", "site", "mlartifacts"}
_CELL_ID = r"[A-Za-z0-9_][A-Za-z0-9_.+\-]{0,199}"


@dataclasses.dataclass(frozen=True)
class RunRequest:
    """The latest request for a run folder."""

    suite: str
    cells: dict[tuple[str, str], CellKey]
    """Cells by their cell and evaluation ids."""
    fixed_rates: frozenset[str]
    """The mitigations that set their own disambiguation rate."""


class CellFolder:
    """The files of one cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "record.json"
        self.checkpoint = path / "checkpoint"
        self.metrics = path / "metrics.jsonl"
        """A row of training metrics for each iteration."""
        self.episodes = path / "episodes.parquet"
        """A row for each evaluated episode."""

    def milestones(self, eval_id: str) -> Path:
        """Return the file of the evaluations during training, with one row each."""
        return self.path / f"series-{eval_id}.jsonl"

    def check_no_link(self) -> None:
        """Refuse a folder that is a link, or lies in one.

        Raises:
            CorruptFileError: it is so.
        """
        for path in (self.path.parent, self.path):
            if path.is_symlink():
                raise CorruptFileError(f"Cannot read {str(path)!r}: it is a link. Move it away.")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Create the folder and lock it for one attempt at the cell. Other attempts wait."""
        with locked(self.path / LOCK_FILE):
            yield

    def note_attempt(self, attempt: str, doing: str = "") -> None:
        """Note the current attempt and what it is doing, for the driver."""
        write_atomically(self.path / "started", f"{attempt} {doing}".strip())

    def attempt(self) -> tuple[str, str]:
        """Return the latest attempt and what it is doing. Empty texts if that cannot be read."""
        try:
            attempt, _, doing = read_regular_text(self.path / "started", 1000).partition(" ")
        except (OSError, CorruptFileError):
            return "", ""
        return attempt, doing

    def env_steps(self) -> int:
        """Return the steps in the last row of metrics. 0 if there is none."""
        for row in last_rows(self.metrics):
            if isinstance(steps := row.get("env_steps"), int | float):
                return int(steps)
        return 0


class RunFolder:
    """The output folder of a run.

    Args:
        path: the folder. It may be a link, and need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def cell(self, cell_id: str) -> CellFolder:
        """Return the folder of a cell, which need not exist."""
        return CellFolder(self.path / "cells" / cell_id)

    def new_cell(self, cell_id: str) -> CellFolder:
        """Return the folder of a cell. It is created if it is missing."""
        return CellFolder(own_folder(self.path, "cells", cell_id))

    @property
    def is_run(self) -> bool:
        """Whether the folder belongs to a run."""
        return (self.path / RUN_FILE).is_file()

    def request(self) -> RunRequest:
        """Return the latest request for the folder.

        Raises:
            RequestError: the folder belongs to no run, or ``run.json`` is damaged.
        """
        path = self.path / RUN_FILE
        try:
            run = json.loads(read_regular_text(path, MOST_BYTES))
            cells = dict(_asked(cell_id, cell) for cell_id, cell in run["cells"].items())
            return RunRequest(str(run["suite"]), cells, frozenset(map(str, run.get("fixed_rates", ()))))
        except OSError as error:
            problem = f"{RUN_FILE} cannot be read"
            raise RequestError(f"{str(self.path)!r} is not the output folder of a run: {problem}.") from error
        except (CorruptFileError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RequestError(f"{str(path)!r} is damaged; delete it and run the suite again to restore it.") from error

    def suite(self) -> Suite:
        """Return the suite of the run. A custom suite is kept beside the cells.

        Raises:
            RequestError: the folder belongs to no run, or its suite is unknown.
        """
        suite_id = self.request().suite
        path = self.path / SUITE_FILE
        if path.is_file() and not path.is_symlink():
            suite = read_suite(path)
            if suite.id == suite_id:
                return suite
        return get_suite(suite_id)

    def records(self) -> list[Record]:
        """Return the records of the cells in the folder's latest request. Cells without a record are left out.

        Raises:
            CorruptFileError: a record is damaged.
            RequestError: the folder belongs to no run.
        """
        asked = self.request().cells
        found = []
        for cell in (self.cell(cell_id) for cell_id, _ in asked):
            cell.check_no_link()
            if os.path.lexists(cell.record):
                found.append(records.read(cell.record))
        return [one for one in found if (one.cell_id, one.eval_id) in asked]

    @contextmanager
    def claimed(self, suite_id: str, cells: Sequence[Cell], suite: Suite | None = None) -> Iterator[None]:
        """Lock the folder for one run, and write its request.

        Args:
            suite_id: the owner of the folder: a suite, or a study of hyperparameters.
            cells: the requested cells.
            suite: kept in the folder, so that the run can be read anywhere.

        Raises:
            RequestError: it cannot be written, belongs to something else, or another run holds it.
        """
        with ExitStack() as stack:
            try:
                if not self.is_run and self.path.exists() and any(not _is_ours(one) for one in self.path.iterdir()):
                    raise RequestError(
                        f"Output folder {str(self.path)!r} holds other files; choose an empty or new one with --out."
                    )
                self.path.mkdir(parents=True, exist_ok=True)
                self._take(stack.enter_context(open_regular(self.path / LOCK_FILE, "append")).fileno())
                if self.is_run and (owner := self.request().suite) != suite_id:
                    raise RequestError(
                        f"Output folder {str(self.path)!r} belongs to suite {owner!r}, not {suite_id!r}; choose "
                        "another with --out."
                    )
                self._note(suite_id, cells, suite)
            except OSError as error:
                raise RequestError(
                    f"Output folder {str(self.path)!r} cannot be written ({error.strerror}); choose another with --out."
                ) from error
            yield

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RequestError(
                f"Output folder {str(self.path)!r} is in use by another run (process {self._owner()}); wait for it to "
                "end, or choose another folder with --out."
            ) from error

    def _note(self, suite_id: str, cells: Sequence[Cell], suite: Suite | None) -> None:
        run = {
            "suite": suite_id,
            "process": os.getpid(),
            "fixed_rates": sorted({cell.key.mitigation for cell in cells if cell.fixed_rate}),
            "cells": {cell.cell_id: {"eval_id": cell.eval_id, **cell.key.model_dump(mode="json")} for cell in cells},
        }
        write_atomically(self.path / RUN_FILE, json.dumps(run, indent=2))
        if suite is not None:
            write_atomically(self.path / SUITE_FILE, suite_toml(suite))

    def _owner(self) -> str:
        try:
            return str(json.loads(read_regular_text(self.path / RUN_FILE, MOST_BYTES))["process"])
        except (OSError, CorruptFileError, ValueError, KeyError, TypeError):
            return "unknown"


def _is_ours(path: Path) -> bool:
    """Return whether a run may have written a file. A run can resume in a partly deleted folder."""
    return path.name in _CONTENTS or path.name.startswith("mlflow.db")


def _asked(cell_id: str, cell: dict[str, Any]) -> tuple[tuple[str, str], CellKey]:
    """Return the ids and the key of a cell of ``run.json``.

    Raises:
        ValueError: the id is malformed, and could lead out of the folder.
    """
    if not re.fullmatch(_CELL_ID, cell_id):
        raise ValueError(f"{cell_id!r} is not the id of a cell")
    return (cell_id, str(cell["eval_id"])), CellKey.model_validate({k: v for k, v in cell.items() if k != "eval_id"})
