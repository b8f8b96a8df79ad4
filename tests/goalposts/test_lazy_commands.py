"""The command line before a command is called: it starts at once, and imports nothing that the command alone needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from goalposts import __version__
from goalposts._cli import commands
from goalposts._cli.main import COMMANDS
from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.run_folder import RunFolder
from goalposts.benchmark.experiment.suite import get_suite, suite_toml
from goalposts.results.reading import read_results
from tests.cluster.helpers import listing

PUBLISHED = Path(__file__).parents[2] / "results" / "published" / "quick-v1"
HEAVY = {"ray", "torch", "mlflow", "optuna", "pandas", "matplotlib"}
RUN = """
import json, sys, time
from goalposts._cli.main import main

try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(json.dumps({"modules": sorted(sys.modules), "seconds": time.process_time()}))
"""


def run(*arguments: str) -> tuple[str, set[str], float]:
    """Return what a command printed, the modules it imported, and its processor time in seconds."""
    command = [sys.executable, "-c", RUN, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *lines, last = result.stdout.splitlines()
    found = json.loads(last)
    return "\n".join(lines), set(found["modules"]), found["seconds"]


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of quick-v1 that ended as published, as the driver leaves it."""
    out = tmp_path_factory.mktemp("runs") / "out"
    found = read_results(PUBLISHED).records
    cells = {}
    for record in found:
        records.write(RunFolder(out).new_cell(record.cell_id).record, record)
        cells[record.cell_id] = {"eval_id": record.eval_id, **record.cell.model_dump(mode="json")}
    (out / "run.json").write_text(json.dumps({"suite": "quick-v1", "cells": cells, "fixed_rates": []}))
    (out / "suite.toml").write_text(suite_toml(get_suite("quick")))
    return out


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "tasks"),
        ("list", "mitigations"),
        ("list", "suites"),
        ("suite", "show", "quick"),
        ("leaderboard", "{run}"),
        ("leaderboard", "{published}"),
        ("rates", "{run}"),
        ("rates", "{published}"),
        ("curves", "{run}"),
        ("curves", "{published}"),
        ("site", "{run}"),
        ("publish", "{run}", "--to", "{to}"),
    ],
    ids=" ".join,
)
def test_what_only_reads_needs_neither_ray_nor_torch(arguments: tuple[str, ...], a_run: Path, tmp_path: Path) -> None:
    places = {"run": a_run, "published": PUBLISHED, "to": tmp_path}
    text, modules, _ = run(*(argument.format(**places) for argument in arguments))
    assert text
    assert not modules & {"ray", "torch", "mlflow", "optuna"}


@pytest.mark.parametrize("command", ["leaderboard", "rates", "curves"])
def test_what_only_reads_leaves_the_folder_as_it_is(command: str, a_run: Path) -> None:
    before = listing(a_run)
    for more in ((), ("--json",)):
        run(command, str(a_run), *more)
    assert listing(a_run) == before


def heavy(modules: set[str]) -> set[str]:
    return {name for name in modules if name in HEAVY or name.startswith("goalposts._cli.commands.")}


def test_help_shows_every_command_and_imports_none() -> None:
    text, modules, seconds = run("--help")
    assert not heavy(modules)
    assert seconds < 0.5
    shown = [line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()]
    assert shown == list(COMMANDS)
    assert "Write a file of levels, to play or evaluate on exactly these." in text


def test_help_of_a_command_imports_its_module_alone() -> None:
    text, modules, _ = run("levels", "--help")
    assert heavy(modules) == {"goalposts._cli.commands.levels"}
    assert "Usage: goalposts levels" in text


def test_version_is_printed() -> None:
    text, modules, _ = run("--version")
    assert text == f"goalposts {__version__}"
    assert not heavy(modules)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_its_help_from_its_module(name: str) -> None:
    module = __import__(f"goalposts._cli.commands.{COMMANDS[name]}", fromlist=["app"])
    assert get_command(module.app).help == module.__doc__


def test_every_module_is_a_command() -> None:
    files = {path.stem for path in Path(commands.__path__[0]).glob("*.py")}
    assert files - {"__init__"} == set(COMMANDS.values())
