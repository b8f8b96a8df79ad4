"""The evaluation plan: its id, its fields, and the salt of its levels."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.measurement.plan import (
    PUBLIC_SALT,
    SALT_VARIABLE,
    EvaluationPlan,
    evaluation_salt,
    salt_commitment,
)
from goalposts.benchmark.tasks.registry import make_task

SECRET = "0123456789abcdefABCDEF0123456789"
PLAN = EvaluationPlan(
    suite="quick-v1",
    task="corner",
    task_version=1,
    parameters={"size": 7},
    shifts=("shift/one",),
    reference_rates={"shift/one": (1.0, 0.0)},
    episodes=1000,
    milestones=2,
    gamma=0.9,
    ask_share=0.1,
    salt_commitment="0" * 64,
)
OTHERWISE: dict[str, Any] = {
    "version": 2,
    "suite": "quick-v2",
    "task": "dish",
    "task_version": 2,
    "parameters": {"size": 8},
    "shifts": ("shift/two",),
    "reference_rates": {"shift/one": (1.0, 0.5)},
    "episodes": 1001,
    "milestones": 3,
    "milestone_episodes": 201,
    "gamma": 0.99,
    "sampling": "greedy",
    "ask_share": 0.2,
    "salt_commitment": "1" * 64,
    "selects": "in_distribution",
}


@pytest.mark.parametrize("field", EvaluationPlan.model_fields)
def test_every_field_changes_the_id(field: str) -> None:
    changed = EvaluationPlan.model_validate({**PLAN.model_dump(), field: OTHERWISE[field]})
    assert changed.id != PLAN.id


def test_equal_plans_have_one_id_whatever_the_order() -> None:
    fields = PLAN.model_dump(mode="json")
    assert EvaluationPlan.model_validate(dict(reversed(fields.items()))).id == PLAN.id
    assert PLAN.id == "3f3e69b8323a3443"


@pytest.mark.parametrize(
    "changes", [{"episodes": 0}, {"gamma": 1.1}, {"ask_share": -0.1}, {"sampling": "best"}, {"colour": "red"}]
)
def test_a_plan_is_validated(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        EvaluationPlan.model_validate({**PLAN.model_dump(), **changes})


def test_a_plan_takes_from_its_task_what_was_given() -> None:
    task = make_task("corner", size=8)
    plan = EvaluationPlan.of(task, suite="tests", episodes=10, gamma=0.9, salt_commitment="")
    assert (plan.task, plan.task_version, plan.parameters) == ("corner", task.version, {"size": 8})
    assert (plan.shifts, plan.reference_rates) == (task.shifts, None)
    measured = make_task("coinrun", mode="easy")
    plan = EvaluationPlan.of(measured, suite="tests", episodes=10, gamma=0.9, salt_commitment="")
    assert plan.reference_rates == dict(measured.reference_rates)
    assert set(measured.splits) < set(plan.reference_rates)


@pytest.mark.parametrize("salt", ["", SECRET[:-1], "g" * 32, " " + SECRET])
def test_a_weak_salt_is_refused(monkeypatch: pytest.MonkeyPatch, salt: str) -> None:
    monkeypatch.setenv(SALT_VARIABLE, salt)
    with pytest.raises(RequestError, match="openssl rand") as caught:
        evaluation_salt()
    assert "\n" not in str(caught.value)
    assert not salt or salt not in str(caught.value)


@pytest.mark.parametrize("salt", [SECRET, PUBLIC_SALT])
def test_a_strong_salt_is_taken(monkeypatch: pytest.MonkeyPatch, salt: str) -> None:
    monkeypatch.setenv(SALT_VARIABLE, salt)
    assert evaluation_salt() == salt
    monkeypatch.delenv(SALT_VARIABLE)
    assert evaluation_salt() == PUBLIC_SALT


def test_commitment_names_a_salt_and_does_not_tell_it() -> None:
    # Published records carry it, so it must never change.
    assert salt_commitment(PUBLIC_SALT) == "8535050abba94684af28a8a59748c2cd97aaebe00f9209763dd7b0efd9379b79"
    assert salt_commitment(SECRET) != salt_commitment(PUBLIC_SALT)
    assert SECRET not in salt_commitment(SECRET)
