"""Results as frames and leaderboards, for notebooks: of a run and of the published records."""

from __future__ import annotations

from pathlib import Path

import pytest

from goalposts import read_leaderboard, read_records
from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.experiment.run_cell import run_cell
from goalposts.benchmark.experiment.run_folder import RunFolder
from goalposts.benchmark.experiment.suite import get_suite
from goalposts.results.leaderboard import write_leaderboard
from goalposts.results.reading import read_results
from tests.cluster.helpers import job, tiny_cell

PUBLISHED = Path(__file__).parents[2] / "results" / "published" / "quick-v1"
COLUMNS = [
    *("suite", "task", "mitigation", "alpha", "seed", "cell_id"),
    *("score", "capability", "goal_fidelity", "verdict", "env_steps"),
    *("split", "ranked", "episodes", "aligned", "proxy", "lost", "asked", "aligned_reference", "proxy_reference"),
]


def test_published_records_are_a_row_for_each_cell_and_split() -> None:
    frame = read_records(PUBLISHED)
    found = read_results(PUBLISHED).records
    assert list(frame.columns) == COLUMNS
    assert len(frame) == sum(len(record.splits) for record in found) > 0
    assert set(frame["cell_id"]) == {record.cell_id for record in found}
    rates = frame[["aligned", "proxy", "lost", "asked"]]
    assert rates.sum(axis=1).tolist() == pytest.approx([1.0] * len(frame))
    one = found[0]
    name, split = next(iter(one.splits.items()))
    row = frame[(frame["cell_id"] == one.cell_id) & (frame["split"] == name)].iloc[0]
    assert (row["aligned"], row["episodes"]) == (split.aligned / split.episodes, split.episodes)


def test_a_published_leaderboard_follows_from_its_records() -> None:
    assert read_leaderboard(PUBLISHED) == read_leaderboard(PUBLISHED / "leaderboard.json")
    assert read_leaderboard(str(PUBLISHED)).suite == "quick-v1"


def test_a_run_is_read_while_a_cell_is_missing(tmp_path: Path) -> None:
    run, cell = RunFolder(tmp_path / "out"), tiny_cell()
    with run.claimed("smoke-v1", [cell, tiny_cell(seed=1)], get_suite("smoke")):
        assert run_cell(job(cell, run.path)).status == "done"
    frame = read_records(run.path)
    assert set(frame["seed"]) == {0}
    assert set(frame["split"]) == {"in_distribution", "benign_shift", "shift/2024", "shift/2025"}
    board = read_leaderboard(run.path)
    (entry,) = board.entries
    assert (entry.mitigation, entry.complete) == ("none", False)
    write_leaderboard(run.path, board)
    assert read_leaderboard(run.path / "leaderboard.json") == board


def test_what_holds_no_results_is_refused(tmp_path: Path) -> None:
    for read in (read_records, read_leaderboard):
        with pytest.raises(RequestError):
            read(tmp_path)
    (tmp_path / "leaderboard.json").write_text("{}")
    with pytest.raises(CorruptFileError):
        read_leaderboard(tmp_path / "leaderboard.json")
