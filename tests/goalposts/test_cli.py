"""The command line as a user meets it: wrong requests, dry runs, lists and the README's example."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.goalposts.conftest import Run

ROOT = Path(__file__).parents[2]


def in_a_fresh_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "goalposts", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the only line of a refusal: exit code 2, nothing on standard output, no traceback."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


PLUGINS = {
    "broken.py": "import nothing_of_this_name\n",
    "other.py": "class Other:\n    pass\n",
    "greedy.py": "from goalposts import Mitigation\n\nclass Greedy(Mitigation):\n    uses = {'omniscience'}\n",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "quik"), "Unknown suite 'quik'. Did you mean 'quick'?"),
        (("run", "quick", "--task", "corne"), "Did you mean 'corner'?"),
        (("run", "quick", "--mitigation", "accell"), "Unknown mitigation 'accell'. Did you mean 'accel'?"),
        (("run", "quick", "--mitigation", "{tmp}/missing.py:Mine"), "does not exist"),
        (("run", "quick", "--mitigation", "{tmp}/broken.py:Mine"), "does not import (ModuleNotFoundError"),
        (("run", "quick", "--mitigation", "{tmp}/other.py:Othr"), "Did you mean 'Other'?"),
        (("run", "quick", "--mitigation", "{tmp}/other.py:Other"), "must be a subclass of goalposts.Mitigation"),
        (("run", "quick", "--mitigation", "{tmp}/greedy.py:Greedy"), "'omniscience' is not a valid Knowledge"),
        (("run", "quick", "--seeds", "0"), "should be greater than or equal to 1, not '0'. Try"),
        (("run", "quick", "--alpha", "2"), "in [0, 1]"),
        (("run", "quick", "--gpus-per-cell", "-1"), "--gpus-per-cell is -1.0"),
        (("run", "quick", "--out", "/proc/goalposts"), "cannot be written"),
        (("run", "quick", "--out", "{tmp}"), "holds other files"),
        (("run", "quick", "--address", "nonsense"), "malformed"),
        (("run",), "Missing argument 'SUITE'"),
        (("run", "quick", "--sedes", "3"), "No such option: --sedes"),
        (("run", "quick", "--max-disk", "-1"), "--max-disk is -1.0"),
        (("run", "coinrun-laptop", "--task", "coinrn"), "Did you mean 'coinrun'?"),
        (
            ("certify", "coinrun", "--set", "mode=medium"),
            "does not take mode='medium': Input should be 'easy' or 'hard'",
        ),
        (("play", "maze_corner", "--set", "pixels=48"), "does not take pixels=48: Input should be 64 or 32"),
        (("tune", "none", "--suite", "quik"), "Did you mean 'quick'?"),
        (("tune", "nine", "--suite", "quick"), "Did you mean 'none'?"),
        (("tune", "none", "--suite", "quick", "--task", "corne"), "Did you mean 'corner'?"),
        (("tune", "none", "--suite", "procgen", "--out", "{tmp}/out"), "Without a validation shift: heist_sprites."),
        (("leaderboard", "{tmp}"), "is not the output folder of a run"),
        (("list", "agents"), "'agents' is not one of"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path, goalposts: Run
) -> None:
    for name, source in PLUGINS.items():
        (tmp_path / name).write_text(source)
    arguments = tuple(argument.format(tmp=tmp_path) for argument in arguments)
    if arguments[0] == "run" and "--out" not in arguments:
        arguments += ("--out", str(tmp_path / "out"))
    assert message in one_line(goalposts(*arguments))
    assert not (tmp_path / "out" / "cells").exists()


def test_games_without_their_wheel_are_one_line_and_other_tasks_work(tmp_path: Path) -> None:
    (tmp_path / "procgen.py").write_text("raise ImportError('no wheel for this Python')")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    refused = one_line(in_a_fresh_process("certify", "coinrun", "--levels", "100", PYTHONPATH=paths))
    assert "need the package procgen-mirror 0.10.7, which cannot be imported (no wheel for this Python)" in refused
    played = in_a_fresh_process("play", "corner", "--episodes", "1", PYTHONPATH=paths)
    assert played.returncode == 0, played.stderr


def test_states_of_another_procgen_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "from goalposts.benchmark.tasks.procgen import state\nstate.VERSION = 1\n"
        "from goalposts.benchmark.tasks.coinrun import CoinRun\nclass Other(CoinRun):\n    id = 'other_coinrun'\n"
    )
    refused = one_line(in_a_fresh_process("play", f"{tmp_path / 'other.py'}:Other"))
    assert "serialization version 0, this Goalposts reads 1; install procgen-mirror 0.10.7" in refused


def test_a_folder_of_another_suite_is_refused(tmp_path: Path, goalposts: Run) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "run.json").write_text(json.dumps({"suite": "grid-v1", "cells": {}}))
    assert "belongs to suite 'grid-v1'" in one_line(goalposts("run", "quick", "--out", str(tmp_path)))


def test_a_short_salt_is_refused(tmp_path: Path, goalposts: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOALPOSTS_EVAL_SALT", "secret")
    result = goalposts("run", "quick", "--out", str(tmp_path / "out"))
    assert "openssl rand -hex 16" in one_line(result)


def test_a_gpu_share_without_a_gpu_is_refused(tmp_path: Path) -> None:
    arguments = ("run", "quick", "--gpus-per-cell", "0.5", "--out", str(tmp_path / "out"))
    assert "has no CUDA device" in one_line(in_a_fresh_process(*arguments, CUDA_VISIBLE_DEVICES=""))


def test_an_unreachable_ray_address_is_refused(tmp_path: Path, goalposts: Run) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        result = goalposts("run", "smoke", "--out", str(tmp_path / "out"), "--address", address)
    assert f"Ray address {address!r} cannot be reached" in one_line(result)


@pytest.mark.slow
def test_a_port_that_answers_but_is_no_ray_cluster_is_refused(tmp_path: Path, goalposts: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: [server.accept() for _ in range(1000)], daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = goalposts("run", "smoke", "--out", str(tmp_path / "out"), "--address", address)
        assert f"Ray address {address!r}" in one_line(result)


def test_dry_run_prints_the_matrix_and_writes_nothing(tmp_path: Path, goalposts: Run) -> None:
    result = goalposts("run", "quick", "--dry-run", "--out", str(tmp_path / "out"))
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert "quick-v1: 24 cells, 7,200,000 environment steps" in lines
    assert {line.split(":")[0] for line in lines if "steps at" in line} == {"corner", "fraud"}
    assert "of training on this machine" in lines[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["tasks", "mitigations", "suites"])
def test_lists_are_clean_json(what: str, goalposts: Run) -> None:
    result = goalposts("list", what, "--json")
    assert result.returncode == 0
    assert len(json.loads(result.stdout)) >= 2


def test_the_readme_shows_the_example_plugin() -> None:
    example = (ROOT / "examples" / "a_tenth.py").read_text()
    readme = (ROOT / "README.md").read_text()
    assert example.strip() in readme
    assert "<!--" not in readme


def test_the_example_plugin_is_accepted(goalposts: Run) -> None:
    plugin = f"{ROOT / 'examples' / 'a_tenth.py'}:ATenth"
    result = goalposts("run", "smoke", "--mitigation", plugin, "--task", "fraud", "--dry-run")
    assert result.returncode == 0
    assert "smoke-v1: 1 cells" in result.stdout
