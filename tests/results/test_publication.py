from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.errors import CorruptFileError
from benchmark.suites import get_suite
from results.leaderboard import build_leaderboard
from results.publication import is_published, publish, read_published
from tests.results.factory import record


def test_records_come_back_as_they_were_and_later_ones_take_their_cells(tmp_path: Path) -> None:
    folder = tmp_path / "quick-v1"
    first = [record(seed=seed, fidelity=0.2) for seed in (1, 0)]
    assert [path.name for path in publish([*first, record(seed=2, status="failed")], folder)] == ["none.jsonl"]
    assert is_published(folder)
    assert [one.cell.seed for one in read_published(folder)] == [0, 1]
    publish([record(seed=1, fidelity=0.8), record(mitigation="fails:Fails", fidelity=0.5)], folder)
    found = read_published(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["fails-Fails.jsonl", "none.jsonl"]
    assert {(one.cell.mitigation, one.cell.seed): one.goal_fidelity for one in found} == {
        ("fails:Fails", 0): 0.5,
        ("none", 0): 0.2,
        ("none", 1): 0.8,
    }
    board = build_leaderboard(get_suite("quick"), found)
    assert {entry.mitigation for entry in board.entries} == {"none", "fails:Fails"}


def test_an_altered_line_is_named(tmp_path: Path) -> None:
    (path,) = publish([record(seed=seed) for seed in (0, 1)], tmp_path)
    lines = path.read_text().splitlines()
    altered = json.loads(lines[1])
    altered["score"] = 100.0
    path.write_text("\n".join([lines[0], json.dumps(altered)]) + "\n")
    with pytest.raises(CorruptFileError, match=r"in line 2 of .*does not match its checksum"):
        read_published(tmp_path)
