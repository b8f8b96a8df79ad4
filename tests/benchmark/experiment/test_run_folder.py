"""The folder of a run: what it takes, what it refuses, and that reading it leaves it as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.run_cell import finished_record, run_cell
from goalposts.benchmark.experiment.run_folder import RunFolder
from goalposts.benchmark.experiment.suite import Suite, get_suite
from goalposts.results.reading import read_results
from tests.cluster.helpers import folder_of, job, listing, tiny_cell, tiny_suite


def own_suite() -> Suite:
    return tiny_suite().model_copy(update={"name": "mine"})


def claimed(folder: Path, cells: list[Cell], suite: Suite | None = None) -> RunFolder:
    """Claim a folder for a moment."""
    suite = suite or get_suite("smoke")
    run = RunFolder(folder)
    with run.claimed(suite.id, cells, suite):
        pass
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one cell, done; not to be written into."""
    out, cell = tmp_path_factory.mktemp("run") / "out", tiny_cell()
    claimed(out, [cell])
    assert run_cell(job(cell, out)).status == "done"
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy, to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_a_run_reads_back_what_it_was_asked_for(finished: Path) -> None:
    run, cell = RunFolder(finished), tiny_cell()
    asked = run.request()
    assert asked.suite == "smoke-v1"
    assert asked.cells == {(cell.cell_id, cell.eval_id): cell.key}
    assert asked.fixed_rates == frozenset()
    assert [record.cell_id for record in run.records()] == [cell.cell_id]


def test_mitigations_that_set_their_own_rate_are_noted(tmp_path: Path) -> None:
    run = claimed(tmp_path / "out", [tiny_cell(), tiny_cell("domain_randomization")])
    assert run.request().fixed_rates == {"domain_randomization"}


@pytest.mark.parametrize("cell_id", ["../../x", "..", ".", "/etc", "a/b", "", "a\n", "x" * 300, "-x"])
def test_an_id_that_leads_out_of_the_folder_is_refused(out: Path, cell_id: str) -> None:
    run = json.loads((out / "run.json").read_text())
    (value,) = run["cells"].values()
    (out / "run.json").write_text(json.dumps({**run, "cells": {cell_id: value}}))
    with pytest.raises(RequestError, match=r"run\.json' is damaged; delete it and run the suite again"):
        RunFolder(out).request()
    with pytest.raises(RequestError, match="is damaged"):
        read_results(out)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "5", "{", '{"suite": "smoke-v1"}', '{"suite": "smoke-v1", "cells": {"a": {}}}', "[" * 100_000],
    ids=lambda text: text[:40],
)
def test_a_damaged_run_file_is_one_line(out: Path, text: str) -> None:
    (out / "run.json").write_text(text)
    with pytest.raises(RequestError, match=r"run\.json' is damaged") as error:
        RunFolder(out).request()
    assert "\n" not in str(error.value)


def test_a_linked_run_file_is_not_read(out: Path, tmp_path: Path) -> None:
    (out / "run.json").rename(tmp_path / "elsewhere.json")
    (out / "run.json").symlink_to(tmp_path / "elsewhere.json")
    before = (tmp_path / "elsewhere.json").read_text()
    with pytest.raises(RequestError):
        RunFolder(out).request()
    with pytest.raises(RequestError):
        claimed(out, [tiny_cell()])
    assert (tmp_path / "elsewhere.json").read_text() == before


@pytest.mark.parametrize("name", [".lock", "run.json"])
def test_a_linked_lock_or_run_file_is_not_written_through(name: str, tmp_path: Path) -> None:
    """Not even where it leads to nothing."""
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to(tmp_path / "victim")
    with pytest.raises((RequestError, CorruptFileError)):
        claimed(out, [tiny_cell()])
    assert not (tmp_path / "victim").exists()


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = listing(tmp_path)
    with pytest.raises(RequestError, match="holds other files; choose an empty or new one with --out"):
        claimed(tmp_path, [tiny_cell()])
    assert listing(tmp_path) == before


def test_a_folder_of_another_suite_is_refused(out: Path) -> None:
    before = (out / "run.json").read_text()
    with pytest.raises(RequestError, match="belongs to suite 'smoke-v1', not 'mine-v1'"):
        claimed(out, [tiny_cell()], own_suite())
    assert (out / "run.json").read_text() == before


def test_a_folder_is_held_by_one_run_at_a_time(out: Path) -> None:
    run = RunFolder(out)
    with (
        run.claimed("smoke-v1", [tiny_cell()]),
        pytest.raises(RequestError, match=r"in use by another run \(process \d+\)"),
        RunFolder(out).claimed("smoke-v1", []),
    ):
        pass
    claimed(out, [tiny_cell()])


def test_a_run_goes_on_in_what_is_left_of_its_folder(out: Path) -> None:
    for path in out.iterdir():
        if path.name != "cells":
            path.unlink()
    assert [path.name for path in out.iterdir()] == ["cells"]
    run = claimed(out, [tiny_cell()])
    record, notice = finished_record(tiny_cell(), run)
    assert record is not None
    assert notice is None
    assert len(run.records()) == 1


def test_a_folder_that_is_deleted_in_the_middle_is_made_anew(tmp_path: Path) -> None:
    cell = tiny_cell()
    run = RunFolder(tmp_path / "out")
    with run.claimed("smoke-v1", [cell]):
        shutil.rmtree(run.path)
        assert run_cell(job(cell, run.path)).status == "done"
    assert not run.is_run
    assert [path.name for path in run.path.iterdir()] == ["cells"]
    assert claimed(run.path, [cell]).records()[0].cell_id == cell.cell_id


def test_a_suite_of_one_s_own_is_kept_and_read_back(tmp_path: Path) -> None:
    suite, cell = own_suite(), tiny_cell()
    out = tmp_path / "out"
    run = claimed(out, [cell], suite)
    assert run.suite() == suite
    moved = RunFolder(out.rename(tmp_path / "moved"))
    assert moved.suite() == suite
    (moved.path / "suite.toml").unlink()
    with pytest.raises(RequestError, match="Unknown suite 'mine-v1'"):
        moved.suite()


def test_a_kept_suite_of_another_name_and_a_link_are_not_taken(tmp_path: Path) -> None:
    run, own = claimed(tmp_path / "out", [tiny_cell()]), claimed(tmp_path / "own", [], own_suite())
    (run.path / "suite.toml").write_text((own.path / "suite.toml").read_text())
    assert run.suite() == get_suite("smoke")
    (own.path / "suite.toml").rename(tmp_path / "suite.toml")
    (own.path / "suite.toml").symlink_to(tmp_path / "suite.toml")
    with pytest.raises(RequestError, match="Unknown suite 'mine-v1'"):
        own.suite()


def test_reading_a_run_writes_nothing(out: Path) -> None:
    before = listing(out)
    results = read_results(out)
    assert len(results.records) == 1
    assert [entry.mitigation for entry in results.leaderboard().entries] == ["none"]
    assert listing(out) == before


def test_a_cell_without_a_record_is_left_out_and_one_asked_for_otherwise(out: Path) -> None:
    first, second = tiny_cell(), tiny_cell(seed=1)
    claimed(out, [first, second])
    assert [record.cell_id for record in RunFolder(out).records()] == [first.cell_id]
    claimed(out, [second])
    assert RunFolder(out).records() == []
    assert folder_of(first, out).record.exists()


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_of_no_run_is_one_line(folder: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"There is no folder|is not the output folder of a run") as error:
        read_results(tmp_path / folder)
    assert "\n" not in str(error.value)
