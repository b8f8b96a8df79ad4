from __future__ import annotations

import io

import pytest
from rich.console import Console

from goalposts._cli.progress import RunDisplay, duration
from goalposts.cluster.driver import Progress
from tests.cluster.helpers import tiny_cell


def shown(console: Console, progress: list[Progress]) -> str:
    with RunDisplay(console) as display:
        display.update(progress)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_there_are_plain_lines() -> None:
    done = Progress(tiny_cell(), state="done", env_steps=2048)
    running = Progress(tiny_cell(seed=1), state="running", env_steps=512, steps_per_second=1000.0)
    text = shown(Console(file=io.StringIO(), width=100), [done, running])
    assert text.splitlines() == ["1/2 cells done, 1 running at 1,000 steps/s, 0:00 elapsed"]


def test_on_a_terminal_each_running_cell_has_a_row() -> None:
    running = Progress(tiny_cell("domain_randomization"), state="running", env_steps=512, steps_per_second=1000.0)
    text = shown(Console(file=io.StringIO(), width=100, force_terminal=True), [running])
    assert "fraud domain_randomization α=1 seed 0" in text
    assert "512" in text


def test_the_time_left_counts_from_the_first_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("goalposts._cli.progress.time.monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=100)
    entry = Progress(tiny_cell(), state="running", env_steps=0)
    with RunDisplay(console) as display:
        for seconds, steps in ((0.0, 0), (100.0, 48), (110.0, 1048)):
            now[0], entry.env_steps = seconds, steps
            display.update([entry])
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert ["left" in line for line in lines] == [False, False, True]
    assert lines[-1].endswith("about 0:10 left")


def test_failed_cells_are_counted() -> None:
    failed = Progress(tiny_cell(), state="failed")
    assert "1 failed" in shown(Console(file=io.StringIO(), width=100), [failed])


def test_durations_read_as_clocks() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 3600, 3725)] == ["0:00", "1:00", "1:00:00", "1:02:05"]
