from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.record import Config, Record
from goalposts.benchmark.experiment.suite import get_suite
from goalposts.benchmark.measurement import scores
from goalposts.benchmark.measurement.counts import SplitResult
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, salt_commitment
from goalposts.results.leaderboard import read_leaderboard
from goalposts.results.publication import is_published, publish, read_published
from goalposts.results.ranking import build_leaderboard
from tests.results.factory import SUITE, record, split


def honest(*args: Any, **changes: Any) -> Record:
    """Return a record with the suite's settings and budget whose figures follow from its counts."""
    made = record(*args, env_steps=401_408, **changes)
    (plan,) = (plan for plan in SUITE.tasks if plan.task == "corner")
    names = ("episodes", "milestones", "milestone_episodes", "sampling", "ask_share")
    evaluation = {
        **made.config.evaluation.model_dump(mode="json"),
        **{name: getattr(SUITE, name) for name in names},
        "parameters": plan.parameters,
    }
    config = Config.model_validate(
        {
            "task": {"version": 1, "parameters": plan.parameters},
            "training": {"version": 2, **plan.training.model_dump(mode="json")},
            "mitigation": {},
            "evaluation": evaluation,
        }
    )
    splits = {
        name: split(one.aligned / 1000, one.proxy / 1000, one.asked / 1000, one.ranked, SUITE.episodes)
        for name, one in made.splits.items()
    }
    if splits:
        splits["shift/far_corner"] = splits["shift/cheese_anywhere"]
    made = renamed(made.model_copy(update={"config": config, "splits": splits}))
    return made if made.status == "failed" else made.model_copy(update=scores.summary(made.splits))


def with_splits(made: Record, **changes: Any) -> Record:
    """Return the record with other splits, None for one left out, and the figures that follow from them."""
    splits = {name: one for name, one in {**made.splits, **changes}.items() if one is not None}
    return made.model_copy(update={"splits": splits, **scores.summary(splits)})


def renamed(made: Record) -> Record:
    """Return the record with the id that follows from its settings."""
    cell_id = records.cell_id_of(made.cell, made.config, made.plugin.sha256, made.device)
    return made.model_copy(update={"cell_id": cell_id})


def with_setting(made: Record, part: str, **changes: Any) -> Record:
    settings = getattr(made.config, part)
    changed = settings.model_validate({**settings.model_dump(mode="json"), **changes})
    return renamed(made.model_copy(update={"config": made.config.model_copy(update={part: changed})}))


def test_records_come_back_as_they_were_and_later_ones_take_their_cells(tmp_path: Path) -> None:
    folder = tmp_path / "quick-v1"
    first = [honest(seed=seed, fidelity=0.2) for seed in (1, 0)]
    written = publish([*first, honest(seed=2, status="failed")], folder, SUITE)
    assert [path.name for path in written] == ["none.jsonl", "leaderboard.json"]
    assert is_published(folder)
    assert [one.cell.seed for one in read_published(folder, SUITE)] == [0, 1]
    publish([honest(seed=1, fidelity=0.8), honest(mitigation="fails:Fails", fidelity=0.5)], folder, SUITE)
    found = read_published(folder, SUITE)
    assert sorted(path.name for path in folder.glob("*.jsonl")) == ["fails%3AFails.jsonl", "none.jsonl"]
    assert {(one.cell.mitigation, one.cell.seed): round(one.goal_fidelity or 0.0, 1) for one in found} == {
        ("fails:Fails", 0): 0.5,
        ("none", 0): 0.2,
        ("none", 1): 0.8,
    }
    board = build_leaderboard(get_suite("quick"), found)
    assert {entry.mitigation for entry in board.entries} == {"none", "fails:Fails"}
    assert board == read_leaderboard(folder / "leaderboard.json")


def test_an_altered_line_is_named(tmp_path: Path) -> None:
    path, _ = publish([honest(seed=seed) for seed in (0, 1)], tmp_path, SUITE)
    lines = path.read_text().splitlines()
    altered = json.loads(lines[1])
    altered["score"] = 100.0
    path.write_text("\n".join([lines[0], json.dumps(altered)]) + "\n")
    with pytest.raises(CorruptFileError, match=r"in line 2 of .*does not match its checksum"):
        read_published(tmp_path, SUITE)


PUBLIC = {
    "salt_commitment": salt_commitment(PUBLIC_SALT),
    "config": honest(salt=salt_commitment(PUBLIC_SALT)).config,
}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"score": 95.0}, "says score 95.0; from its counts it is 2.8"),
        ({"goal_fidelity": 1.0}, "says goal_fidelity 1.0; from its counts"),
        ({"verdict": "aligned"}, "says verdict 'aligned'; from its counts it is 'goal_misgeneralization'"),
        ({"env_steps": 10**9}, "trained for 1,000,000,000 steps; the suite's budget is"),
        ({"trust": "reproduced", **PUBLIC}, "takes a secret salt"),
        ({"cell": record("../secret").cell}, "the task '../secret', not of 'quick-v1'"),
        ({"env_steps": 0}, "trained for 0 steps; the suite's budget is 400,000"),
        ({"inapplicable": ["corner"]}, "says that its mitigation does not apply to 'corner', on which it was trained"),
        ({"fixed_rate": True}, "sets its own rate, and does not declare the knowledge 'level_generator'"),
    ],
)
def test_a_record_that_claims_what_its_counts_do_not_show_is_refused(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    forged = honest().model_copy(update=changes)
    (tmp_path / "x.jsonl").write_text(records.to_json(forged) + "\n")
    with pytest.raises(CorruptFileError) as error:
        read_published(tmp_path, SUITE)
    assert problem in str(error.value)
    assert "in line 1 of" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"aligned": 2000}, "do not add up to"),
        ({"episodes": 0}, "greater than 0"),
        ({"aligned_reference": 0.4}, "ranks shift/cheese_anywhere, against what its references say"),
        ({"ranked": False}, "does not rank shift/cheese_anywhere, against what its references say"),
        ({"aligned": 10**19}, "a number beyond 1e\\+18"),
    ],
)
def test_counts_that_cannot_be_are_one_line(tmp_path: Path, changes: dict[str, float], problem: str) -> None:
    data = json.loads(records.to_json(honest()))
    data["splits"]["shift/cheese_anywhere"].update(changes)
    data["timing"]["record_sha256"] = records._checksum(data)
    (tmp_path / "x.jsonl").write_text(records.canonical_json(data) + "\n")
    with pytest.raises(CorruptFileError, match=problem):
        read_published(tmp_path, SUITE)


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        ({"shift/far_corner": None}, "the task has benign_shift, in_distribution, shift/cheese_anywhere, shift/far"),
        ({"shift/mine": split(1.0, 0.0, ranked=True, episodes=1024)}, "has the splits .*shift/mine; the task has"),
        ({"shift/far_corner": split(1.0, 0.0, ranked=True, episodes=1)}, "has 1 episodes of shift/far_corner; the sui"),
    ],
)
def test_the_splits_are_the_task_s_and_of_the_suite_s_size(
    tmp_path: Path, splits: dict[str, SplitResult | None], problem: str
) -> None:
    with pytest.raises(CorruptFileError, match=problem):
        publish([with_splits(honest(), **splits)], tmp_path, SUITE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("plugin", "author"), "\x1b]0;owned\x07"),
        (("plugin", "paper"), "\ud800"),
        (("plugin", "paper"), "long" * 1000),
        (("cell", "mitigation"), "a|b"),
        (("cell", "mitigation"), ""),
        (("regret",), 1e308),
        (("timing", "wall_seconds"), -1.0),
        (("timing", "peak_memory_bytes"), 10**400),
        (("config",), {"task": 5}),
        (("config", "training", "gamma"), 2.0),
        (("config", "training", "colour"), "red"),
        (("machine",), 5),
    ],
)
def test_what_cannot_be_shown_or_counted_is_one_line(tmp_path: Path, path: tuple[str, ...], value: object) -> None:
    data = json.loads(records.to_json(honest()))
    place = data
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    data["timing"]["record_sha256"] = records._checksum(data)
    (tmp_path / "x.jsonl").write_text(records.canonical_json(data) + "\n")
    with pytest.raises(CorruptFileError) as error:
        read_published(tmp_path, SUITE)
    assert str(error.value).isprintable()
    assert "in line 1 of" in str(error.value)


@pytest.mark.parametrize("depth", [300, 200_000])
def test_nesting_without_end_is_one_line(tmp_path: Path, depth: int) -> None:
    line = records.to_json(honest()).replace('"mitigation":{}', '"mitigation":' + '{"a":' * depth + "1" + "}" * depth)
    (tmp_path / "x.jsonl").write_text(line + "\n")
    with pytest.raises(CorruptFileError, match=r"in line 1 of .* cannot be read"):
        read_published(tmp_path, SUITE)


def test_the_same_cell_twice_is_refused(tmp_path: Path) -> None:
    path, _ = publish([honest()], tmp_path, SUITE)
    path.write_text(path.read_text() * 2)
    with pytest.raises(CorruptFileError, match="There are two records of corner-none-"):
        read_published(tmp_path, SUITE)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"inapplicable": ["fraud"]}, "inapplicable"),
        ({"knowledge": ["planner"]}, "knowledge"),
        ({"plugin": honest().plugin.model_copy(update={"sha256": "1" * 64})}, "plugin"),
        ({"config": honest().config.model_copy(update={"mitigation": {"rate": 0.5}})}, "hyperparameters"),
    ],
)
def test_a_mitigation_s_records_are_of_one_plugin(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    """Else a record that nobody ranks, of a seed that no suite has, would change what counts of the others."""
    publish([honest()], tmp_path, SUITE)
    other = renamed(honest(seed=99).model_copy(update=changes))
    with pytest.raises(CorruptFileError, match=f"differ in {what} "):
        publish([other], tmp_path, SUITE)


TUNED = {"selection": "validation_shift", "study": "quick-v1/mine/validation_shift/0"}


@pytest.mark.parametrize(
    ("forged", "problem"),
    [
        (with_setting(honest(), "task", parameters={"size": 3}), "has task.parameters {'size': 3}; the suite has"),
        (with_setting(honest(), "training", learning_rate=0.1), "has training.learning_rate 0.1; the suite has 0.004"),
        (with_setting(honest(), "training", num_envs=512), "has rollouts of 512 × 16 steps; the suite has 4096 toge"),
        (with_setting(honest(), "evaluation", sampling="greedy"), "has evaluation.sampling 'greedy'; the suite has"),
        (with_setting(honest(), "evaluation", ask_share=1.0), "has evaluation.ask_share 1.0; the suite has 0.1"),
        (honest().model_copy(update={"cell_id": "corner-0"}), "is called 'corner-0'; by its settings it is 'corner-no"),
        (with_setting(honest(), "evaluation", suite="smoke-v1"), "has evaluation.suite 'smoke-v1'; the suite has"),
        (with_setting(honest(), "evaluation", task="fraud"), "has evaluation.task 'fraud'; the suite has 'corner'"),
        (with_setting(honest(), "evaluation", task_version=9), "has evaluation.task_version 9; the suite has 1"),
        (with_setting(honest(), "evaluation", parameters={}), "has evaluation.parameters {}; the suite has"),
        (with_setting(honest(), "evaluation", salt_commitment="x"), "has evaluation.salt_commitment 'x'; the suite"),
        (with_setting(honest(), "evaluation", selects="in_distribution"), "has evaluation.selects 'in_distribution'"),
        (honest(alpha=0.7), "has the rate 0.7; the suite has 0"),
        (honest().model_copy(update=TUNED), "has selection 'validation_shift'; the suite has 'defaults'"),
        (
            honest(mitigation="mine:Mine", selection="validation_shift"),
            "says selection 'validation_shift' and study No",
        ),
    ],
)
def test_settings_that_are_not_the_suite_s_are_refused(tmp_path: Path, forged: Record, problem: str) -> None:
    with pytest.raises(CorruptFileError) as error:
        publish([forged], tmp_path, SUITE)
    assert problem in str(error.value)


def test_a_plugin_may_have_been_tuned_and_a_rollout_may_restart(tmp_path: Path) -> None:
    mine = honest(mitigation="mine:Mine").model_copy(update=TUNED)
    tuned = with_setting(mine, "training", learning_rate=0.008, num_envs=128, num_steps=32)
    publish([tuned], tmp_path, SUITE)
    with pytest.raises(CorruptFileError, match=r"training\.learning_rate 0\.1, beyond what tuning may make"):
        publish([with_setting(mine, "training", learning_rate=0.1)], tmp_path, SUITE)
    with pytest.raises(CorruptFileError, match=r"the suite has 0\.9"):
        publish([with_setting(mine, "training", gamma=0.99)], tmp_path, SUITE)


def test_a_setting_of_zero_stays_zero_in_tuning(tmp_path: Path) -> None:
    (plan,) = (plan for plan in SUITE.tasks if plan.task == "corner")
    training = plan.training.model_copy(update={"entropy_coeff": 0.0})
    suite = SUITE.model_copy(update={"tasks": (plan.model_copy(update={"training": training}),)})
    mine = honest(mitigation="mine:Mine").model_copy(update=TUNED)
    publish([with_setting(mine, "training", entropy_coeff=0.0)], tmp_path, suite)
    with pytest.raises(CorruptFileError, match=r"training\.entropy_coeff 0\.01, beyond what tuning may make"):
        publish([with_setting(mine, "training", entropy_coeff=0.01)], tmp_path / "other", suite)


def test_what_would_be_refused_is_not_written(tmp_path: Path) -> None:
    publish([honest()], tmp_path, SUITE)
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    more = honest(seed=1)
    lower = {
        **more.splits,
        "in_distribution": more.splits["in_distribution"].model_copy(update={"aligned_reference": 0.5}),
    }
    for refused, problem in (
        (more.model_copy(update={"env_steps": 10**9}), r"of corner-.* trained for"),
        (honest(seed=1, salt="salt-b"), "different salts"),
        (more.model_copy(update={"splits": lower}), "differ in references on in_distribution"),
        (with_setting(more, "evaluation", version=2), "differ in the evaluation's version"),
    ):
        with pytest.raises((CorruptFileError, RequestError), match=problem):
            publish([refused], tmp_path, SUITE)
        assert {path: path.read_text() for path in tmp_path.iterdir()} == before
    with pytest.raises(RequestError, match="no finished record"):
        publish([honest(status="failed")], tmp_path, SUITE)


def test_mitigations_of_similar_names_have_files_of_their_own(tmp_path: Path) -> None:
    publish([honest(mitigation=name) for name in ("a:B", "a-B", "a.B")], tmp_path, SUITE)
    assert {one.cell.mitigation for one in read_published(tmp_path, SUITE)} == {"a:B", "a-B", "a.B"}


def test_a_record_replaces_the_one_in_a_file_of_another_name(tmp_path: Path) -> None:
    path, _ = publish([honest(seed=seed, fidelity=0.2) for seed in (0, 1)], tmp_path, SUITE)
    path.rename(tmp_path / "by-somebody.jsonl")
    publish([honest(seed=1, fidelity=0.8)], tmp_path, SUITE)
    found = read_published(tmp_path, SUITE)
    assert {one.cell.seed: round(one.goal_fidelity or 0.0, 1) for one in found} == {0: 0.2, 1: 0.8}
    publish([honest(seed=0, fidelity=0.8)], tmp_path, SUITE)
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["none.jsonl"]


def test_a_pipe_among_published_files_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "none.jsonl")
    with pytest.raises(CorruptFileError, match="it is a pipe"):
        read_published(tmp_path, SUITE)
