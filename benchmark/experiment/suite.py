"""Suites: versioned matrices with budgets. The released ones are frozen files. Anybody may write another one."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError, field_validator

from goalposts.benchmark.errors import CorruptFileError, RequestError, first_problem, unknown_name
from goalposts.benchmark.files import read_regular_text
from goalposts.benchmark.measurement.counts import Frozen, Sampling
from goalposts.benchmark.training.config import TrainingConfig

RELEASED = Path(__file__).parent / "suites"
"""One file for each version of a released suite."""
BASELINE = "none"
"""The mitigation that all others are compared with."""
MOST_BYTES = 1024 * 1024
"""Largest size of a suite's file."""


class TaskPlan(Frozen):
    """How a suite trains one task."""

    task: str
    """An id, or ``path.py:Class``."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The task's own parameters."""
    training: TrainingConfig


Factored = Literal["learning_rate", "entropy_coeff", "clip_param"]
FACTORS: dict[Factored, tuple[float, float]] = {
    "learning_rate": (0.25, 4.0),
    "entropy_coeff": (0.1, 10.0),
    "clip_param": (0.5, 2.0),
}
"""Settings of a task's training that tuning may multiply, with the least and largest factor."""


class MitigationPlan(Frozen):
    """A mitigation, its hyperparameters that differ from the defaults, and its changes to the tasks' settings."""

    name: str
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    selection: Literal["defaults", "in_distribution", "validation_shift"] = "defaults"
    """The levels on which the hyperparameters were chosen."""
    factors: dict[Factored, float] = Field(default_factory=dict)
    """Factors that multiply each task's own settings."""
    study: str | None = None
    """The id of the study that chose them. None without tuning."""

    @field_validator("factors")
    @classmethod
    def _within_what_tuning_may_do(cls, factors: dict[Factored, float]) -> dict[Factored, float]:
        for name, factor in factors.items():
            least, most = FACTORS[name]
            if not least <= factor <= most:
                raise ValueError(f"{name} is multiplied by {factor!r}; give {least:g} to {most:g}")
        return factors


Rate = Annotated[float, Field(ge=0, le=1)]


class Suite(Frozen):
    """A versioned matrix with budgets."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    """The name without the version."""
    version: int = Field(gt=0)
    description: str
    alphas: tuple[Rate, ...] = Field(min_length=1)
    """Disambiguation rates."""
    seeds: int = Field(gt=0, le=10_000)
    """Seeds 0 to ``seeds - 1``."""
    episodes: int = Field(1024, ge=1000)
    """Evaluation episodes on each split."""
    milestones: int = Field(0, ge=0)
    """How often an agent is evaluated during its training, evenly spaced, not counting the end."""
    milestone_episodes: int = Field(200, gt=0)
    """Episodes on each split at each milestone."""
    sampling: Sampling = "sampled"
    ask_share: float = Field(0.1, ge=0, le=1)
    """Largest share of evaluation episodes in which an agent that asks for help receives it."""
    tasks: tuple[TaskPlan, ...] = Field(min_length=1)
    mitigations: tuple[MitigationPlan, ...] = Field(min_length=1)

    @property
    def id(self) -> str:
        """The public id, such as ``quick-v1``."""
        return f"{self.name}-v{self.version}"


def read_tuned(path: Path) -> MitigationPlan:
    """Return the choice of a study of hyperparameters, from the ``tuned.json`` of ``goalposts tune``.

    Raises:
        RequestError: it is not such a file.
    """
    try:
        return MitigationPlan.model_validate(json.loads(path.read_text(encoding="utf-8"))["plan"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(
            f"{str(path)!r} is not a 'tuned.json' of 'goalposts tune': {first_problem(error)}."
        ) from error


def suite_toml(suite: Suite) -> str:
    """Return a suite as the text of its file."""
    return tomli_w.dumps(suite.model_dump(mode="json", exclude_none=True))


def released_ids() -> list[str]:
    """Return the ids of the released suites, by name and version."""
    return sorted((path.stem for path in RELEASED.glob("*.toml")), key=_name_and_version)


def _name_and_version(suite_id: str) -> tuple[str, int]:
    name, _, version = suite_id.rpartition("-v")
    return name, int(version)


def get_suite(reference: str) -> Suite:
    """Return a suite.

    Args:
        reference: the id of a released suite, a name for its newest version, or the path of a ``.toml`` file.

    Raises:
        RequestError: there is no such suite, or the file does not hold a suite.
    """
    if reference.endswith(".toml"):
        return read_suite(Path(reference))
    ids = released_ids()
    if reference in ids:
        return _released(reference)
    versions = [suite_id for suite_id in ids if _name_and_version(suite_id)[0] == reference]
    if not versions:
        raise unknown_name("suite", reference, {*ids, *(_name_and_version(suite_id)[0] for suite_id in ids)})
    return _released(versions[-1])


@functools.cache
def _released(suite_id: str) -> Suite:
    return read_suite(RELEASED / f"{suite_id}.toml")


def read_suite(path: Path) -> Suite:
    """Read and validate a suite's file.

    Raises:
        RequestError: it cannot be read, or does not hold a suite. The message names the line and key of the first
            mistake. A custom suite may not have the id of a released one.
    """
    try:
        text = read_regular_text(path.resolve(), MOST_BYTES)
        suite = Suite.model_validate(tomllib.loads(text))
    except FileNotFoundError as error:
        raise RequestError(f"There is no suite file {str(path)!r}; give the path of a .toml file.") from error
    except CorruptFileError as error:
        raise RequestError(str(error)) from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise RequestError(f"The suite file {str(path)!r} {problem}; give another.") from error
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"The suite file {str(path)!r} is not valid TOML: {error}.") from error
    except RecursionError as error:
        raise RequestError(f"The suite file {str(path)!r} is nested too deeply; make it simpler.") from error
    except ValidationError as error:
        # A misspelt key is the cause of a missing one, so it comes first.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        key = ".".join(map(str, first["loc"]))
        line = line_of(text, first["loc"])
        raise RequestError(
            f"The suite file {str(path)!r} has a mistake in line {line}, {key}: {first['msg']}."
        ) from error
    if path.parent.resolve() != RELEASED.resolve():
        _check_own(suite, path)
    return suite


def _check_own(suite: Suite, path: Path) -> None:
    for kind, names in (
        ("task", [one.task for one in suite.tasks]),
        ("mitigation", [one.name for one in suite.mitigations]),
    ):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise RequestError(f"The suite file {str(path)!r} has the {kind} {twice[0]!r} twice; take one out.")
    if suite.id in released_ids() and suite != _released(suite.id):
        raise RequestError(
            f"The suite file {str(path)!r} calls itself {suite.id!r}, which is released with other contents; give it "
            "another name or version."
        )


def line_of(text: str, location: Sequence[str | int]) -> int:
    """Return the line number of a key in a TOML text, from 1. If the key is missing, it is the line of its table.

    Args:
        text: valid TOML.
        location: the path to the key: names of keys, and positions in arrays of tables.
    """
    wanted = _names(location)
    best, depth = 1, 0
    for line, names in _places(text):
        leads = all(one in (other, other.partition("[")[0]) for one, other in zip(names, wanted, strict=False))
        if leads and depth < len(names) <= len(wanted):
            best, depth = line, len(names)
    return best


def _names(location: Sequence[str | int]) -> tuple[str, ...]:
    """Return the path to a key as names: ``("tasks[1]", "training", "gamma")``."""
    names: list[str] = []
    for part in location:
        if isinstance(part, int) and names:
            names[-1] = f"{names[-1]}[{part}]"
        else:
            names.append(str(part))
    return tuple(names)


def _places(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield each line that begins a table or a key, and the path to it."""
    table: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\[\s*([^\]]+?)\s*\]\]", line):
            name = header[1]
            counts[name] = counts.get(name, -1) + 1
            table = (f"{name}[{counts[name]}]",)
        elif header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            first, *rest = header[1].split(".")
            table = (f"{first}[{counts[first]}]" if first in counts else first, *rest)
        elif key := re.match(r"\s*([A-Za-z0-9_-]+)\s*=", line):
            yield number, (*table, key[1])
            continue
        else:
            continue
        yield number, table


def small_plan(reference: str) -> TaskPlan:
    """Return a task's own small plan, which trains it in seconds.

    Raises:
        RequestError: there is no such task, or its plan is invalid.
    """
    from goalposts.benchmark.tasks.registry import load_task  # Tasks need torch, suites do not.

    loaded = load_task(reference)
    small = loaded.cls.small
    try:
        training = TrainingConfig(**{**SMALL_TRAINING, **small.training})
    except ValidationError as error:
        raise RequestError(f"Task {reference!r} has a small plan with a mistake: {first_problem(error)}.") from error
    return TaskPlan(task=loaded.reference, parameters=dict(small.parameters), training=training)


SMALL_TRAINING: Mapping[str, Any] = {
    "env_steps": 40_000,
    "num_envs": 256,
    "num_steps": 16,
    "num_epochs": 4,
    "minibatch_size": 1024,
    "learning_rate": 4e-3,
    "gamma": 0.9,
    "gae_lambda": 0.9,
    "entropy_coeff": 0.001,
    "hidden_sizes": (64, 64),
}
"""Settings that suit most small tasks. They were chosen by the success rate on training levels at rates 0 and 1."""
