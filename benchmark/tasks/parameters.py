"""Parameters of tasks: one validated model per task, with bounds and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from goalposts.benchmark.errors import RequestError, unknown_name


class Parameters(BaseModel):
    """A task's own parameters. A subclass adds fields. ``Field(7, ge=4, le=25)`` sets a default and its bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


P = TypeVar("P", bound=Parameters)


def validated(task_id: str, model: type[P], values: Mapping[str, Any]) -> P:
    """Return ``values`` as the parameters of a task.

    Raises:
        RequestError: a name is unknown, or a value has the wrong type or is out of bounds.
    """
    if unknown := sorted(values.keys() - model.model_fields.keys()):
        raise unknown_name(f"parameter of task {task_id!r}", unknown[0], model.model_fields)
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        given = f"{name}={first['input']!r}" if name else "these parameters together"
        problem = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"Task {task_id!r} does not take {given}: {problem}.") from error
