"""Tasks in a file of one's own: found, checked, trained and told apart when the file changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from goalposts.benchmark.errors import GoalpostsError, RequestError
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.benchmark.experiment.record import read
from goalposts.benchmark.experiment.run_cell import make_trainer, run_cell
from goalposts.benchmark.experiment.suite import Suite, small_plan
from goalposts.benchmark.measurement.certificates.classes import certify
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, salt_commitment
from goalposts.benchmark.tasks.registry import load_task, make_task
from tests.cluster.helpers import TINY, job, tiny_suite

MINE = """
from pydantic import Field
from goalposts import DecisionParameters, SmallPlan
from goalposts.benchmark.tasks.fraud import Fraud

class MineParameters(DecisionParameters):
    colour: int = Field(3, ge=1, le=5)

class Mine(Fraud):
    id = "mine"
    version = 4
    parameters_type = MineParameters
    small = SmallPlan(parameters={"queue": 6, "colour": 2}, training={"env_steps": 5000, "gamma": 0.5})
"""


def written(folder: Path, source: str = MINE) -> str:
    path = folder / "mine.py"
    path.write_text(source)
    return f"{path}:Mine"


def small_cell(reference: str) -> Cell:
    """Return the cell of a task in the tiny suite, which does not have it, shrunk to a few iterations."""
    suite: Suite = tiny_suite()
    plan = small_plan(reference).model_copy(update={"training": TINY})
    suite = suite.model_copy(update={"tasks": (plan,)})
    selection = Selection(mitigations=("none",), seeds=1)
    (cell,) = cells_of(suite, selection, device="cpu", salt_commitment=salt_commitment(PUBLIC_SALT))
    return cell


def test_a_file_s_task_is_loaded_with_its_parameters(tmp_path: Path) -> None:
    reference = written(tmp_path)
    loaded = load_task(reference)
    assert (loaded.reference, loaded.cls.id, loaded.cls.version) == (reference, "mine", 4)
    assert loaded.sha256 is not None
    task = make_task(reference, colour=5)
    assert task.parameters.model_dump(exclude_unset=True) == {"colour": 5}
    with pytest.raises(RequestError, match=r"Task 'mine' does not take colour=6: .* less than or equal to 5"):
        make_task(reference, colour=6)
    with pytest.raises(RequestError, match=r"Unknown parameter of task 'mine' 'color'\. Did you mean 'colour'"):
        make_task(reference, color=3)


def test_a_registered_task_has_no_hash() -> None:
    assert load_task("fraud").sha256 is None
    assert load_task("fraud").reference == "fraud"


def test_a_relative_path_is_found_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    reference = load_task("mine.py:Mine").reference
    monkeypatch.chdir("/")
    assert load_task(reference).cls.id == "mine"


def test_its_small_plan_trains_it_in_a_suite_that_lacks_it(tmp_path: Path) -> None:
    reference = written(tmp_path)
    selection = Selection(tasks=(reference,), mitigations=("none",))
    (cell,) = cells_of(tiny_suite(), selection, device="cpu", salt_commitment=salt_commitment(PUBLIC_SALT))
    assert (cell.key.task, cell.task) == ("mine", reference)
    assert cell.parameters == {"queue": 6, "colour": 2}
    assert (cell.training.env_steps, cell.training.gamma) == (5000, 0.5)


def test_it_certifies(tmp_path: Path) -> None:
    assert certify(make_task(written(tmp_path))).holds


def test_it_trains_to_a_record_that_names_its_files(tmp_path: Path) -> None:
    cell = small_cell(written(tmp_path))
    outcome = run_cell(job(cell, tmp_path / "run"))
    assert (outcome.status, outcome.error) == ("done", None)
    record = read(job(cell, tmp_path / "run").folder.record)
    assert record.config.task.sha256 == load_task(cell.task).sha256 == cell.task_sha256
    assert record.config.task.parameters == {"queue": 6, "colour": 2}
    assert (record.cell_id, record.config.task.version) == (cell.cell_id, 4)


def test_the_id_of_a_cell_changes_with_the_file(tmp_path: Path) -> None:
    before = small_cell(written(tmp_path))
    assert small_cell(written(tmp_path)).cell_id == before.cell_id
    after = small_cell(written(tmp_path, MINE + "# more\n"))
    assert after.task_sha256 != before.task_sha256
    assert after.cell_id != before.cell_id
    assert after.eval_id != before.eval_id
    with pytest.raises(GoalpostsError, match=r"The files of 'mine' on .* have the hash"):
        make_trainer(before)


def test_a_built_in_task_s_cell_has_no_hash() -> None:
    cell = small_cell("fraud")
    assert cell.task_sha256 is None
    assert "sha256" not in cell.config.model_dump(mode="json")["task"]
    assert dataclasses.replace(cell, task_sha256="0" * 64).cell_id != cell.cell_id


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (MINE.replace('"mine"', '"fraud"'), "Mine", "has the id 'fraud', which is registered; give it another id"),
        (MINE, "Yours", "Unknown class of '.*mine.py' 'Yours'"),
        (MINE, "MineParameters", "is not a task; subclass goalposts.Task"),
        ("number = 3\n", "number", "is not a task"),
        ("import nothing_of_the_kind\n", "Mine", "does not import"),
        ("from goalposts import Task\nclass Mine(Task):\n    id = 'mine'\n", "Mine", "lacks .*case.*; add them"),
        (MINE + "    goals = Fraud.goals[:1]\n", "Mine", r"has goals \['aligned'\]; give one aligned goal"),
    ],
)
def test_what_is_no_task_is_refused(tmp_path: Path, source: str, name: str, message: str) -> None:
    path = written(tmp_path, source).rpartition(":")[0]
    with pytest.raises(RequestError, match=message) as caught:
        load_task(f"{path}:{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reference", ["nowhere.py:Mine", "mine.py", "cornr"])
def test_what_is_not_there_is_refused(reference: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_task(reference)
    assert "\n" not in str(caught.value)


def test_two_tasks_with_one_id_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    references = written(tmp_path), written(tmp_path / "other")
    with pytest.raises(RequestError, match="Two of the tasks have the id 'mine'"):
        cells_of(tiny_suite(), Selection(tasks=references), device="cpu", salt_commitment="")
