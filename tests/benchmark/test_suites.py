from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import ValidationError

import goalposts.results
from goalposts.benchmark.canonical import content_sha256
from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment import suite as suites
from goalposts.benchmark.experiment.suite import (
    BASELINE,
    RELEASED,
    Suite,
    get_suite,
    line_of,
    read_suite,
    released_ids,
    small_plan,
    suite_toml,
)
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task
from tests.small import TASKS

STUDIES = Path(goalposts.results.__file__).with_name("studies")
CONTENTS = {
    "coinrun-laptop-v1": "0d231dc7251a4e359a092aec3b05e8ef9f5c0c95bc7017f791ec87b318a2b288",
    "coinrun-laptop-v2": "fbbbd5721ecdb4ae2d6eb34366b0ed1ef94af93682bf97fa4da80fd77615eae9",
    "grid-v1": "ebd54c44d3353725f746fadd329297b3a92844a8ba1d114a29f4cf7417755799",
    "mitigations-v1": "300968c9d9193144677daa3e396a99c6cced0079b5ecec6bd0f7da8d3e291882",
    "mitigations-v2": "e4a8a87abb97df518136ca47399958e78340d315b5ddc18605760e2021aebb7f",
    "procgen-v1": "f5e71eb175658e8441eb9a40bc8a2674b98eb7fe5af43ce46efcb006847202ed",
    "quick-v1": "c179f7a11091b53580b540c3a901f6074f416f80faf035a2f97c1eb763ed560f",
    "replay-v1": "8268382e4f371eb0a0ec0c6ecf09e85e97a2391219c5bf1169a6952848c5ec89",
    "smoke-v1": "3f428807b101ed3bf373e4f3ebe8d1c223bd65db399f2e52ac25dbcd07c4e604",
    "tasks-v1": "da6aa9a0176d01b9abf71d13fd5b0a004bcc4826ec7facc6ad57ecc021c56357",
}
"""SHA-256 of the canonical JSON of each released file. A line is added with a new suite, and never changed."""
OWN = """\
name = "own"
version = 1
description = "Mine."
alphas = [0.0, 1.0]
seeds = 2

[[tasks]]
task = "corner"

[tasks.training]
env_steps = 1000

[[tasks]]
task = "fraud"

[tasks.parameters]
queue = 6

[tasks.training]
env_steps = 2000
gamma = 0.5

[[mitigations]]
name = "none"
"""

each_suite = pytest.mark.parametrize("suite_id", released_ids())


def written(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text)
    return path


def test_every_released_suite_is_frozen() -> None:
    assert set(CONTENTS) == set(released_ids()), "add the content of a new suite to CONTENTS; a released one stays"


@each_suite
def test_a_released_suite_does_not_change(suite_id: str) -> None:
    found = content_sha256(tomllib.loads((RELEASED / f"{suite_id}.toml").read_text()))
    assert found == CONTENTS[suite_id], f"{suite_id} is released; make a new version"


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of suites that stands for the released ones."""
    for version in (1, 9, 10):
        text = suite_toml(get_suite("quick-v1").model_copy(update={"version": version}))
        (tmp_path / f"quick-v{version}.toml").write_text(text)
    monkeypatch.setattr(suites, "RELEASED", tmp_path)
    suites._released.cache_clear()
    return tmp_path


def test_a_name_means_its_newest_version(newer: Path) -> None:
    assert released_ids() == ["quick-v1", "quick-v9", "quick-v10"]
    assert get_suite("quick").version == 10
    assert get_suite("quick-v1").version == 1
    suites._released.cache_clear()


@pytest.mark.parametrize(("name", "near"), [("quik", "quick"), ("quick-v99", "quick-v1"), ("Quick", "quick")])
def test_an_unknown_suite_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(RequestError, match=f"suite '{name}'.*Did you mean '{near}'"):
        get_suite(name)


def test_without_a_near_name_all_are_named() -> None:
    with pytest.raises(RequestError, match=r"Known: .*quick"):
        get_suite("xyzzy")


@each_suite
def test_suites_can_be_run(suite_id: str) -> None:
    suite = get_suite(suite_id)
    assert suite.id == suite_id == f"{suite.name}-v{suite.version}"
    assert {plan.task for plan in suite.tasks} <= set(TASKS)
    assert BASELINE in [plan.name for plan in suite.mitigations]
    assert all(0 <= alpha <= 1 for alpha in suite.alphas)
    for task in suite.tasks:
        make_task(task.task, **task.parameters)
    for plan in suite.mitigations:
        plugin = load_plugin(plan.name)
        plugin.cls(**plugin.hyperparameters(plan.hyperparameters))


def test_quick_is_small() -> None:
    quick = get_suite("quick-v1")
    assert [plan.task for plan in quick.tasks] == ["corner", "fraud"]
    assert [plan.name for plan in quick.mitigations] == ["none", "domain_randomization", "accel", "goal_multi"]
    assert (quick.alphas, quick.seeds, quick.sampling) == ((0.0,), 3, "sampled")
    assert quick.episodes >= 1000


def test_mitigations_are_tuned_with_equal_budgets() -> None:
    before, tuned = get_suite("mitigations-v1"), get_suite("mitigations-v2")
    files = [json.loads((STUDIES / before.id / f"{plan.name}.json").read_text()) for plan in before.mitigations]
    assert {study["trials"] for study in files} == {12}
    assert [plan.model_dump(mode="json") for plan in tuned.mitigations] == [study["plan"] for study in files]
    for old, new in zip(before.mitigations, tuned.mitigations, strict=True):
        assert (new.name, new.selection) == (old.name, "validation_shift")
        assert new.study is not None
        assert new.study.startswith(f"{before.id}/{new.name}/")
    assert (tuned.tasks, tuned.alphas, tuned.seeds) == (before.tasks, before.alphas, before.seeds)


@pytest.mark.parametrize("changes", [{"seeds": 0}, {"episodes": 999}, {"version": 0}, {"colour": "red"}])
def test_a_suite_is_validated(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        Suite.model_validate({**get_suite("quick").model_dump(), **changes})


def test_a_suite_of_one_s_own_is_read(tmp_path: Path) -> None:
    suite = get_suite(str(written(tmp_path, OWN)))
    assert (suite.id, suite.episodes, suite.alphas) == ("own-v1", 1024, (0.0, 1.0))
    assert [(plan.task, plan.parameters, plan.training.env_steps) for plan in suite.tasks] == [
        ("corner", {}, 1000),
        ("fraud", {"queue": 6}, 2000),
    ]


@each_suite
def test_what_is_shown_is_read_as_the_same_suite(suite_id: str, tmp_path: Path) -> None:
    suite = get_suite(suite_id)
    assert read_suite(written(tmp_path, suite_toml(suite))) == suite


@pytest.mark.parametrize(
    ("was", "instead", "line", "key"),
    [
        ("seeds = 2", "seeds = 0", 5, "seeds: Input should be greater than 0"),
        ("seeds = 2", 'seeds = "two"', 5, "seeds: Input should be a valid integer"),
        ("seeds = 2", "seed = 2", 5, "seed: Extra inputs are not permitted"),
        ("version = 1", "version = 1\ncolour = 'red'", 3, "colour: Extra inputs are not permitted"),
        ("[0.0, 1.0]", "[0.0, 1.5]", 4, "alphas.1: Input should be less than or equal to 1"),
        ("[0.0, 1.0]", "[]", 4, "alphas: Tuple should have at least 1 item"),
        ('name = "own"', 'name = "My suite"', 1, "name: String should match pattern"),
        ("gamma = 0.5", "gamma = 1.5", 21, "tasks.1.training.gamma: Input should be less than or equal to 1"),
        ("gamma = 0.5", "gama = 0.5", 21, "tasks.1.training.gama: Extra inputs are not permitted"),
        ("env_steps = 1000", "gamma = 0.5", 10, "tasks.0.training.env_steps: Field required"),
        ('task = "fraud"\n', "", 13, "tasks.1.task: Field required"),
        ('name = "none"', 'name = "none"\nfactors = { clip_param = 9.0 }', 25, "mitigations.0.factors: .* 0.5 to 2"),
        ('name = "none"', 'name = "none"\nselection = "luck"', 25, "mitigations.0.selection: Input should be 'def"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, was: str, instead: str, line: int, key: str) -> None:
    path = written(tmp_path, OWN.replace(was, instead, 1))
    with pytest.raises(RequestError, match=rf"own\.toml' has a mistake in line {line}, {key}") as caught:
        read_suite(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.replace("seeds = 2", "seeds = "), r"is not valid TOML: .*line 5"),
        (OWN.replace('task = "fraud"', 'task = "corner"'), "has the task 'corner' twice"),
        (OWN + '[[mitigations]]\nname = "none"\n', "has the mitigation 'none' twice"),
        (OWN.replace('"own"', '"quick"'), "calls itself 'quick-v1', which is released with other contents"),
        ("x = " + "[" * 5000, "nested too deeply|is not valid TOML"),
        ("x = '" + "x" * suites.MOST_BYTES + "'", "bytes"),
    ],
)
def test_what_is_no_suite_of_one_s_own_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read_suite(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", "folder", "pipe"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "own.toml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    with pytest.raises(RequestError, match=r"own\.toml") as caught:
        read_suite(path)
    assert "\n" not in str(caught.value)


def test_a_released_suite_may_be_given_as_a_file(tmp_path: Path) -> None:
    assert read_suite(written(tmp_path, (RELEASED / "quick-v1.toml").read_text())) == get_suite("quick-v1")


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("name",), 1),
        (("tasks", 0), 7),
        (("tasks", 0, "training"), 10),
        (("tasks", 1, "training"), 19),
        (("tasks", 1, "training", "gamma"), 21),
        (("tasks", 1, "training", "nothing"), 19),
        (("nothing",), 1),
        (("mitigations", 0, "name"), 24),
        (("alphas", 1), 4),
    ],
)
def test_the_line_of_a_key(location: tuple[str | int, ...], line: int) -> None:
    assert line_of(OWN, location) == line


@pytest.mark.parametrize("task_id", sorted(TASKS))
def test_a_small_plan_is_a_plan(task_id: str) -> None:
    plan = small_plan(task_id)
    make_task(task_id, **plan.parameters)
    assert plan.task == task_id
    assert plan.training.env_steps <= 40_000
    for name, value in TASKS[task_id].small.training.items():
        assert getattr(plan.training, name) == value


def test_a_small_plan_with_a_mistake_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from goalposts.benchmark.tasks.fraud import Fraud\n"
        "from goalposts import SmallPlan\n"
        "class Mine(Fraud):\n"
        "    id = 'mine'\n"
        "    small = SmallPlan(training={'gama': 0.5})\n"
    )
    with pytest.raises(RequestError, match=r"mine\.py:Mine' has a small plan with a mistake: gama: Extra inputs"):
        small_plan(f"{path}:Mine")


def test_smoke_trains_every_tensor_task_by_its_small_plan_s_parameters() -> None:
    for plan in get_suite("smoke-v1").tasks:
        assert plan.parameters == small_plan(plan.task).parameters


def test_a_suite_without_defaults_is_written_whole(tmp_path: Path) -> None:
    """What a suite leaves at its defaults stays what it was when a default changes later."""
    shown: dict[str, Any] = tomllib.loads(suite_toml(read_suite(written(tmp_path, OWN))))
    assert shown["tasks"][0]["training"]["gae_lambda"] == 0.95
    assert tomllib.loads(tomli_w.dumps(shown)) == shown
