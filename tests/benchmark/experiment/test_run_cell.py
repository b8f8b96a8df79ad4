from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pytest

from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment import run_cell as worker
from goalposts.benchmark.experiment.provenance import Provenance, package_sha256, provenance
from goalposts.benchmark.experiment.record import Commit, Machine
from goalposts.benchmark.experiment.run_cell import Job, finished_record, run_cell
from goalposts.benchmark.experiment.run_folder import RunFolder
from goalposts.benchmark.measurement.plan import salt_commitment
from tests.cluster.helpers import STOPS_ONCE, evaluated, folder_of, job, record_json, tiny_cell

NOT_A_NUMBER = """
import torch
from goalposts import Mitigation

class Broken(Mitigation):
    def extra_loss(self, batch, outputs):
        return outputs["vf_preds"].sum() * torch.nan
"""
HERE = provenance("cpu")


def test_a_cell_that_stopped_ends_in_the_same_record(tmp_path: Path) -> None:
    plugin = tmp_path / "stops.py"
    plugin.write_text(STOPS_ONCE)
    cell = tiny_cell(f"{plugin}:Stops")
    stopped = run_cell(job(cell, tmp_path / "stopped"))
    assert stopped.status == "failed"
    assert "the machine stopped" in str(stopped.error)
    latest = folder_of(cell, tmp_path / "stopped").checkpoint / "latest.json"
    assert json.loads(latest.read_text())["env_steps"] == 1024
    assert run_cell(job(cell, tmp_path / "stopped")).status == "done"
    assert run_cell(job(cell, tmp_path / "undisturbed")).status == "done"
    assert record_json(cell, tmp_path / "stopped") == record_json(cell, tmp_path / "undisturbed")
    rows = [folder_of(cell, tmp_path / name).metrics for name in ("stopped", "undisturbed")]
    assert _without_seconds(rows[0]) == _without_seconds(rows[1])


def _without_seconds(path: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_the_time_of_earlier_attempts_counts_up_to_the_checkpoint(tmp_path: Path) -> None:
    plugin = tmp_path / "stops.py"
    plugin.write_text(STOPS_ONCE)
    cell = tiny_cell(f"{plugin}:Stops")
    run_cell(job(cell, tmp_path))
    path = folder_of(cell, tmp_path).metrics
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == [512, 1024]
    path.write_text("".join(json.dumps({**row, "seconds": 1000.0 + i}) + "\n" for i, row in enumerate(rows)))
    assert run_cell(job(cell, tmp_path)).status == "done"
    timing = records.read(folder_of(cell, tmp_path).record).timing
    assert timing.wall_seconds is not None
    assert timing.steps_per_second is not None
    assert 1001 < timing.wall_seconds < 1500
    assert timing.steps_per_second == pytest.approx(2048 / 1001, rel=0.3)


def test_an_agent_is_evaluated_in_the_course_of_a_training_that_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    plugin = tmp_path / "stops.py"
    plugin.write_text(STOPS_ONCE)
    cell = evaluated(tiny_cell(f"{plugin}:Stops"), milestones=3, milestone_episodes=50)
    assert run_cell(job(cell, tmp_path / "stopped")).status == "failed"
    moved = tmp_path / "on another machine"
    (tmp_path / "stopped").rename(moved)
    for out in (moved, tmp_path / "undisturbed"):
        assert run_cell(job(cell, out)).status == "done"
    record = record_json(cell, moved)
    assert record == record_json(cell, tmp_path / "undisturbed")
    assert [one["env_steps"] for one in record["series"]] == [512, 1024, 1536]
    for one in record["series"]:
        assert {name: counts["episodes"] for name, counts in one["splits"].items()} == dict.fromkeys(
            record["splits"], 50
        )
    without = evaluated(cell, milestones=0)
    assert run_cell(job(without, tmp_path / "without")).status == "done"
    assert record_json(without, tmp_path / "without")["checkpoint_sha256"] == record["checkpoint_sha256"]


def test_nan_ends_the_cell_with_the_step_and_the_tensor(tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(NOT_A_NUMBER)
    cell = tiny_cell(f"{plugin}:Broken")
    outcome = run_cell(job(cell, tmp_path))
    assert outcome.status == "failed"
    assert "extra_loss is nan at environment step 512" in str(outcome.error)
    record = records.read(folder_of(cell, tmp_path).record)
    assert (record.status, record.error) == ("failed", outcome.error)
    assert finished_record(cell, RunFolder(tmp_path))[0] is None


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data.replace(b"1", b"2", 1)])
def test_a_damaged_record_is_set_aside_and_the_cell_runs_again(tmp_path: Path, damage: object) -> None:
    cell = tiny_cell()
    run_cell(job(cell, tmp_path))
    before = record_json(cell, tmp_path)
    path = folder_of(cell, tmp_path).record
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    found, notice = finished_record(cell, RunFolder(tmp_path))
    assert found is None
    assert "record.json.corrupt-1" in str(notice)
    assert run_cell(job(cell, tmp_path)).status == "done"
    assert record_json(cell, tmp_path) == before


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_checkpoint_is_set_aside_and_the_cell_trains_again(tmp_path: Path, damage: object) -> None:
    cell = tiny_cell()
    run_cell(job(cell, tmp_path))
    before = record_json(cell, tmp_path)
    folder = folder_of(cell, tmp_path)
    folder.record.unlink()
    path = next(folder.checkpoint.glob("*.safetensors"))
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    outcome = run_cell(job(cell, tmp_path))
    assert outcome.status == "done"
    assert "checkpoint.corrupt-1" in outcome.notices[0]
    assert record_json(cell, tmp_path) == before


def test_a_new_salt_evaluates_again_without_training(tmp_path: Path) -> None:
    cell = tiny_cell()
    run_cell(job(cell, tmp_path))
    before = record_json(cell, tmp_path)
    salted = evaluated(cell, salt_commitment=salt_commitment("ab" * 16))
    assert salted.cell_id == cell.cell_id
    assert run_cell(job(salted, tmp_path, salt="ab" * 16)).status == "done"
    after = record_json(salted, tmp_path)
    assert after["checkpoint_sha256"] == before["checkpoint_sha256"]
    assert after["splits"] != before["splits"]
    assert after["salt_commitment"] != before["salt_commitment"]


def test_milestones_stand_under_the_evaluation_that_they_were_made_for(tmp_path: Path) -> None:
    cell = evaluated(tiny_cell(), milestones=1, milestone_episodes=50)
    run_cell(job(cell, tmp_path))
    assert len(record_json(cell, tmp_path)["series"]) == 1
    salted = evaluated(cell, salt_commitment=salt_commitment("ab" * 16))
    assert run_cell(job(salted, tmp_path, salt="ab" * 16)).status == "done"
    assert record_json(salted, tmp_path)["series"] == []
    assert run_cell(job(cell, tmp_path)).status == "done"
    assert len(record_json(cell, tmp_path)["series"]) == 1


def test_a_worker_notes_when_it_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = evaluated(tiny_cell(), milestones=1, milestone_episodes=50)
    folder = folder_of(cell, tmp_path)
    seen, play, iterate = [], worker.play_agent, worker.Trainer.iterate

    def playing(*arguments: Any, **options: Any) -> Any:
        seen.append(" ".join(folder.attempt()).strip())
        return play(*arguments, **options)

    def iterating(trainer: worker.Trainer) -> dict[str, float]:
        seen.append(" ".join(folder.attempt()).strip())
        return iterate(trainer)

    monkeypatch.setattr(worker, "play_agent", playing)
    monkeypatch.setattr(worker.Trainer, "iterate", iterating)
    run_cell(dataclasses.replace(job(cell, tmp_path), attempt="a"))
    assert seen == ["a", "a", "a evaluates", "a", "a", "a evaluates"]


def test_a_full_disk_is_an_outcome_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker.checkpoint, "save", full)
    assert run_cell(job(tiny_cell(), tmp_path)).status == "disk_full"


def test_a_damaged_checkpoint_beside_a_finished_record_is_noticed(tmp_path: Path) -> None:
    cell = tiny_cell()
    run_cell(job(cell, tmp_path))
    assert finished_record(cell, RunFolder(tmp_path))[0] is not None
    path = next(folder_of(cell, tmp_path).checkpoint.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    found, notice = finished_record(cell, RunFolder(tmp_path))
    assert found is None
    assert "checkpoint" in str(notice)
    assert folder_of(cell, tmp_path).checkpoint.with_name("checkpoint.corrupt-1").is_dir()


def test_a_plugin_that_changed_since_the_run_began_does_not_train(tmp_path: Path) -> None:
    plugin = tmp_path / "stops.py"
    plugin.write_text(STOPS_ONCE)
    cell = tiny_cell(f"{plugin}:Stops")
    plugin.write_text(STOPS_ONCE + "# changed")
    error = refused(job(cell, tmp_path))
    assert "The files of 'stops:Stops' on " in error
    assert f"those that the run began with {cell.plugin.sha256};" in error
    assert f"have the hash {tiny_cell(f'{plugin}:Stops').plugin.sha256}," in error
    assert not folder_of(cell, tmp_path).metrics.exists()


def refused(job: Job) -> str:
    """Return the one line with which a worker refuses a cell."""
    outcome = run_cell(job)
    record = records.read(job.folder.record)
    assert (outcome.status, record.status, record.error) == ("failed", "failed", outcome.error)
    assert record.checkpoint_sha256 is None
    assert not job.folder.checkpoint.exists()
    line = str(outcome.error)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"source_sha256": "f" * 64}, "the source of goalposts"),
        ({"versions": {**HERE.versions, "goalposts": "0.0.9"}}, "goalposts"),
        ({"versions": {**HERE.versions, "torch": "1.0.0"}}, "torch"),
    ],
    ids=("source", "goalposts", "torch"),
)
def test_a_worker_unlike_the_driver_refuses_the_cell_and_names_both(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    driver = dataclasses.replace(HERE, **changes)
    here, there = (one.source_sha256[:12] if "source" in what else one.versions[what] for one in (HERE, driver))
    line = refused(dataclasses.replace(job(tiny_cell(), tmp_path), driver=driver))
    assert f"has {what} {here}, the driver on another machine has {there}; install the same on both." in line


def test_the_provenance_of_a_record_is_the_worker_s_own(tmp_path: Path) -> None:
    driver = dataclasses.replace(
        HERE,
        versions={**HERE.versions, "numpy": "0.1", "python": "2.7"},
        commit=Commit(id="0" * 40, clean=False),
        machine=Machine(processor="another", gpu="another"),
    )
    cell = tiny_cell()
    assert run_cell(dataclasses.replace(job(cell, tmp_path), driver=driver)).status == "done"
    record = records.read(folder_of(cell, tmp_path).record)
    found = Provenance(record.versions, record.commit, str(record.source_sha256), record.machine)
    assert found == HERE
    assert record.machine.processor
    assert record.machine.gpu is None


def test_the_source_hash_covers_every_folder_and_changes_with_a_file(tmp_path: Path) -> None:
    """Its folders are links in a checkout, and folders where the wheel is installed."""
    package = tmp_path / "goalposts"
    for name in ("benchmark/tasks", "cluster", "mitigations", "results", "_cli"):
        (package / name).mkdir(parents=True)
        (package / name / "some.py").write_text("")
    hashes = [package_sha256(package)]
    for path in sorted(package.rglob("some.py")):
        path.write_text("1")
        hashes.append(package_sha256(package))
    assert len(set(hashes)) == len(hashes) == 6
    (package / "cluster").rename(tmp_path / "cluster")
    (package / "cluster").symlink_to("../cluster")
    assert package_sha256(package) == hashes[-1]
