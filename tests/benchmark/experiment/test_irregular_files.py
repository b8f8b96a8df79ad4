"""A cell's folder may hold bytes that cannot be read, links and pipes: none is followed, and none ends a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

from goalposts.benchmark.experiment.run_cell import finished_record, run_cell
from goalposts.benchmark.experiment.run_folder import RunFolder
from tests.cluster.helpers import STOPS_ONCE, folder_of, job, tiny_cell


def test_rows_that_cannot_be_read_are_dropped_when_a_cell_goes_on(tmp_path: Path) -> None:
    plugin = tmp_path / "stops.py"
    plugin.write_text(STOPS_ONCE)
    cell = tiny_cell(f"{plugin}:Stops")
    assert run_cell(job(cell, tmp_path)).status == "failed"
    folder = folder_of(cell, tmp_path)
    with folder.metrics.open("ab") as file:
        file.write(b'\xff\n{"env_steps": 1}\n')
    folder.milestones(cell.eval_id).write_bytes(b"\xff")
    assert run_cell(job(cell, tmp_path)).status == "done"
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == [512, 1024, 1536, 2048]


def test_what_is_no_regular_file_is_set_aside_from_a_cell(tmp_path: Path) -> None:
    cell = tiny_cell()
    folder = RunFolder(tmp_path).new_cell(cell.cell_id)
    os.mkfifo(folder.record)
    (tmp_path / "victim").write_text("victim")
    folder.metrics.symlink_to(tmp_path / "victim")
    found, notice = finished_record(cell, RunFolder(tmp_path))
    assert found is None
    assert "it is a pipe" in str(notice)
    assert run_cell(job(cell, tmp_path)).status == "done"
    assert finished_record(cell, RunFolder(tmp_path))[0] is not None
    assert (tmp_path / "victim").read_text() == "victim"
    assert (folder.path / "metrics.jsonl.corrupt-1").is_symlink()


def test_a_record_that_links_to_no_file_is_set_aside(tmp_path: Path) -> None:
    cell = tiny_cell()
    RunFolder(tmp_path).new_cell(cell.cell_id).record.symlink_to("nowhere")
    assert "record.json.corrupt-1" in str(finished_record(cell, RunFolder(tmp_path))[1])


def test_a_linked_cell_folder_fails_the_cell_and_is_not_written_into(tmp_path: Path) -> None:
    cell = tiny_cell()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "cells").mkdir(parents=True)
    folder_of(cell, tmp_path / "out").path.symlink_to(tmp_path / "elsewhere")
    outcome = run_cell(job(cell, tmp_path / "out"))
    assert outcome.status == "failed"
    assert "it is a link" in str(outcome.error)
    assert not list((tmp_path / "elsewhere").iterdir())
