from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.suite import BASELINE, STUDIES, SUITES, Suite, get_suite
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task
from tests.small import TASKS

each_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.id)


def test_a_name_means_its_newest_version(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = get_suite("quick-v1")
    for version in (10, 9):
        newer = quick.model_copy(update={"version": version})
        monkeypatch.setitem(SUITES, newer.id, newer)
    assert get_suite("quick").version == 10
    assert get_suite("quick-v1") is quick


@pytest.mark.parametrize(("name", "near"), [("quik", "quick"), ("quick-v99", "quick-v1"), ("Quick", "quick")])
def test_an_unknown_suite_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(RequestError, match=f"suite '{name}'.*Did you mean '{near}'"):
        get_suite(name)


def test_without_a_near_name_all_are_named() -> None:
    with pytest.raises(RequestError, match=r"Known: .*quick"):
        get_suite("xyzzy")


@each_suite
def test_suites_can_be_run(suite: Suite) -> None:
    assert SUITES[suite.id] is suite
    assert suite.id == f"{suite.name}-v{suite.version}"
    assert {plan.task for plan in suite.tasks} <= set(TASKS)
    assert BASELINE in [plan.name for plan in suite.mitigations]
    assert all(0 <= alpha <= 1 for alpha in suite.alphas)
    for task in suite.tasks:
        make_task(task.task, **task.parameters)
    for plan in suite.mitigations:
        plugin = load_plugin(plan.name)
        plugin.cls(**plugin.hyperparameters(plan.hyperparameters))


def test_quick_is_frozen() -> None:
    """A change of meaning is a new version."""
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
