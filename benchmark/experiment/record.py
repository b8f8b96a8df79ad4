"""The record: the JSON file that keeps one cell's result, its schema, atomic write and validated read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from goalposts.benchmark.errors import CorruptFileError, first_problem
from goalposts.benchmark.files import read_regular_text, write_atomically
from goalposts.benchmark.plain import NAME, fault_of

SCHEMA_VERSION = 2
MOST_BYTES = 4 << 20
"""Of a record that is read."""

Verdict = Literal["aligned", "goal_misgeneralization", "capability_failure", "undertrained", "inconclusive"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CellKey(_Model):
    """What a cell is."""

    suite: str
    task: str
    mitigation: str = Field(pattern=NAME)
    alpha: float = Field(ge=0, le=1)
    seed: int


class Plugin(_Model):
    """Where the mitigation came from."""

    version: str
    author: str
    licence: str
    paper: str
    sha256: str


class Commit(_Model):
    """The state of the source tree; null where the code runs from no repository."""

    id: str | None
    clean: bool | None


class SplitCounts(_Model):
    """Counts of outcomes on one split."""

    episodes: int = Field(gt=0)
    aligned: int = Field(ge=0)
    proxy: int = Field(ge=0)
    lost: int = Field(ge=0)
    asked: int = Field(ge=0)
    timed_out: int | None = Field(None, ge=0)
    """Of the lost episodes, those that the time limit ended; the others died. Null in records from before."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.aligned + self.proxy + self.lost + self.asked != self.episodes or (self.timed_out or 0) > self.lost:
            raise ValueError(
                f"{self.aligned} aligned, {self.proxy} proxy, {self.lost} lost ({self.timed_out} timed out) and "
                f"{self.asked} asked do not add up to {self.episodes} episodes"
            )
        return self


class SplitResult(SplitCounts):
    """Counts of outcomes on one split, with the rates of the reference policies on the same levels."""

    aligned_reference: float = Field(ge=0, le=1)
    """Aligned rate of the aligned reference policy."""
    proxy_reference: float = Field(ge=0, le=1)
    """Aligned rate of the proxy reference policy."""
    ranked: bool
    """Whether the references are far enough apart for the split to count."""


class Milestone(_Model):
    """What the agent was like in the course of its training."""

    env_steps: int = Field(gt=0)
    splits: dict[str, SplitCounts]
    """On the first levels of each split alone."""


class Timing(_Model):
    """The only part of a record that may differ between equal runs."""

    wall_seconds: float | None = Field(ge=0)
    """Of the training, over all attempts, and of the last evaluation; null where it is not known."""
    steps_per_second: float | None = Field(ge=0)
    """Of the training."""
    peak_memory_bytes: int = Field(ge=0)
    """Of the GPU's memory where it trained on one, else of the process, which may have run other cells before."""
    record_sha256: str = ""
    """SHA-256 of the record as canonical JSON with this field empty."""


class Record(_Model):
    """One cell's result."""

    schema_version: Literal[2] = 2
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
    """The id of the study that chose its hyperparameters; null where nobody tuned them."""
    fixed_rate: bool
    """Whether the mitigation sets its own disambiguation rate, so that its cell stands at every rate of the suite."""
    inapplicable: list[str]
    """Tasks of the suite to which the mitigation does not apply."""
    trust: Literal["self_reported", "reproduced"]
    plugin: Plugin
    versions: dict[str, str]
    commit: Commit
    config: dict[str, Any]
    salt_commitment: str
    sampling: Literal["sampled", "greedy"]
    splits: dict[str, SplitResult]
    series: list[Milestone] = []
    """In the order of training, without its end; empty where the suite asks for none."""
    regret: float | None
    capability: float | None
    goal_fidelity: float | None
    score: float | None
    verdict: Verdict | None
    checkpoint_sha256: str | None
    timing: Timing


def _from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """Add what version 1 left to the installed mitigations to say, as it was of those in its suites."""
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


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_version_1}
"""One function for each older schema version, which turns its JSON into that of the next."""


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_sha256(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def cell_id_of(cell: CellKey, config: dict[str, Any], plugin_sha256: str, device: str) -> str:
    """Return the id of a cell: a readable name that ends in a hash of all that determines training."""
    identity = {
        "key": cell.model_dump(mode="json"),
        "config": {name: value for name, value in config.items() if name != "evaluation"},
        "plugin": plugin_sha256,
        "device": device,
    }
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", cell.mitigation)[:40]
    return f"{cell.task}-{name}-a{cell.alpha:g}-s{cell.seed}-{content_sha256(identity)[:10]}"


def _checksum(data: dict[str, Any]) -> str:
    return content_sha256({**data, "timing": {**data["timing"], "record_sha256": ""}})


def to_json(record: Record) -> str:
    """Return the record as one line of canonical JSON, its checksum filled in."""
    data = record.model_dump(mode="json")
    data["timing"]["record_sha256"] = _checksum(data)
    return canonical_json(data)


def from_json(text: str, source: str) -> Record:
    """Parse and validate one record.

    Raises:
        CorruptFileError: the text is no valid record, or does not match its checksum; ``source`` is named.
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
