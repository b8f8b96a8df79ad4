"""When a cell has stood still for too long; no clock but a fake one, and no Ray."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from goalposts.benchmark.experiment.run_cell import EVALUATES
from goalposts.benchmark.experiment.run_folder import CellFolder, RunFolder
from goalposts.cluster.driver import EVALUATION_SECONDS, STALL_SECONDS, Progress, _stalled
from tests.cluster.helpers import tiny_cell


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def entry() -> Progress:
    return Progress(tiny_cell(), attempts=1, attempt="second")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def folder(entry: Progress, run: RunFolder) -> CellFolder:
    return run.new_cell(entry.cell.cell_id)


def report(folder: CellFolder, env_steps: int) -> None:
    with folder.metrics.open("a") as file:
        file.write(json.dumps({"env_steps": env_steps}) + "\n")


def test_a_cell_may_wait_for_ever(entry: Progress, run: RunFolder, folder: CellFolder, clock: Clock) -> None:
    folder.note_attempt("first")  # Of another run.
    for _ in range(3):
        assert not _stalled(entry, run)
        clock.now += 10 * STALL_SECONDS
    assert entry.state == "waiting"


def test_without_a_report_it_has_stalled(entry: Progress, run: RunFolder, folder: CellFolder, clock: Clock) -> None:
    folder.note_attempt("second")
    assert not _stalled(entry, run)
    assert entry.state == "running"
    clock.now += STALL_SECONDS
    assert not _stalled(entry, run)
    clock.now += 1
    assert _stalled(entry, run)


def test_a_report_moves_it_and_tells_speed(entry: Progress, run: RunFolder, folder: CellFolder, clock: Clock) -> None:
    folder.note_attempt("second")
    _stalled(entry, run)
    for env_steps in (512, 1024):
        report(folder, env_steps)
        clock.now += STALL_SECONDS - 1
        assert not _stalled(entry, run)
    assert entry.steps_per_second == pytest.approx(512 / (STALL_SECONDS - 1))


def test_an_evaluation_may_take_longer(entry: Progress, run: RunFolder, folder: CellFolder, clock: Clock) -> None:
    folder.note_attempt("second", EVALUATES)
    assert not _stalled(entry, run)
    clock.now += EVALUATION_SECONDS
    assert not _stalled(entry, run)
    folder.note_attempt("second")
    assert _stalled(entry, run)
    folder.note_attempt("second", EVALUATES)
    clock.now += 1
    assert _stalled(entry, run)


def test_what_cannot_be_read_tells_nothing(entry: Progress, run: RunFolder, folder: CellFolder, clock: Clock) -> None:
    started = folder.path / "started"
    started.write_bytes(b"second\xff")
    folder.metrics.write_bytes(b'{"env_steps": 512}\n\xff\n{"env_steps": 1e999}\n')
    assert not _stalled(entry, run)
    assert (entry.state, entry.env_steps) == ("waiting", 512)
    for path in (started, folder.metrics):
        path.unlink()
        os.mkfifo(path)
    assert not _stalled(entry, run)
    assert entry.env_steps == 0
