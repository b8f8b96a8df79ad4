from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from goalposts.benchmark.errors import GoalpostsError
from goalposts.benchmark.experiment import record as record_file
from goalposts.benchmark.experiment.record import Record
from goalposts.results.leaderboard import write_leaderboard
from goalposts.results.mlflow_mirror import Mirror, _fault_of, _set_aside
from goalposts.results.ranking import build_leaderboard
from tests.results.factory import SUITE, record, story

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.xdist_group("mlflow_mirror")]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An opened database, because to create one takes seconds."""
    folder = tmp_path_factory.mktemp("schema")
    Mirror(folder, "another", print).close("FINISHED")
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def out(tmp_path: Path, schema: bytes) -> Path:
    (tmp_path / "mlflow.db").write_bytes(schema)
    return tmp_path


def save(out: Path, cell: Record, rows: list[dict[str, Any]] | None = None) -> None:
    folder = out / "cells" / cell.cell_id
    folder.mkdir(parents=True)
    record_file.write(folder / "record.json", cell)
    lines = [json.dumps(row) + "\n" for row in rows or [{"env_steps": 4096, "loss": 0.5, "note": "text"}]]
    (folder / "metrics.jsonl").write_text("".join(lines))


def runs(out: Path) -> Iterator[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(SUITE.id)
    assert experiment is not None
    yield from client.search_runs([experiment.experiment_id])


def kinds(out: Path) -> list[str]:
    return sorted(run.data.tags["goalposts.kind"] for run in runs(out))


def test_mirrors_a_cell(out: Path) -> None:
    cell = record()
    save(out, cell, [{"env_steps": 4096.0 * step, "loss": 1.0 / step, "entropy/mean": step} for step in (1, 2, 3)])
    mirror = Mirror(out, SUITE.id, print)
    mirror.log_cell(cell)
    mirror.close("FINISHED")
    (run,) = [run for run in runs(out) if run.data.tags["goalposts.kind"] == "cell"]
    assert run.info.run_name == "corner/none/alpha=0/seed=0"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train/loss"] == pytest.approx(1 / 3)
    assert run.data.metrics["score"] == cell.score
    assert run.data.metrics["shift/cheese_anywhere/proxy"] == pytest.approx(0.922, abs=1e-3)
    assert run.data.params["config.training.learning_rate"] == "0.004"
    assert run.data.tags["goalposts.verdict"] == "goal_misgeneralization"
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(out / "mlartifacts")
    assert record_file.read(artifacts / "record.json").cell == cell.cell


def test_every_row_has_its_step(out: Path) -> None:
    from mlflow.tracking import MlflowClient

    cell = record()
    save(out, cell, [{"env_steps": 10 * step, "loss": float(step)} for step in range(1, 1301)])
    Mirror(out, SUITE.id, print).log_cell(cell)
    (run,) = [run for run in runs(out) if run.data.tags["goalposts.kind"] == "cell"]
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [(10 * step, step) for step in range(1, 1301)]


def test_logs_nothing_twice_and_reopens_the_parent(out: Path) -> None:
    first = record()
    save(out, first)
    mirror = Mirror(out, SUITE.id, print)
    mirror.log_cell(first)
    mirror.log_cell(first)
    mirror.close("FAILED")
    again = Mirror(out, SUITE.id, print)
    again.log_cell(first)
    again.log_cell(first.model_copy(update={"eval_id": "eval-salt-b"}))
    again.close("FINISHED")
    assert kinds(out) == ["cell", "cell", "suite"]
    (parent,) = [run for run in runs(out) if run.data.tags["goalposts.kind"] == "suite"]
    assert parent.info.status == "FINISHED"
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs(out)} == {None, parent.info.run_id}


def test_cell_mirrored_in_part_is_mirrored_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = record()
    save(out, cell)
    mirror = Mirror(out, SUITE.id, print)
    with monkeypatch.context() as patch:
        patch.setattr(mirror._client, "log_artifact", _full_disk)
        with pytest.raises(OSError, match="disk"):
            mirror.log_cell(cell)
    again = Mirror(out, SUITE.id, print)
    again.log_cell(cell)
    assert kinds(out) == ["cell", "suite"]


def _full_disk(*_: object) -> None:
    raise OSError("disk full")


def test_failed_cell_is_a_failed_run(out: Path) -> None:
    cell = record(status="failed")
    save(out, cell)
    Mirror(out, SUITE.id, print).log_cell(cell)
    (run,) = [run for run in runs(out) if run.data.tags["goalposts.kind"] == "cell"]
    assert run.info.status == "FAILED"
    assert "NaN" in run.data.tags["goalposts.error"]


def test_damaged_metrics_are_dropped(out: Path) -> None:
    cell = record()
    save(out, cell)
    with (out / "cells" / cell.cell_id / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\n{"env_steps": 8192, "loss": 0.25}\n')
    Mirror(out, SUITE.id, print).log_cell(cell)
    (run,) = [run for run in runs(out) if run.data.tags["goalposts.kind"] == "cell"]
    assert run.data.metrics["train/loss"] == 0.5


def no_database(path: Path) -> None:
    path.write_bytes(b"no database" * 100)


def part_of_the_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        connection.commit()
    path.with_name("mlflow.db-wal").write_bytes(b"of the old one")


def linked(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [no_database, part_of_the_schema, linked])
def test_a_broken_database_is_set_aside(tmp_path: Path, make: Callable[[Path], None]) -> None:
    database = tmp_path / "mlflow.db"
    make(database)
    assert _fault_of(database) is not None
    assert _set_aside(database) == tmp_path / "mlflow.db.corrupt-1"
    assert _fault_of(database) is None
    assert not (tmp_path / "mlflow.db-wal").exists()


def test_a_broken_database_is_made_anew_with_a_notice(tmp_path: Path) -> None:
    no_database(tmp_path / "mlflow.db")
    notices: list[str] = []
    Mirror(tmp_path, SUITE.id, notices.append).close("FINISHED")
    assert kinds(tmp_path) == ["suite"]
    (notice,) = notices
    assert "file is not a database" in notice
    assert "mlflow.db.corrupt-1" in notice


def test_a_locked_database_is_left_alone(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: connect(path, timeout=0))
    with closing(connect(out / "mlflow.db")) as holder:
        holder.execute("PRAGMA journal_mode=DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(GoalpostsError, match=r"database is locked\. End the program"):
            Mirror(out, SUITE.id, print)
    assert not list(out.glob("*.corrupt-*"))


def test_a_tracking_server_that_is_not_used_is_said(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@server")
    notices: list[str] = []
    Mirror(out, SUITE.id, notices.append)
    assert [notice.split(";")[0] for notice in notices] == ["MLFLOW_TRACKING_URI is not used"]


def test_parent_holds_the_leaderboard(out: Path) -> None:
    board = build_leaderboard(SUITE, [*story(), *(record(t, "<b>", s) for t in ("corner", "fraud") for s in range(3))])
    write_leaderboard(out, board)
    mirror = Mirror(out, SUITE.id, print)
    mirror.log_leaderboard(board)
    mirror.log_leaderboard(board)
    (parent,) = runs(out)
    assert parent.data.metrics["none/alpha_0/capability"] == pytest.approx(0.96)
    assert "_b_/alpha_0/score" in parent.data.metrics
    assert (Path(parent.info.artifact_uri.removeprefix("file://")) / "leaderboard.json").exists()


def test_leaves_the_terminal_and_global_state_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Mirror(tmp_path, SUITE.id, print).close("FINISHED")
    import mlflow
    from mlflow.telemetry import get_telemetry_client

    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("mlflow").level == logging.CRITICAL
    assert mlflow.active_run() is None
    assert str(tmp_path) not in mlflow.get_tracking_uri()
    assert get_telemetry_client() is None


def test_a_failed_cell_gives_way_to_its_success(out: Path) -> None:
    for status in ("failed", "done"):
        mirror = Mirror(out, SUITE.id, print)
        mirror.log_cell(record(status=status))
        mirror.close("FINISHED")
    (run,) = [run for run in runs(out) if run.data.tags["goalposts.kind"] == "cell"]
    assert run.info.status == "FINISHED"
