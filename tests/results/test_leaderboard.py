from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.suite import Suite
from goalposts.results.leaderboard import Entry, read_leaderboard, write_leaderboard
from goalposts.results.ranking import build_leaderboard
from tests.results.factory import SUITE, record, split, story, suite_of


def entries_of(records: Sequence[Record], suite: Suite = SUITE) -> dict[str, Entry]:
    return {entry.mitigation: entry for entry in build_leaderboard(suite, records).entries}


def test_ranks_the_story() -> None:
    board = build_leaderboard(SUITE, story())
    names = [entry.mitigation for entry in board.entries]
    assert names == ["domain_randomization", "accel", "goal_multi", "none"]
    assert [(entry.rank_low, entry.rank_high) for entry in board.entries] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert board.indicative
    assert board.alphas == [0.0]
    assert board.num_seeds == 3
    assert [task.ranked_shifts for task in board.tasks] == [["shift/cheese_anywhere"], ["shift/2024"]]


def test_score_is_the_mean_over_tasks_of_the_mean_over_seeds() -> None:
    scores = {("corner", 0): 10.0, ("corner", 1): 30.0, ("fraud", 0): 80.0, ("fraud", 1): 60.0}
    entry = entries_of([record(task, seed=seed, score=score) for (task, seed), score in scores.items()])["none"]
    assert entry.score is not None
    assert entry.score.mean == 45.0
    assert entry.worst_seed == 45.0
    assert entry.score_iqm == 45.0
    assert entry.seeds == 2
    assert entry.env_steps == 4 * 450_000


def test_fidelity_is_pooled_over_the_agents_that_got_somewhere() -> None:
    records = [record(seed=0, capability=0.9, fidelity=1.0), record(seed=1, capability=0.0, fidelity=0.0)]
    entry = entries_of(records)["none"]
    assert entry.capability is not None
    assert entry.capability.mean == pytest.approx(0.45)
    assert entry.goal_fidelity is not None
    assert entry.goal_fidelity.mean == 1.0
    assert entry.tasks["corner"].seeds[1].goal_fidelity is None


def test_misgeneralized_seeds_are_counted_once_over_tasks() -> None:
    entries = entries_of(story())
    assert (entries["none"].misgeneralized_seeds, entries["none"].seeds) == (3, 3)
    assert entries["domain_randomization"].misgeneralized_seeds == 0


def test_difference_to_the_baseline_is_paired() -> None:
    records = [record(mitigation="none", seed=seed, score=20.0 * seed) for seed in range(3)]
    records += [record(mitigation="accel", seed=seed, score=20.0 * seed + 5) for seed in range(3)]
    entries = entries_of(records)
    difference = entries["accel"].difference_to_baseline
    assert difference is not None
    assert (difference.mean, difference.low, difference.high) == (5.0, 5.0, 5.0)
    assert entries["none"].difference_to_baseline is None


def test_who_sends_more_seeds_makes_no_other_incomplete_and_none_of_them_counts() -> None:
    before = build_leaderboard(SUITE, story())
    more = [one for one in story(num_seeds=5) if one.cell.mitigation == "accel" and one.cell.seed >= 3]
    assert build_leaderboard(SUITE, [*story(), *more]) == before
    fewer = [one for one in story() if (one.cell.mitigation, one.cell.seed) != ("accel", 2)]
    assert [name for name, entry in entries_of(fewer).items() if not entry.complete] == ["accel"]


def test_unrated_seed_contributes_at_most_zero() -> None:
    records = [
        record(seed=0, score=80.0),
        record(seed=1, score=80.0, trained=0.3),
        record(seed=2, score=-20.0, trained=0.3),
        record(seed=3, score=-20.0),
    ]
    entry = entries_of(records, suite_of(records))["none"]
    assert [seed.counted_score for seed in entry.tasks["corner"].seeds] == [80.0, 0.0, -20.0, -20.0]
    assert [seed.score for seed in entry.tasks["corner"].seeds] == [80.0, 80.0, -20.0, -20.0]
    assert [seed.unrated for seed in entry.tasks["corner"].seeds] == [False, True, True, False]
    assert entry.score is not None
    assert entry.score.mean == 10.0
    assert entry.rated


@pytest.mark.parametrize("passing", [0, 1])
def test_untrained_entry_never_outranks_a_trained_one(passing: int) -> None:
    trained = [record(task, "none", seed, score=-60.0) for task in ("corner", "fraud") for seed in range(3)]
    random = [record("corner", "random", seed, score=90.0) for seed in range(3)]
    random += [record("fraud", "random", seed, score=90.0, trained=1.0 if seed < passing else 0.2) for seed in range(3)]
    board = build_leaderboard(SUITE, trained + random)
    first, last = board.entries
    assert first.mitigation == "none"
    assert (first.rank_low, first.rank_high) == (1, 1)
    assert not last.rated
    assert (last.rank_low, last.rank_high) == (2, 2)


def test_failed_seed_makes_the_entry_incomplete_and_unranked() -> None:
    records = [cell for cell in story() if cell.cell.mitigation != "accel" or cell.cell.seed != 1]
    records += [record(task, "accel", 1, status="failed") for task in ("corner", "fraud")]
    board = build_leaderboard(SUITE, records)
    accel = board.entries[-1]
    assert accel.mitigation == "accel"
    assert not accel.complete
    assert (accel.rank_low, accel.rank_high) == (None, None)
    assert accel.difference_to_baseline is None
    assert [(cell.task, cell.seed) for cell in accel.failed] == [("corner", 1), ("fraud", 1)]
    assert "NaN" in accel.failed[0].error
    assert [entry.rank_low for entry in board.entries[:-1]] == [1, 2, 3]


def test_missing_cell_makes_the_entry_incomplete() -> None:
    expected = [cell.cell for cell in story()]
    board = build_leaderboard(SUITE, story()[1:], expected)
    assert not board.entries[-1].complete
    assert board.entries[-1].mitigation == "none"
    assert board.entries[-1].failed[0].error == "There is no record of this cell."
    assert not entries_of(story()[1:])["none"].complete


def test_entry_without_any_result_is_listed() -> None:
    records = [
        *story(),
        *(record(task, "broken", s, status="failed") for task in ("corner", "fraud") for s in range(3)),
    ]
    entry = entries_of(records)["broken"]
    assert entry.score is None
    assert entry.seeds == 0
    assert entry.worst_seed is None
    assert len(entry.failed) == 6


def test_restricted_run_is_complete_and_leaves_out_other_records() -> None:
    expected = [cell.cell for cell in story() if cell.cell.task == "corner" and cell.cell.mitigation != "accel"]
    board = build_leaderboard(SUITE, story(), expected)
    assert [task.name for task in board.tasks] == ["corner"]
    assert [entry.mitigation for entry in board.entries] == ["domain_randomization", "goal_multi", "none"]
    assert all(entry.complete for entry in board.entries)


def test_mitigation_with_its_own_rate_stands_at_every_rate() -> None:
    suite = SUITE.model_copy(update={"alphas": (0.0, 0.1)})
    board = build_leaderboard(suite, story(alphas=(0.0, 0.1)))
    assert board.alphas == [0.0, 0.1]
    assert [(entry.alpha, entry.mitigation) for entry in board.entries] == [
        (alpha, name) for alpha in (0.0, 0.1) for name in ("domain_randomization", "accel", "goal_multi", "none")
    ]


def test_task_without_ranked_shift_is_reported_and_not_ranked() -> None:
    splits = {"in_distribution": split(0.97, 0.0), "shift/moved": split(0.5, 0.5)}
    preference = record("preference", splits=splits)
    preference = preference.model_copy(
        update={"score": None, "capability": None, "goal_fidelity": None, "verdict": None}
    )
    records = [record(score=40.0), preference]
    entry = entries_of(records, suite_of(records))["none"]
    assert entry.score is not None
    assert entry.score.mean == 40.0
    assert entry.complete
    assert entry.tasks["preference"].score is None
    assert entry.tasks["preference"].splits["shift/moved"].proxy == 0.5


def test_blind_means_told_nothing_and_chosen_on_no_shift() -> None:
    records = [record(mitigation="none"), record(mitigation="tuned", selection="validation_shift")]
    entries = entries_of([*records, record(mitigation="accel")])
    assert entries["none"].blind
    assert not entries["tuned"].blind
    assert not entries["accel"].blind


def test_trust_needs_every_record() -> None:
    mixed = [record(seed=0, trust="reproduced"), record(seed=1)]
    assert entries_of(mixed)["none"].trust == "self_reported"
    assert entries_of(mixed[:1])["none"].trust == "reproduced"


def test_rates_are_pooled_over_seeds() -> None:
    records = [record(seed=0, capability=1.0, fidelity=0.2), record(seed=1, capability=1.0, fidelity=0.4)]
    task = entries_of(records)["none"].tasks["corner"]
    pooled = task.splits["shift/cheese_anywhere"]
    assert (pooled.episodes, pooled.aligned, pooled.proxy, pooled.lost) == (2000, 0.3, 0.7, 0.0)
    assert task.in_distribution_aligned == 0.97
    assert task.verdicts == {"goal_misgeneralization": 2}


def test_refuses_to_mix_salts() -> None:
    with pytest.raises(RequestError, match="different salts"):
        build_leaderboard(SUITE, [record(seed=0), record(seed=1, salt="salt-b")])


def test_refuses_to_mix_suites() -> None:
    with pytest.raises(RequestError, match="'other-v1'"):
        build_leaderboard(SUITE, [record(), record(seed=1, suite="other-v1")])


def test_refuses_two_records_of_one_cell() -> None:
    with pytest.raises(RequestError, match="Two records"):
        build_leaderboard(SUITE, [record(), record(cell_id="another")])


def test_refuses_an_empty_leaderboard() -> None:
    with pytest.raises(RequestError, match="no record"):
        build_leaderboard(SUITE, [])


def test_file_is_byte_identical_whatever_the_order_and_timing(tmp_path: Path) -> None:
    slower = [
        cell.model_copy(update={"timing": cell.timing.model_copy(update={"wall_seconds": 99.0})})
        for cell in reversed(story())
    ]
    texts = []
    for name, records in (("a", story()), ("b", slower)):
        (tmp_path / name).mkdir()
        texts.append(write_leaderboard(tmp_path / name, build_leaderboard(SUITE, records)).read_bytes())
    assert texts[0] == texts[1]
    assert b"seconds" not in texts[0]


def test_file_round_trips(tmp_path: Path) -> None:
    board = build_leaderboard(SUITE, story())
    assert read_leaderboard(write_leaderboard(tmp_path, board)) == board


@pytest.mark.parametrize("damage", ["truncated", "text for a number", "unknown field", "missing"])
def test_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = write_leaderboard(tmp_path, build_leaderboard(SUITE, story()))
    data = json.loads(path.read_text())
    if damage == "truncated":
        path.write_text(path.read_text()[:-40])
    elif damage == "missing":
        path.unlink()
    else:
        data["entries"][0]["seeds" if damage == "text for a number" else "surprise"] = "many"
        path.write_text(json.dumps(data))
    with pytest.raises(CorruptFileError, match=r"leaderboard\.json"):
        read_leaderboard(path)


def test_a_mitigation_with_its_own_rate_has_none_before_its_first_record() -> None:
    records = [one for one in story() if one.cell.mitigation != "domain_randomization"]
    asked = [one.cell for one in story()]
    board = build_leaderboard(SUITE, records, asked, {"domain_randomization"})
    assert board.alphas == [0.0]
    assert [(entry.alpha, entry.complete) for entry in board.entries if entry.mitigation == "domain_randomization"] == [
        (0.0, False)
    ]


def test_a_pipe_is_no_leaderboard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "leaderboard.json")
    with pytest.raises(CorruptFileError, match="it is a pipe"):
        read_leaderboard(tmp_path / "leaderboard.json")
    with pytest.raises(RequestError, match="it is a pipe"):
        write_leaderboard(tmp_path, build_leaderboard(SUITE, story()))
