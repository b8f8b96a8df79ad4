"""The commands about tasks: certify, case new, levels, evaluate, play; run in this process, which saves imports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.goalposts.conftest import Run
from tests.goalposts.test_cli import one_line

POLICIES = """
import numpy as np

def still(observations):
    return np.zeros(len(observations), dtype=np.int64)

def nan(observations):
    return np.full(len(observations), np.nan)

def wide(observations):
    return np.zeros((len(observations), 4))

number = 3
"""
TASKS_FILE = """
from goalposts.benchmark.tasks.corner import Corner

class Faulty(Corner):
    id = "faulty"

    def distinguishing(self, levels):
        return levels.bread

class Pure(Corner):
    id = "pure"
    goals = Corner.goals[:1]

class Unfinished(Corner.__mro__[1].__mro__[1]):
    id = "unfinished"
"""
SIX = ("--set", "size=6", "--set", "time_limit=12")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with policies, tasks and level files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies.py").write_text(POLICIES)
    (tmp_path / "own.py").write_text(TASKS_FILE)
    return tmp_path


def written_levels(goalposts: Run, *arguments: str) -> Path:
    path = Path("levels.safetensors").absolute()
    result = goalposts("levels", *arguments, str(path), "--count", "40")
    assert result.returncode == 0, result.stderr
    return path


def evaluate(*arguments: str) -> list[str]:
    return ["evaluate", "corner", "--policy", "policies:still", *arguments]


def test_certify_holds_and_is_clean_json(goalposts: Run) -> None:
    result = goalposts("certify", "fraud", "--json")
    assert result.returncode == 0
    (certificate,) = json.loads(result.stdout)
    assert certificate["holds"] is True
    assert certificate["certificate_class"] == "exact"
    assert all(claim["holds"] and claim["found"] for claim in certificate["claims"])


def test_a_task_that_fails_its_certificate_exits_with_1(goalposts: Run) -> None:
    result = goalposts("certify", "corner", "--set", "size=7", "--set", "time_limit=60")
    assert result.returncode == 1
    assert "certificate FAILS" in result.stdout
    assert "→ Shorten the time limit" in result.stdout


def test_a_new_case_runs_and_fails_with_messages(here: Path, goalposts: Run) -> None:
    assert goalposts("case", "new", "forest_fire").returncode == 0
    result = goalposts("certify", "forest_fire.py:ForestFire")
    assert result.returncode == 1
    assert "→ Fill in the task's Case." in result.stdout
    assert "exists already" in one_line(goalposts("case", "new", "forest_fire"))


@pytest.mark.parametrize("command", ["certify", "play"])
def test_an_exception_in_a_task_of_ones_own_is_one_line(command: str, here: Path, goalposts: Run) -> None:
    result = goalposts(command, "own.py:Faulty")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: AttributeError")
    assert "own.py, line 8" in line


def test_levels_are_written_and_evaluated_on(here: Path, goalposts: Run) -> None:
    path = written_levels(goalposts, "corner", *SIX, "--split", "shift/far_corner")
    result = goalposts(*evaluate(*SIX, "--levels", str(path), "--json"))
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found["splits"]) == ["levels"]
    assert found["splits"]["levels"]["episodes"] == 40
    assert found["splits"]["levels"]["aligned"] == 0
    assert found["splits"]["levels"]["lost"] > 30


def test_a_policy_is_evaluated_on_a_suites_levels(here: Path, goalposts: Run) -> None:
    result = goalposts("evaluate", "fraud", "--suite", "smoke", "--policy", "policies:still", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["suite"] == "smoke-v1"
    assert set(found["splits"]) == {"in_distribution", "benign_shift", "shift/2024", "shift/2025"}
    assert found["verdict"] == "undertrained"
    text = goalposts("evaluate", "fraud", "--suite", "smoke", "--policy", "policies:still")
    assert "shift/2025" in text.stdout


def test_play_takes_the_levels_of_a_file(here: Path, goalposts: Run) -> None:
    path = written_levels(goalposts, "corner", *SIX)
    result = goalposts("play", "corner", *SIX, "--levels", str(path), "--episodes", "2")
    assert result.returncode == 0
    assert result.stdout.count("outcome: aligned") == 2
    assert "levels.safetensors" in result.stdout


def test_play_prints_frames_into_a_pipe(goalposts: Run) -> None:
    result = goalposts("play", "corner", *SIX, "--episodes", "1", "--policy", "aligned")
    assert result.returncode == 0
    assert "outcome: aligned" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("certify", "cornr"), "Did you mean 'corner'?"),
        (("certify", "corner", "--set", "size=3"), "does not take size=3: Input should be greater than or equal to 4."),
        (("certify", "corner", "--set", "size=26"), "does not take size=26: Input should be less than or equal to 25."),
        (("certify", "corner", "--set", "size=big"), "does not take size='big': Input should be a valid integer."),
        (("certify", "corner", "--set", "size"), "NAME=VALUE"),
        (("certify", "corner", "--set", "color=1"), "Unknown parameter of task 'corner' 'color'"),
        (
            ("certify", "keys_and_chests", "--set", "scarce=4"),
            "does not take scarce=4: Input should be less than or equal to 3.",
        ),
        (
            ("certify", "monsters", "--set", "short=0"),
            "does not take short=0: Input should be greater than or equal to 1.",
        ),
        (
            ("certify", "convoy", "--set", "length=4"),
            "does not take length=4: Input should be greater than or equal to 16.",
        ),
        (
            ("certify", "triage", "--set", "queue=2"),
            "does not take queue=2: Input should be greater than or equal to 6.",
        ),
        (
            ("certify", "dish", "--set", "dish_channels=7"),
            "does not take dish_channels=7: Input should be less than or equal to 6.",
        ),
        (("certify", "own.py:Unfinished"), "Task 'own.py:Unfinished' lacks"),
        (("certify", "own.py:Pure"), "has goals ['aligned']"),
        (("certify", "fraud", "--suite", "nosuch"), "Unknown suite"),
        (("certify", "dish", "--suite", "quick"), "has no task 'dish'"),
        (("play", "corner", "--fps", "0.0001"), "frames per second is 0.0001"),
        (("play", "corner", "--levels", "nowhere"), "cannot be read"),
        (("levels", "corner", "/nowhere/levels"), "/nowhere/levels"),
        (("certify", "own.py:Nobody"), "Unknown class of 'own.py' 'Nobody'"),
        (("certify", "nowhere.py:Task"), "does not exist"),
        (("certify", "policies.py:np"), "is not a task"),
        (("certify", "--suite", "smok"), "Did you mean 'smoke'?"),
        (("case", "new", "Forest-Fire"), "'Forest-Fire' is not allowed"),
        (("play", "corner", "--split", "shift/nowhere"), "shift/nowhere"),
        (("play", "corner", "--policy", "clever"), "clever"),
        (("levels", "corner", "x", "--split", "shift/nowhere"), "shift/nowhere"),
        (("levels", "corner", "x", "--split", "train", "--alpha", "1.5"), "alpha is 1.5"),
        (("levels", "corner", "x", "--count", "0"), "Invalid value for '--count'"),
        (("evaluate", "corner", "--policy", "policies:stil"), "Did you mean 'still'?"),
        (("evaluate", "corner", "--policy", "polices:still"), "does not import (ModuleNotFoundError"),
        (("evaluate", "corner", "--policy", "policies"), "module:callable"),
        (("evaluate", "corner", "--policy", "policies:number"), "is a int; give a function"),
        (("evaluate", "corner", "--policy", "policies:nan", *SIX), "returned NaN"),
        (("evaluate", "corner", "--policy", "policies:wide", *SIX), "give one for each"),
        (("evaluate", "corner", "--policy", "policies:still", "--suite", "quik"), "Did you mean 'quick'?"),
        (("evaluate", "dish", "--policy", "policies:still", "--suite", "quick"), "has no task 'dish'"),
        (("evaluate", "corner", "--policy", "policies:still", "--levels", "policies.py"), "cannot be read"),
        (("evaluate", "corner", "--policy", "policies:still", "--levels", "nowhere"), "cannot be read"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(
    arguments: tuple[str, ...], message: str, here: Path, goalposts: Run
) -> None:
    assert message in one_line(goalposts(*arguments))


def test_wrong_level_files_are_refused(here: Path, goalposts: Run) -> None:
    path = written_levels(goalposts, "corner", *SIX)
    wrong_size = one_line(goalposts(*evaluate("--set", "size=7", "--levels", str(path))))
    assert "holds walls as torch.bool of shape (40, 6, 6)" in wrong_size
    too_short = one_line(goalposts(*evaluate("--set", "size=6", "--set", "time_limit=2", "--levels", str(path))))
    assert "levels that are not valid" in too_short
    other = written_levels(goalposts, "dish", *SIX)
    assert "holds levels of task 'dish', version 1, not of 'corner'" in one_line(
        goalposts(*evaluate("--levels", str(other)))
    )
    content = path.read_bytes()
    for changed in (content[:-100], content[:50], b"", content.replace(b'"version":"1"', b'"version":"9"')):
        path.write_bytes(changed)
        assert "level file" in one_line(goalposts(*evaluate(*SIX, "--levels", str(path))))
