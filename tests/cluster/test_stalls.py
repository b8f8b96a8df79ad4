"""When a cell has stood still for too long; no clock but a fake one, and no Ray."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from goalposts.benchmark.experiment.run_cell import EVALUATES, STARTED_FILE
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
def entry(tmp_path: Path) -> Progress:
    entry = Progress(tiny_cell(), attempts=1, attempt="second")
    entry.cell.folder(tmp_path).mkdir(parents=True)
    return entry


def report(entry: Progress, out: Path, env_steps: int) -> None:
    with (entry.cell.folder(out) / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"env_steps": env_steps}) + "\n")


def begin(entry: Progress, out: Path, attempt: str) -> None:
    (entry.cell.folder(out) / STARTED_FILE).write_text(attempt)


def test_a_cell_may_wait_for_ever_for_its_turn(entry: Progress, tmp_path: Path, clock: Clock) -> None:
    begin(entry, tmp_path, "first")  # Of another run.
    for _ in range(3):
        assert not _stalled(entry, tmp_path)
        clock.now += 10 * STALL_SECONDS
    assert entry.state == "waiting"


def test_one_that_began_and_never_reports_has_stalled(entry: Progress, tmp_path: Path, clock: Clock) -> None:
    begin(entry, tmp_path, "second")
    assert not _stalled(entry, tmp_path)
    assert entry.state == "running"
    clock.now += STALL_SECONDS
    assert not _stalled(entry, tmp_path)
    clock.now += 1
    assert _stalled(entry, tmp_path)


def test_a_report_moves_it_and_tells_its_speed(entry: Progress, tmp_path: Path, clock: Clock) -> None:
    begin(entry, tmp_path, "second")
    _stalled(entry, tmp_path)
    for env_steps in (512, 1024):
        report(entry, tmp_path, env_steps)
        clock.now += STALL_SECONDS - 1
        assert not _stalled(entry, tmp_path)
    assert entry.steps_per_second == pytest.approx(512 / (STALL_SECONDS - 1))


def test_an_evaluation_may_take_longer(entry: Progress, tmp_path: Path, clock: Clock) -> None:
    begin(entry, tmp_path, f"second {EVALUATES}")
    assert not _stalled(entry, tmp_path)
    clock.now += EVALUATION_SECONDS
    assert not _stalled(entry, tmp_path)
    begin(entry, tmp_path, "second")
    assert _stalled(entry, tmp_path)
    begin(entry, tmp_path, f"second {EVALUATES}")
    clock.now += 1
    assert _stalled(entry, tmp_path)


def test_what_cannot_be_read_tells_nothing(entry: Progress, tmp_path: Path, clock: Clock) -> None:
    folder = entry.cell.folder(tmp_path)
    (folder / STARTED_FILE).write_bytes(b"second\xff")
    (folder / "metrics.jsonl").write_bytes(b'{"env_steps": 512}\n\xff\n{"env_steps": 1e999}\n')
    assert not _stalled(entry, tmp_path)
    assert (entry.state, entry.env_steps) == ("waiting", 512)
    for name in (STARTED_FILE, "metrics.jsonl"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    assert not _stalled(entry, tmp_path)
    assert entry.env_steps == 0
