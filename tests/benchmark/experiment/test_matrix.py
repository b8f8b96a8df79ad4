from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.benchmark.experiment.suite import get_suite, read_tuned
from goalposts.benchmark.tasks.registry import make_task
from tests.cluster.helpers import evaluated, tiny_cell

PLUGIN = """
from goalposts import Mitigation

class Mine(Mitigation):
    def __init__(self, strength=1.0):
        pass
"""


def cells(**selection: object) -> list[Cell]:
    return cells_of(get_suite("quick"), Selection(**selection), device="cpu", salt_commitment="c")  # type: ignore[arg-type]


def test_quick_is_two_tasks_by_four_mitigations_by_three_seeds() -> None:
    ids = [cell.cell_id for cell in cells()]
    assert len(ids) == len(set(ids)) == 24


def test_an_alpha_free_mitigation_runs_once() -> None:
    many = cells(alphas=(0.0, 0.1, 1.0), seeds=1, tasks=("corner",))
    rates = {name: [c.key.alpha for c in many if c.key.mitigation == name] for name in ("none", "domain_randomization")}
    assert rates == {"none": [0.0, 0.1, 1.0], "domain_randomization": [1.0]}


def test_rollouts_that_restart_are_long_enough_for_an_episode() -> None:
    suite = get_suite("grid")
    selection = Selection(tasks=("corner",), mitigations=("none", "plr"), alphas=(0.0,), seeds=1)
    found = cells_of(suite, selection, device="cpu", salt_commitment="c")
    plain, replayed = (cell.training for name in ("none", "plr") for cell in found if cell.key.mitigation == name)
    limit = make_task("corner", **found[0].parameters).time_limit
    assert plain.num_steps < limit <= replayed.num_steps
    assert replayed.steps_per_rollout == plain.steps_per_rollout
    assert replayed.num_envs * replayed.num_steps == plain.num_envs * plain.num_steps
    short = Selection(tasks=("corner",), mitigations=("none", "plr"), alphas=(0.0,), seeds=1)
    small = cells_of(get_suite("mitigations-v1"), short, device="cpu", salt_commitment="c")
    assert len({cell.training for cell in small}) == 1


def test_the_cell_id_changes_with_what_determines_training_and_only_then() -> None:
    cell = tiny_cell()
    training = cell.training.model_copy(update={"learning_rate": 0.5})
    assert tiny_cell().cell_id == cell.cell_id
    assert tiny_cell(seed=1).cell_id != cell.cell_id
    assert dataclasses.replace(cell, training=training).cell_id != cell.cell_id
    assert dataclasses.replace(cell, device="cuda").cell_id != cell.cell_id
    salted = evaluated(cell, salt_commitment="other")
    assert (salted.cell_id, salted.eval_id != cell.eval_id) == (cell.cell_id, True)


def test_the_cell_id_changes_with_the_plugin_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    before = tiny_cell(f"{path}:Mine")
    path.write_text(PLUGIN + "# changed\n")
    after = tiny_cell(f"{path}:Mine")
    assert before.key.mitigation == after.key.mitigation == "mine:Mine"
    assert before.cell_id != after.cell_id
    assert after.hyperparameters == {"strength": 1.0}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"tasks": ("cornre",)}, "Did you mean 'corner'?"),
        ({"mitigations": ("acel",)}, "Did you mean 'accel'?"),
        ({"seeds": 0}, "give at least 1"),
        ({"alphas": (1.5,)}, "in \\[0, 1\\]"),
    ],
)
def test_a_wrong_request_says_how_to_mend_it(selection: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        cells(**selection)


def test_what_a_study_chose_takes_the_place_of_the_suite_s_plan(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    file = tmp_path / "tuned.json"
    study = {"selection": "validation_shift", "study": "quick-v1/mine:Mine/validation_shift/0"}
    plan = {"name": "mine:Mine", "hyperparameters": {"strength": 0.5}, "factors": {"learning_rate": 2.0}, **study}
    file.write_text(json.dumps({"plan": plan, "trials": 12}))
    selection = {"mitigations": ("none", f"{path}:Mine"), "tasks": ("fraud",), "seeds": 1}
    none, usual = cells(**selection)
    same, chosen = cells(**selection, tuned=(read_tuned(file),))
    assert same == none
    assert (chosen.hyperparameters, chosen.selection, chosen.study) == ({"strength": 0.5}, *study.values())
    assert chosen.training.learning_rate == 2 * usual.training.learning_rate
    with pytest.raises(RequestError, match="Tuned is 'mine:Mine', which is not among the mitigations"):
        cells(tuned=(read_tuned(file),))
    file.write_text("[]")
    with pytest.raises(RequestError, match=r"is not a 'tuned\.json' of 'goalposts tune'"):
        read_tuned(file)


def test_two_plugins_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "mine.py" for folder in ("a", "b")]
    for i, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(PLUGIN + f"# {i}\n")
    with pytest.raises(RequestError, match="same file and class name"):
        cells(mitigations=tuple(f"{path}:Mine" for path in paths), tasks=("fraud",), seeds=1)
