"""Parameters of tasks: their models, what they refuse, and in which words."""

from __future__ import annotations

from typing import Any, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.tasks.parameters import Parameters, validated
from goalposts.benchmark.tasks.registry import make_task
from tests.small import TASKS, parameters


class Own(Parameters):
    size: int = Field(7, ge=4, le=25)
    density: float = Field(0.25, ge=0, lt=1)
    plain: bool = False
    reach: int = 3

    @model_validator(mode="after")
    def _reach_fits(self) -> Self:
        if self.reach > self.size:
            raise ValueError(f"reach={self.reach} exceeds size={self.size}; give less")
        return self


def refused(**values: Any) -> str:
    with pytest.raises(RequestError) as caught:
        validated("own", Own, values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_left_out_has_its_default() -> None:
    found = validated("own", Own, {"size": 9})
    assert found == Own(size=9, density=0.25, plain=False, reach=3)
    assert found.model_dump(exclude_unset=True) == {"size": 9}


@pytest.mark.parametrize("values", [{"size": 4}, {"size": 25}, {"density": 0.0}, {"density": 0}, {"density": 0.999}])
def test_bounds_are_taken(values: dict[str, Any]) -> None:
    assert validated("own", Own, values).model_dump().items() >= values.items()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 3}, "Task 'own' does not take size=3: Input should be greater than or equal to 4."),
        ({"size": 26}, "Task 'own' does not take size=26: Input should be less than or equal to 25."),
        ({"density": -0.1}, "Task 'own' does not take density=-0.1: Input should be greater than or equal to 0."),
        ({"density": 1.0}, "Task 'own' does not take density=1.0: Input should be less than 1."),
        ({"size": True}, "Task 'own' does not take size=True: Input should be a valid integer."),
        ({"size": 7.0}, "Task 'own' does not take size=7.0: Input should be a valid integer."),
        ({"size": "7"}, "Task 'own' does not take size='7': Input should be a valid integer."),
        ({"density": True}, "Task 'own' does not take density=True: Input should be a valid number."),
        ({"plain": 1}, "Task 'own' does not take plain=1: Input should be a valid boolean."),
        ({"size": None}, "Task 'own' does not take size=None: Input should be a valid integer."),
        ({"sise": 7}, "Unknown parameter of task 'own' 'sise'. Did you mean 'size'?"),
        ({"xyzzy": 7}, "Unknown parameter of task 'own' 'xyzzy'. Known: density, plain, reach, size."),
        (
            {"size": 5, "reach": 6},
            "Task 'own' does not take these parameters together: reach=6 exceeds size=5; give less.",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_value(values: dict[str, Any], message: str) -> None:
    assert refused(**values) == message


def test_not_a_number_is_out_of_bounds() -> None:
    assert "density=nan" in refused(density=float("nan"))


def test_they_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Own().size = 8


@pytest.mark.parametrize("task_id", sorted(TASKS))
def test_every_task_takes_its_parameters_by_name_alone(task_id: str) -> None:
    cls, given = TASKS[task_id], parameters(task_id)
    task = make_task(task_id, **given)
    assert task.parameters.model_dump(mode="json", exclude_unset=True) == given
    assert type(task.parameters) is cls.parameters_type
    with pytest.raises(TypeError):
        cls(7)
    with pytest.raises(RequestError, match=rf"Unknown parameter of task '{task_id}' 'colour'"):
        make_task(task_id, colour="red")


@pytest.mark.parametrize(
    ("task_id", "name"),
    [(task_id, name) for task_id in sorted(TASKS) for name in TASKS[task_id].parameters_type.model_fields],
)
def test_every_parameter_has_a_type_of_its_own(task_id: str, name: str) -> None:
    with pytest.raises(RequestError, match=rf"Task '{task_id}' does not take {name}=\[\]"):
        make_task(task_id, **{name: []})
