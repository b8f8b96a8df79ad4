"""What the command line refuses before any work: numbers out of bounds, damaged files, imports that end the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.goalposts.conftest import Run
from tests.goalposts.test_cli import one_line

DEEP = "[" * 100_000
LONG = "x" * 5000
ENDS = {
    "exits.py": "import os\nos._exit(0)\n",
    "quits.py": "import sys\nsys.exit(3)\n",
    "stops.py": "raise SystemExit\n",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("levels", "corner", ""), "'.' is a folder; name the file to write."),
        (("certify", f"{LONG[:300]}.py:Mine"), "cannot be read (File name too long)"),
        (("run", "quick", "--seeds", "99999999999"), "Invalid value for '--seeds'"),
        (("run", "quick", "--checkpoint-seconds", "1e308"), "Invalid value for '--checkpoint-seconds'"),
        (("run", "quick", "--checkpoint-seconds", "nan"), "Invalid value for '--checkpoint-seconds'"),
        (("run", "quick", "--max-disk", "1e308"), "--max-disk is 1e+308"),
        (("run", "quick", "--max-disk", "nan"), "--max-disk is nan"),
        (("run", "quick", "--alpha", "nan"), "alpha is nan"),
        (("run", "quick", "--alpha", "1e308"), "alpha is 1e+308"),
        (("run", "quick", "--gpus-per-cell", "nan"), "--gpus-per-cell is nan"),
        (("run", "quick", "--gpus-per-cell", "1e308"), "--gpus-per-cell is 1e+308"),
        (("tune", "none", "--suite", "quick", "--trials", "999999999"), "Invalid value for '--trials'"),
        (("tune", "none", "--suite", "quick", "--seeds", "999999999"), "Invalid value for '--seeds'"),
        (("check", "none", "--hook-seconds", "nan"), "Invalid value for '--hook-seconds'"),
        (("certify", "corner", "--levels", "1" + "0" * 30), "Invalid value for '--levels'"),
        (("play", "corner", "--episodes", "1" + "0" * 30), "Invalid value for '--episodes'"),
        (("play", "corner", "--fps", "nan"), "frames per second is nan"),
        (("play", "corner", "--fps", "1e308"), "frames per second is 1e+308"),
        (("play", "corner", "--scale", "1" + "0" * 30), "scale is 1"),
        (("play", "corner", "--seed", "1" + "0" * 30), "Invalid value for '--seed'"),
        (("levels", "corner", "x", "--seed", "-1"), "Invalid value for '--seed'"),
        (("levels", "corner", "x", "--count", "1" + "0" * 30), "Invalid value for '--count'"),
        (("levels", "corner", "x", "--split", "train", "--alpha", "nan"), "alpha is nan"),
        (("certify", "corner", "--set", "size=1" + "0" * 30), "--set gives 'size' a number beyond 1e+18"),
        (("certify", "corner", "--set", "size=1e308"), "--set gives 'size' a number beyond 1e+18"),
        (("certify", "corner", "--set", "size=NaN"), "--set gives 'size' a number beyond 1e+18"),
        (("certify", "corner", "--set", "size=1e17"), "does not take size=1e+17: Input should be a valid integer."),
        (("certify", "corner", "--set", f"size={DEEP}"), "--set gives 'size' a text of 100,000 characters"),
        (("run", "quick", "--sedes", "3"), "Try 'goalposts run --help'."),
        (("case", "new", "--nome"), "Try 'goalposts case new --help'."),
        (("case",), "Missing command. Try 'goalposts case --help'."),
        (("rum",), "Did you mean 'run'? Try 'goalposts --help'."),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(
    arguments: tuple[str, ...], message: str, here: Path, goalposts: Run
) -> None:
    assert message in one_line(goalposts(*arguments))
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (DEEP, "recursion"),
        (json.dumps({"plan": {"name": "none", "factors": {"learning_rate": 1e308}}}), "1e+308; give 0.25 to 4"),
        (json.dumps({"plan": {"name": "none", "factors": {"clip_param": 0.4}}}), "0.4; give 0.5 to 2"),
    ],
    ids=["deep", "huge factor", "small factor"],
)
def test_a_tuned_file_that_no_study_wrote_is_refused(content: str, message: str, here: Path, goalposts: Run) -> None:
    (here / "tuned.json").write_text(content)
    refused = one_line(goalposts("run", "smoke", "--tuned", "tuned.json", "--dry-run"))
    assert "'tuned.json' is not a 'tuned.json' of 'goalposts tune'" in refused
    assert message in refused


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", LONG),
        ("run", "quick", "--mitigation", LONG),
        ("play", "corner", "--policy", LONG),
        ("play", "corner", "--split", LONG),
        ("certify", "corner", "--set", LONG),
        ("evaluate", "corner", "--policy", LONG),
        ("leaderboard", LONG),
        (LONG,),
    ],
)
def test_long_values_are_shortened(arguments: tuple[str, ...], here: Path, goalposts: Run) -> None:
    refused = one_line(goalposts(*arguments))
    assert len(refused) <= 510
    assert "…xxx" in refused
    assert "x" * 110 not in refused


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "smoke", "--dry-run", "--mitigation", "{file}"),
        ("tune", "{file}", "--suite", "quick"),
        ("certify", "{file}"),
        ("play", "{file}"),
        ("levels", "{file}", "levels"),
        ("evaluate", "corner", "--policy", "{module}"),
        ("evaluate", "{file}", "--policy", "json:dumps"),
    ],
    ids=" ".join,
)
def test_an_import_that_ends_the_process_is_an_error(
    name: str, arguments: tuple[str, ...], here: Path, goalposts: Run
) -> None:
    (here / name).write_text(ENDS[name])
    module = name.removesuffix(".py")
    given = (argument.format(file=f"{name}:Mine", module=f"{module}:mine") for argument in arguments)
    refused = one_line(goalposts(*given))
    assert "ended the process at import" in refused
    assert f"exit code {3 if name == 'quits.py' else 0}" in refused
