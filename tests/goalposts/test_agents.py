"""Suites, tasks and agents of one's own through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.agents import export_agent
from goalposts.benchmark.experiment.run_cell import run_cell
from goalposts.benchmark.experiment.suite import suite_toml
from tests.cluster.helpers import folder_of, job, tiny_cell, tiny_suite
from tests.goalposts.conftest import Run
from tests.goalposts.test_cli import one_line

TASK = """
from goalposts import SmallPlan
from goalposts.benchmark.tasks.fraud import Fraud

class Mine(Fraud):
    id = "mine"
    small = SmallPlan(training={"env_steps": 4096, "hidden_sizes": (8,)})
"""


@pytest.fixture(scope="module")
def cell_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, cell = tmp_path_factory.mktemp("run") / "out", tiny_cell()
    assert run_cell(job(cell, out)).status == "done"
    return folder_of(cell, out).path


@pytest.fixture
def agent(cell_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "agent.safetensors"
    export_agent(cell_folder, path)
    return path


def test_an_exported_agent_is_evaluated_to_the_counts_of_its_record(
    cell_folder: Path, tmp_path: Path, goalposts: Run
) -> None:
    path = tmp_path / "agent.safetensors"
    exported = goalposts("agent", "export", str(cell_folder), str(path))
    assert (exported.returncode, exported.stderr) == (0, "")
    assert f"evaluate fraud --agent {path}" in " ".join(exported.stdout.split())
    record = records.read(cell_folder / "record.json")
    for place in (path, cell_folder):
        result = goalposts("evaluate", "fraud", "--agent", str(place), "--json")
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout)
        assert found["equals_record"] is True
        assert found["splits"] == {name: one.model_dump(mode="json") for name, one in record.splits.items()}
        assert (found["score"], found["verdict"]) == (record.score, record.verdict)
    text = goalposts("evaluate", "fraud", "--agent", str(path))
    assert "The counts equal those of its record." in text.stdout


def test_counts_that_are_not_the_record_s_exit_with_1(cell_folder: Path, tmp_path: Path, goalposts: Run) -> None:
    record = records.read(cell_folder / "record.json")
    split = record.splits["shift/2024"]
    assert split.aligned
    altered = split.model_copy(update={"aligned": split.aligned - 1, "proxy": split.proxy + 1})
    forged = Path(shutil.copytree(cell_folder, tmp_path / "cells" / cell_folder.name))
    splits = {**record.splits, "shift/2024": altered}
    records.write(forged / "record.json", record.model_copy(update={"splits": splits}))
    path = tmp_path / "forged.safetensors"
    export_agent(forged, path)
    result = goalposts("evaluate", "fraud", "--agent", str(path))
    assert result.returncode == 1
    assert "The counts do NOT equal those of its record." in result.stdout
    assert json.loads(goalposts("evaluate", "fraud", "--agent", str(path), "--json").stdout)["equals_record"] is False


def test_other_levels_are_not_compared(agent: Path, goalposts: Run) -> None:
    result = goalposts("evaluate", "fraud", "--agent", str(agent), "--suite", "smoke", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["equals_record"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("agent", "export", "nowhere", "x.safetensors"), "nowhere"),
        (("agent", "export", "{tmp}", "x.safetensors"), "holds no finished cell"),
        (("agent", "export", "{cell}", "/proc/nowhere/x.safetensors"), "cannot be written"),
        (("agent", "export", "{cell}", "{tmp}"), "is a folder"),
        (("agent", "export", "{cell}"), "Missing argument 'FILE'"),
        (("evaluate", "fraud"), "Give either --policy module:callable or --agent FILE."),
        (("evaluate", "fraud", "--agent", "nowhere"), "There is no agent 'nowhere'"),
        (("evaluate", "fraud", "--agent", "{tmp}/text"), "holds no agent"),
        (("evaluate", "fraud", "--agent", "{agent}", "--policy", "m:f"), "Give either"),
        (("evaluate", "corner", "--agent", "{agent}"), "The agent plays 'fraud', not 'corner'; give that task."),
        (("evaluate", "fraud", "--agent", "{agent}", "--mitigation", "accel"), "was trained with 'none', not with"),
        (("run", "{tmp}/nowhere.toml"), "There is no suite file"),
        (("run", "{tmp}/text.toml"), "is not valid TOML"),
        (("run", "{tmp}/colour.toml"), "has a mistake in line 3, colour"),
        (("run", "{tmp}/task.toml", "--dry-run"), "Did you mean 'fraud'?"),
        (("run", "smoke", "--task", "{tmp}/nowhere.py:Mine"), "does not exist"),
        (("run", "smoke", "--task", "{tmp}/mine.py:Mien"), "Did you mean 'Mine'?"),
        (("suite", "show", "quik"), "Did you mean 'quick'?"),
    ],
    ids=str,
)
def test_nonsense_is_one_line(
    arguments: tuple[str, ...], message: str, cell_folder: Path, agent: Path, tmp_path: Path, goalposts: Run
) -> None:
    (tmp_path / "text").write_text("no agent")
    (tmp_path / "text.toml").write_text("no suite")
    (tmp_path / "mine.py").write_text(TASK)
    suite = suite_toml(tiny_suite().model_copy(update={"name": "mine"}))
    head, rest = suite.split("\n", 2)[:2], suite.split("\n", 2)[2]
    (tmp_path / "colour.toml").write_text("\n".join([*head, 'colour = "red"', rest]))
    (tmp_path / "task.toml").write_text(suite.replace('"fraud"', '"fruad"'))
    places = {"tmp": tmp_path, "cell": cell_folder, "agent": agent}
    assert message in one_line(goalposts(*(one.format(**places) for one in arguments)))


def planned(text: str) -> list[str]:
    """Return the cells of a dry run."""
    return [line for line in text.splitlines() if line.endswith(" steps") and "  " in line]


def test_a_suite_that_is_shown_can_be_run(tmp_path: Path, goalposts: Run) -> None:
    shown = goalposts("suite", "show", "quick")
    assert shown.returncode == 0
    path = tmp_path / "shown.toml"
    path.write_text(shown.stdout)
    part = ("--task", "fraud", "--seeds", "2", "--dry-run")
    first, second = goalposts("run", "quick", *part), goalposts("run", str(path), *part)
    assert first.returncode == second.returncode == 0
    assert len(planned(first.stdout)) == 8
    assert planned(second.stdout) == planned(first.stdout)
    own = path.read_text().replace('name = "quick"', 'name = "mine"')
    path.write_text(own)
    assert not set(planned(goalposts("run", str(path), *part).stdout)) & set(planned(first.stdout))
    path.write_text(shown.stdout.replace("seeds = 3", "seeds = 4"))
    assert "calls itself 'quick-v1', which is released with other contents" in one_line(goalposts("run", str(path)))


def test_a_task_in_a_file_joins_a_suite(tmp_path: Path, goalposts: Run) -> None:
    (tmp_path / "mine.py").write_text(TASK)
    result = goalposts("run", "smoke", "--task", f"{tmp_path / 'mine.py'}:Mine", "--mitigation", "none", "--dry-run")
    assert result.returncode == 0, result.stderr
    (line,) = planned(result.stdout)
    assert line.startswith("mine-none-a0-s0-")
    (tmp_path / "mine.py").write_text(TASK + "# changed\n")
    again = goalposts("run", "smoke", "--task", f"{tmp_path / 'mine.py'}:Mine", "--mitigation", "none", "--dry-run")
    assert planned(again.stdout) != [line]
