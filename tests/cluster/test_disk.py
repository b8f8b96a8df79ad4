from __future__ import annotations

import os
from pathlib import Path

import pytest

from goalposts.benchmark.experiment.run_folder import CellFolder, RunFolder
from goalposts.cluster.disk import DiskFullError, make_room, used_bytes


def cell(out: Path, name: str, *, finished_at: int) -> CellFolder:
    """Write a finished cell of 100 bytes, 60 of them in its checkpoint."""
    folder = RunFolder(out).new_cell(name)
    folder.checkpoint.mkdir()
    (folder.checkpoint / "state.safetensors").write_bytes(b"w" * 60)
    folder.record.write_bytes(b"r" * 40)
    os.utime(folder.record, (finished_at, finished_at))
    return folder


def test_checkpoints_of_the_cells_that_finished_first_are_deleted_until_the_folder_fits(tmp_path: Path) -> None:
    late, early = cell(tmp_path, "late", finished_at=200), cell(tmp_path, "early", finished_at=100)
    running = cell(tmp_path, "running", finished_at=50)
    assert used_bytes(tmp_path) == 300
    assert make_room(tmp_path, [late, early], 300) == []
    assert make_room(tmp_path, [late, early], 240) == ["early"]
    assert used_bytes(tmp_path) == 240
    assert early.record.exists()
    assert late.checkpoint.exists()
    assert make_room(tmp_path, [late, early], 239) == ["late"]
    assert running.checkpoint.exists()


def test_a_folder_that_cannot_be_made_to_fit_ends_the_run_in_one_line(tmp_path: Path) -> None:
    folder = cell(tmp_path, "one", finished_at=100)
    with pytest.raises(DiskFullError, match="--max-disk") as caught:
        make_room(tmp_path, [folder], 39)
    assert "\n" not in str(caught.value)
    assert folder.record.exists()
