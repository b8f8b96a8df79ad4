"""``goalposts check``, as a lab meets it: the plugin runs in a process of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from goalposts._cli import checking
from goalposts._cli.checking import CheckReport, Finding, Watch, failure
from goalposts.benchmark.experiment.conformance import Conformance, tiny_plan
from goalposts.benchmark.plugins.registry import load_plugin
from tests.goalposts.conftest import Run

ROOT = Path(__file__).parents[2]
HEAD = """
import os, sys, time
from goalposts import Mitigation

print("a plugin may print")
"""


def faulty(folder: Path, body: str) -> str:
    path = folder / "faulty.py"
    path.write_text(f"{HEAD}\nclass Faulty(Mitigation):\n    {body}\n")
    return f"{path}:Faulty"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("def after_rollout(self, rollout):\n        while True: pass", "did not return within 2 s"),
        ("def after_rollout(self, rollout):\n        os._exit(3)", "ended the process (exit code 3)"),
        ("def after_rollout(self, rollout):\n        sys.exit()", "ended the process (exit code 0)"),
        ("def after_rollout(self, rollout):\n        rollout.nothing", "raised AttributeError: 'Rollout' object"),
    ],
    ids=["loops", "exits", "quits", "raises"],
)
def test_a_faulty_hook_is_one_line_and_exit_1(body: str, problem: str, tmp_path: Path, goalposts: Run) -> None:
    result = goalposts("check", faulty(tmp_path, body), "--task", "fraud", "--hook-seconds", "2", "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert not report["conforms"]
    (found,) = [finding for finding in report["findings"] if finding["problem"]]
    assert (found["check"], found["task"], found["device"]) == ("training", "fraud", "cpu")
    assert found["problem"].startswith("Hook 'after_rollout' of Faulty " + problem.split(":")[0])
    assert "\n" not in found["problem"]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("accell",), "Did you mean 'accel'?"),
        (("accel", "--task", "maze_corner"), "applies to none of these tasks"),
        (("{tmp}/exits.py:Mine",), "exits.py:Mine' ended the process at import (exit code 0)"),
        (("{tmp}/quits.py:Mine",), "quits.py' ended the process at import (exit code 3)"),
        (("none", "--task", "{tmp}/exits.py:Mine"), "exits.py:Mine' ended the process at import (exit code 0)"),
        (("{long}.py:Mine",), "cannot be read (File name too long)"),
        (("{tmp}/faulty.py:Faulty",), "cannot be built without arguments (ZeroDivisionError"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path, goalposts: Run
) -> None:
    faulty(tmp_path, "def __init__(self): 1 / 0")
    (tmp_path / "exits.py").write_text("import os\nos._exit(0)\n")
    (tmp_path / "quits.py").write_text("import sys\nsys.exit(3)\n")
    result = goalposts("check", *(argument.format(tmp=tmp_path, long="x" * 300) for argument in arguments))
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert [line[:7] for line in result.stderr.splitlines() if line != "a plugin may print"] == ["Error: "]


@pytest.mark.slow
def test_the_example_conforms_on_every_task(goalposts: Run) -> None:
    started = time.monotonic()
    result = goalposts("check", f"{ROOT / 'examples' / 'a_tenth.py'}:ATenth")
    assert result.returncode == 0, result.stdout
    assert "a_tenth:ATenth, version 1, told level_generator: conforms (12 tasks on cpu" in result.stdout
    assert result.stdout.count("12/12") == len(checking.CHECKS)
    assert time.monotonic() - started < 180  # A minute on two cores; tests share theirs.


def test_every_check_has_its_description() -> None:
    subject = Conformance(load_plugin("none"), tiny_plan("fraud"))
    assert [check.name for check in subject.checks()] == list(checking.CHECKS)


def watch(hook_seconds: float = 10.0) -> Watch:
    subject = Watch(CheckReport("mine.py:Mine"), hook_seconds)
    subject.take({"plugin": {"name": "mine:Mine", "class": "Mine", "version": "1", "uses": [], "hooks": []}})
    subject.take({"check": "training", "task": "fraud", "device": "cpu"})
    return subject


def test_the_inner_hook_is_named_when_the_outer_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(checking.time, "monotonic", lambda: now)
    subject = watch()
    subject.take({"enter": "sample_levels"})
    now = 0.5
    subject.take({"enter": "observe"})
    assert subject.seconds_left() == 9.5
    now = 10.0
    assert subject.seconds_left() == 0.0
    assert subject.stuck() == "Hook 'observe' of Mine did not return within 10 s."


def test_the_outer_hook_is_named_when_it_calls_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(checking.time, "monotonic", lambda: now)
    subject = watch()
    subject.take({"enter": "sample_levels"})
    for second in range(9):
        now = float(second)
        subject.take({"enter": "observe"})
        subject.take({"leave": "observe"})
    subject.take({"enter": "observe"})
    now = 10.0
    assert subject.seconds_left() == 0.0
    line = "Hook 'sample_levels' of Mine did not return within 10 s."
    assert subject.stuck() == line
    assert subject.report.findings == [Finding("training", "fraud", "cpu", line)]


def test_what_hangs_outside_of_hooks_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(checking.time, "monotonic", lambda: now)
    subject = watch()
    assert subject.seconds_left() == checking.LOAD_SECONDS
    assert "Outside of its hooks Mine made no progress" in subject.stuck()
    assert subject.lost(-9) == "The process ended (signal SIGKILL) outside of the hooks of Mine."


def test_the_hook_that_took_the_time_is_named_when_all_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(checking.time, "monotonic", lambda: now)
    subject = watch()
    while subject.seconds_left() > 0.0:
        for hook, seconds in (("observe", 0.5), ("after_rollout", 4.5)):
            subject.take({"enter": hook})
            now += seconds
            subject.take({"leave": hook})
    assert now == checking.TOTAL_SECONDS
    assert "took more than 300 s, of which 270 in its hook 'after_rollout'" in subject.stuck()


def test_an_import_that_does_not_return_is_named() -> None:
    subject = Watch(CheckReport("mine.py:Mine"), 10.0)
    subject.take({"enter": "import"})
    assert 50 < subject.seconds_left() <= checking.LOAD_SECONDS
    subject.report.ended = subject.stuck()
    assert subject.report.ended.startswith("Importing mine.py:Mine did not return within 60 s")
    assert str(failure(subject.report)) == subject.report.ended
    assert not subject.report.conforms


def test_a_report_without_findings_does_not_conform() -> None:
    assert not CheckReport("mine").conforms
    assert CheckReport("mine", findings=[Finding("seed", "fraud", "cpu", None)]).conforms
    assert not CheckReport("mine", findings=[Finding("seed", "fraud", "cpu", "It differs.")]).conforms
