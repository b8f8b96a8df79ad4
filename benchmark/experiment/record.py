"""The record: the JSON file with one cell's result, its schema, atomic write and validated read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from goalposts.benchmark.canonical import canonical_json, content_sha256
from goalposts.benchmark.errors import CorruptFileError, first_problem
from goalposts.benchmark.files import read_regular_text, write_atomically
from goalposts.benchmark.measurement.counts import Frozen, Milestone, Sampling, SplitResult, Verdict
from goalposts.benchmark.measurement.plan import EvaluationPlan
from goalposts.benchmark.plain import NAME, fault_of
from goalposts.benchmark.training.config import TrainingConfig

MOST_BYTES = 16 * 1024 * 1024
"""Largest size of a record's file. The largest records so far have a few thousand bytes."""


class CellKey(Frozen):
    """The coordinates of a cell."""

    suite: str
    task: str
    mitigation: str = Field(pattern=NAME)
    alpha: float = Field(ge=0, le=1)
    seed: int


class Plugin(Frozen):
    """The origin of the mitigation."""

    version: str
    author: str
    licence: str
    paper: str
    sha256: str


class Commit(Frozen):
    """The state of the source tree. Null if the code runs from no repository."""

    id: str | None
    clean: bool | None


class Machine(Frozen):
    """The machine that trained. Equal code gives different results on another type of CPU."""

    processor: str
    gpu: str | None
    """The name of the GPU. Null if none was used."""


class _AsGiven(Frozen):
    """Keeps only the given fields and adds no defaults, so that the hashed content stays the same."""

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class TaskSettings(_AsGiven):
    """The task that was trained on."""

    version: int
    parameters: dict[str, Any]
    """The task's own parameters, without defaults."""
    sha256: str | None = None
    """Hash of the source files, for a task that is not built in."""


class TrainingSettings(_AsGiven, TrainingConfig):
    """The training, with the version of the trainer."""

    version: int


class Config(Frozen):
    """All settings of a cell."""

    task: TaskSettings
    training: TrainingSettings
    mitigation: dict[str, Any]
    """The hyperparameters."""
    evaluation: EvaluationPlan


class Timing(Frozen):
    """The only part of a record that may differ between equal runs."""

    wall_seconds: float | None = Field(ge=0)
    """Seconds of the training, over all attempts, and of the last evaluation. Null if unknown."""
    steps_per_second: float | None = Field(ge=0)
    """Environment steps per second of training."""
    peak_memory_bytes: int = Field(ge=0)
    """Peak of the GPU's memory if it trained on one, else of the process, which may have run other cells before."""
    record_sha256: str = ""
    """SHA-256 of the record as canonical JSON with this field empty."""


class Record(Frozen):
    """One cell's result."""

    schema_version: Literal[3] = 3
    cell: CellKey
    cell_id: str
    eval_id: str
    status: Literal["done", "failed"]
    error: str | None = None
    """Why the cell failed, in one line."""
    env_steps: int = Field(ge=0)
    device: str
    dtype: str
    knowledge: list[str]
    selection: Literal["defaults", "in_distribution", "validation_shift"]
    study: str | None = None
    """The id of the study that chose its hyperparameters. Null without tuning."""
    fixed_rate: bool
    """Whether the mitigation sets its own disambiguation rate. Its cell then counts at every rate of the suite."""
    inapplicable: list[str]
    """Tasks of the suite to which the mitigation does not apply."""
    trust: Literal["self_reported", "reproduced"]
    plugin: Plugin
    versions: dict[str, str]
    """Versions of the software on the worker that trained."""
    commit: Commit
    source_sha256: str | None
    """Hash of Goalposts' own source files on that worker. Null in records from before version 3."""
    machine: Machine | None
    """That worker. Null in records from before version 3."""
    config: Config
    salt_commitment: str
    sampling: Sampling
    splits: dict[str, SplitResult]
    series: list[Milestone] = Field(default_factory=list)
    """In the order of training, without its end. Empty if the suite has no milestones."""
    regret: float | None
    capability: float | None
    goal_fidelity: float | None
    score: float | None
    verdict: Verdict | None
    checkpoint_sha256: str | None
    timing: Timing


def _from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """Add fields that version 1 read from the installed mitigations, with their values in its suites."""
    mitigation = data["cell"]["mitigation"]
    games = ["coinrun", "maze_corner", "heist_sprites"]
    inapplicable = {
        "goal_position_randomization": ["fraud", "triage", "keys_and_chests", "monsters", "heist_sprites"],
        "plr_oracle": ["coinrun"],
        **dict.fromkeys(("accel", "accel_oracle", "accel_restricted", "proxy_adversary"), games),
    }
    return {
        "fixed_rate": mitigation == "domain_randomization",
        "inapplicable": inapplicable.get(mitigation, []),
        **data,
        "schema_version": 2,
    }


def _from_version_2(data: dict[str, Any]) -> dict[str, Any]:
    """Collect the settings of the evaluation in one plan. The machine that trained is unknown."""
    cell, config = data["cell"], data["config"]
    plan = {
        **config["evaluation"],
        "suite": cell["suite"],
        "task": cell["task"],
        "task_version": config["task"]["version"],
        "parameters": config["task"]["parameters"],
        "shifts": [name for name in data["splits"] if name.startswith("shift/")],
        "gamma": config["training"]["gamma"],
        "salt_commitment": data["salt_commitment"],
    }
    return {
        "source_sha256": None,
        "machine": None,
        **data,
        "config": {**config, "evaluation": plan},
        "schema_version": 3,
    }


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_version_1, 2: _from_version_2}
"""One function for each older schema version. It converts that version's JSON to the next version's."""


def cell_id_of(cell: CellKey, config: Config, plugin_sha256: str, device: str) -> str:
    """Return the id of a cell: a readable name that ends in a hash of everything that determines training."""
    identity = {
        "key": cell.model_dump(mode="json"),
        "config": config.model_dump(mode="json", exclude={"evaluation"}),
        "plugin": plugin_sha256,
        "device": device,
    }
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", cell.mitigation)[:40]
    return f"{cell.task}-{name}-a{cell.alpha:g}-s{cell.seed}-{content_sha256(identity)[:10]}"


def eval_id_of(cell_id: str, plan: EvaluationPlan) -> str:
    """Return the hash of everything that determines a cell's evaluation."""
    return content_sha256({"cell_id": cell_id, "plan": plan.id})[:16]


def _checksum(data: dict[str, Any]) -> str:
    return content_sha256({**data, "timing": {**data["timing"], "record_sha256": ""}})


def to_json(record: Record) -> str:
    """Return the record as one line of canonical JSON, including its checksum."""
    data = record.model_dump(mode="json")
    data["timing"]["record_sha256"] = _checksum(data)
    return canonical_json(data)


def from_json(text: str, source: str) -> Record:
    """Parse and validate one record.

    Raises:
        CorruptFileError: the text is no valid record, or does not match its checksum. The message names ``source``.
    """
    try:
        data = json.loads(text)
        if (fault := fault_of(data)) is not None:
            raise CorruptFileError(f"The record {source} cannot be read: it holds {fault}.")
        if data["timing"]["record_sha256"] != _checksum(data):
            raise CorruptFileError(f"The record {source} does not match its checksum: it was altered or damaged.")
        while (version := data["schema_version"]) in MIGRATIONS:
            data = MIGRATIONS[version](data)
        return Record.model_validate(data)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"The record {source} cannot be read: {first_problem(error)}.") from error


def write(path: Path, record: Record) -> None:
    """Write ``record`` atomically."""
    write_atomically(path, to_json(record) + "\n")


def read(path: Path) -> Record:
    """Read the record at ``path``.

    Raises:
        CorruptFileError: it is missing, truncated, altered, of an unknown form, or no regular file.
    """
    try:
        text = read_regular_text(path, MOST_BYTES)
    except (OSError, CorruptFileError) as error:
        raise CorruptFileError(f"The record {str(path)!r} cannot be read: {error}.") from error
    return from_json(text, repr(str(path)))
