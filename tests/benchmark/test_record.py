from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from goalposts.benchmark.canonical import canonical_json, content_sha256
from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.experiment.record import (
    MIGRATIONS,
    CellKey,
    Commit,
    Config,
    Machine,
    Plugin,
    Record,
    TaskSettings,
    Timing,
    TrainingSettings,
    _checksum,
    cell_id_of,
    from_json,
    read,
    to_json,
    write,
)
from goalposts.benchmark.experiment.suite import get_suite
from goalposts.benchmark.measurement.counts import SplitCounts, SplitResult
from goalposts.benchmark.measurement.plan import EvaluationPlan
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
SCHEMA_VERSION: int = Record.model_fields["schema_version"].default
RECORD = Record(
    cell=CellKey(suite="quick-v1", task="corner", mitigation="none", alpha=0.1 + 0.2, seed=0),
    cell_id="corner-none-a0-s0-0123456789",
    eval_id="0123456789abcdef",
    status="done",
    env_steps=400_000,
    device="cpu",
    dtype="bfloat16",
    knowledge=["level_generator"],
    selection="defaults",
    fixed_rate=False,
    inapplicable=[],
    trust="self_reported",
    plugin=Plugin(version="1", author="Ada Löve", licence="MIT", paper="", sha256="0" * 64),
    versions={"torch": "2.13.0"},
    commit=Commit(id=None, clean=None),
    source_sha256="1" * 64,
    machine=Machine(processor="A processor", gpu=None),
    config=Config(
        task=TaskSettings(version=1, parameters={"size": 7}),
        training=TrainingSettings(version=2, env_steps=400_000, hidden_sizes=(64, 64)),
        mitigation={},
        evaluation=EvaluationPlan(
            suite="quick-v1",
            task="corner",
            task_version=1,
            parameters={"size": 7},
            shifts=("shift/one",),
            episodes=1000,
            gamma=0.9,
            salt_commitment="0" * 64,
        ),
    ),
    salt_commitment="0" * 64,
    sampling="sampled",
    splits={
        "shift/one": SplitResult(
            episodes=1000,
            aligned=1,
            proxy=2,
            lost=997,
            asked=0,
            aligned_reference=1.0,
            proxy_reference=0.0,
            ranked=True,
        )
    },
    regret=0.1,
    capability=0.3,
    goal_fidelity=None,
    score=-1.5,
    verdict="capability_failure",
    checkpoint_sha256="0" * 64,
    timing=Timing(wall_seconds=12.5, steps_per_second=1e4, peak_memory_bytes=2**31),
)


def altered(**changes: Any) -> str:
    """Return the JSON of a record changed after it was written, its checksum left as it was."""
    return canonical_json({**json.loads(to_json(RECORD)), **changes})


def sealed(**changes: Any) -> str:
    """Return the JSON of a record of other content, its checksum right."""
    data = json.loads(altered(**changes))
    data["timing"]["record_sha256"] = _checksum(data)
    return canonical_json(data)


def test_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write(path, RECORD)
    found = read(path)
    assert found.timing.record_sha256
    assert found.model_copy(update={"timing": RECORD.timing}) == RECORD
    write(tmp_path / "again.json", found)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert [each.name for each in tmp_path.glob("*.partial")] == []


def test_is_one_line_of_canonical_json() -> None:
    text = to_json(RECORD)
    assert "\n" not in text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert json.loads(text)["splits"]["shift/one"]["aligned"] == 1


TIMING = json.loads(to_json(RECORD))["timing"]


@pytest.mark.parametrize(
    "text",
    [
        altered(score=99.0),
        altered(cell={**json.loads(to_json(RECORD))["cell"], "seed": 1}),
        altered(timing={**TIMING, "wall_seconds": 1.0}),
        altered(timing={**TIMING, "record_sha256": ""}),
        altered(note="x"),
        to_json(RECORD)[:-1],
        to_json(RECORD)[: len(to_json(RECORD)) // 2],
        to_json(RECORD).replace('"regret":0.1', '"regret":NaN'),
        "",
        "[]",
        "{}",
        "null",
        '{"timing":3}',
    ],
)
def test_an_altered_or_truncated_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(CorruptFileError, match=r"record\.json") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"record\.json"):
        read(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": SCHEMA_VERSION + 1},
        {"schema_version": 0},
        {"unknown": 1},
        {"status": "perhaps"},
        {"env_steps": -1},
        {"regret": "low"},
    ],
)
def test_an_unknown_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptFileError, match=f"here.*{next(iter(changes))}") as caught:
        from_json(sealed(**changes), "here")
    assert "\n" not in str(caught.value)


def published(mitigation: str, suite: str = "mitigations-v1") -> list[dict[str, Any]]:
    """Return the published lines of a mitigation, which were written at version 2."""
    lines = (PUBLISHED / suite / f"{mitigation}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def version_1(data: dict[str, Any]) -> str:
    """Return a line of version 2 as version 1 had it."""
    old = {name: value for name, value in data.items() if name not in ("fixed_rate", "inapplicable")}
    old["schema_version"] = 1
    old["timing"] = {**old["timing"], "record_sha256": ""}
    old["timing"]["record_sha256"] = _checksum(old)
    return canonical_json(old)


@pytest.mark.parametrize(
    ("mitigation", "fixed_rate", "inapplicable"),
    [
        ("none", False, set()),
        ("domain_randomization", True, set()),
        ("goal_position_randomization", False, {"fraud", "keys_and_chests", "monsters", "triage"}),
    ],
)
def test_version_1_knew_the_mitigations_that_came_with_it(
    mitigation: str, fixed_rate: bool, inapplicable: set[str]
) -> None:
    migrated = from_json(version_1(published(mitigation)[0]), "here")
    assert (migrated.schema_version, migrated.fixed_rate) == (SCHEMA_VERSION, fixed_rate)
    assert inapplicable <= set(migrated.inapplicable)
    cls = load_plugin(mitigation).cls
    assert fixed_rate == (cls.fixed_alpha is not None)
    tasks = {plan.task: make_task(plan.task, **plan.parameters) for plan in get_suite("tasks").tasks[:7]}
    assert inapplicable == {name for name, task in tasks.items() if cls.inapplicable(task) is not None}


@pytest.mark.parametrize("suite", sorted(path.name for path in PUBLISHED.iterdir() if path.is_dir()))
@pytest.mark.parametrize("write_old", [version_1, canonical_json], ids=["version 1", "version 2"])
def test_published_lines_keep_their_cell_ids(suite: str, write_old: Callable[[dict[str, Any]], str]) -> None:
    for path in sorted((PUBLISHED / suite).glob("*.jsonl")):
        for data in published(path.stem, suite):
            assert data["schema_version"] == 2
            migrated = from_json(write_old(data), "here")
            assert migrated.schema_version == SCHEMA_VERSION
            sha256, device = migrated.plugin.sha256, migrated.device
            assert cell_id_of(migrated.cell, migrated.config, sha256, device) == data["cell_id"] == migrated.cell_id


def test_a_migrated_record_gathers_its_evaluation_in_one_plan() -> None:
    data = published("none")[0]
    migrated = from_json(canonical_json(data), "here")
    assert (migrated.machine, migrated.source_sha256) == (None, None)
    assert migrated.config.evaluation == EvaluationPlan(
        version=1,
        suite="mitigations-v1",
        task="corner",
        task_version=1,
        parameters=data["config"]["task"]["parameters"],
        shifts=("shift/cheese_anywhere", "shift/far_corner"),
        episodes=1024,
        milestones=0,
        milestone_episodes=200,
        gamma=data["config"]["training"]["gamma"],
        sampling="sampled",
        ask_share=0.1,
        salt_commitment=data["salt_commitment"],
    )


@pytest.mark.parametrize(
    "change",
    [
        {"key": {"seed": 1}},
        {"task": {"parameters": {"size": 8}}},
        {"task": {"sha256": "2" * 64}},
        {"task": {"version": 2}},
        {"training": {"gamma": 0.5}},
        {"mitigation": {"rate": 0.5}},
        {"plugin": "2" * 64},
        {"device": "cuda"},
    ],
)
def test_what_determines_training_changes_the_cell_id(change: dict[str, Any]) -> None:
    def cell_id(change: dict[str, Any]) -> str:
        key, config = RECORD.cell.model_dump(), RECORD.config.model_dump()
        for name in ("task", "training", "mitigation"):
            config[name] = {**config[name], **change.get(name, {})}
        plugin, device = change.get("plugin", RECORD.plugin.sha256), change.get("device", RECORD.device)
        return cell_id_of(CellKey(**{**key, **change.get("key", {})}), Config(**config), plugin, device)

    assert cell_id(change) != cell_id({}) == cell_id_of(RECORD.cell, RECORD.config, RECORD.plugin.sha256, "cpu")


def test_settings_keep_what_was_given_and_add_no_defaults() -> None:
    text = json.loads(to_json(RECORD))["config"]
    assert text["task"] == {"version": 1, "parameters": {"size": 7}}
    assert text["training"] == {"version": 2, "env_steps": 400_000, "hidden_sizes": [64, 64]}


@pytest.mark.parametrize(
    "counts", [{"lost": 0}, {"lost": 10**6}, {"aligned": 2000}, {"timed_out": 900}, {"episodes": 0}]
)
def test_counts_that_do_not_add_up_are_refused(counts: dict[str, int]) -> None:
    whole = {"episodes": 1000, "aligned": 300, "proxy": 200, "lost": 400, "asked": 100, "timed_out": 400}
    assert SplitCounts(**whole)
    with pytest.raises(ValidationError):
        SplitCounts(**{**whole, **counts})


def test_an_older_form_is_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_zero(data: dict[str, Any]) -> dict[str, Any]:
        data["env_steps"] = data.pop("steps")
        return {**data, "schema_version": SCHEMA_VERSION}

    old = json.loads(sealed(schema_version=0))
    old["steps"] = old.pop("env_steps")
    old["timing"]["record_sha256"] = _checksum(old)
    monkeypatch.setitem(MIGRATIONS, 0, from_zero)
    assert from_json(canonical_json(old), "here").env_steps == RECORD.env_steps


def test_content_hash_knows_no_order() -> None:
    assert content_sha256({"a": 1, "b": [1.5, None]}) == content_sha256({"b": [1.5, None], "a": 1})
    assert content_sha256({"a": 1}) != content_sha256({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


@pytest.mark.parametrize("target", [None, "/dev/zero", "nowhere"])
def test_only_a_regular_file_is_read_as_a_record(tmp_path: Path, target: str | None) -> None:
    path = tmp_path / "record.json"
    if target is None:
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    with pytest.raises(CorruptFileError, match=r"record\.json' cannot be read: .*it is a (pipe|link)"):
        read(path)
