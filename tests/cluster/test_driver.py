"""The driver with Ray, through the command line: kills and locks, and that nothing hides a failed cell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.benchmark.experiment.provenance import provenance
from goalposts.benchmark.experiment.run_cell import Job, run_cell
from goalposts.benchmark.experiment.suite import get_suite, suite_toml
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, salt_commitment
from goalposts.benchmark.randomness import stream_seed
from tests.cluster.helpers import tiny_suite

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

WAITS_AT_A_GATE = """
import os, time
from pathlib import Path
from goalposts import Mitigation

class Waits(Mitigation):
    rollouts = 0

    def after_rollout(self, rollout):
        gate = Path(__file__).with_name("gate")
        self.rollouts += 1
        if self.rollouts == 4 and not gate.exists():
            Path(__file__).with_name("waiting").write_text(str(os.getpid()))
            while not gate.exists():
                time.sleep(0.05)
"""
FAILS_ON_ONE_SEED = """
import os
from goalposts import Mitigation

class Fails(Mitigation):
    def after_rollout(self, rollout):
        if self.context.generator.initial_seed() in {seeds}:
            raise ValueError("this seed does not train")

class Dies(Mitigation):
    def after_rollout(self, rollout):
        if self.context.generator.initial_seed() in {seeds}:
            os._exit(1)
"""
BREAKS_A_GAME_ONCE = """
from pathlib import Path
from goalposts.benchmark.tasks.procgen.games import Games, Look
from goalposts import Mitigation

class Breaks(Mitigation):
    def after_rollout(self, rollout):
        marker = Path(__file__).with_name("broken")
        if not marker.exists():
            marker.touch()
            Games("coinrun", 1, Look()).set(0, b"no state of a game")
"""
NOTES_ITS_PROCESS = """
import os
from pathlib import Path
from goalposts import Mitigation

class Notes(Mitigation):
    def setup(self, context):
        super().setup(context)
        with Path(__file__).with_name("processes").open("a") as file:
            print(os.getpid(), file=file)
"""
RUNS_ON_A_GPU = """
import logging, sys
from contextlib import contextmanager
from pathlib import Path
import ray
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, salt_commitment
from goalposts.benchmark.experiment.provenance import provenance
from goalposts.benchmark.experiment.run_folder import RunFolder
from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.cluster.driver import run_cells
from tests.cluster.helpers import tiny_suite

@contextmanager
def connected():
    ray.init("local", num_cpus=1, num_gpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()

plugin, out, gpus = sys.argv[1:]
selection = Selection(mitigations=(plugin,), seeds=2)
ignored = lambda *_: None
run_cells(
    cells_of(tiny_suite(), selection, device="cpu", salt_commitment=salt_commitment(PUBLIC_SALT)),
    RunFolder(Path(out)), salt=PUBLIC_SALT, driver=provenance("cpu"), gpus_per_cell=float(gpus), connect=connected,
    observe=ignored, notify=print, finished=ignored, checkpoint_seconds=5.0,
)
"""


OWN_TASK = """
from goalposts import SmallPlan
from goalposts.benchmark.tasks.fraud import Fraud

class Mine(Fraud):
    id = "mine"
    small = SmallPlan(training={"env_steps": 4096, "hidden_sizes": (8,)})
"""


def command(plugin: Path, name: str, out: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "goalposts", "run", "smoke", "--task", "fraud", "--checkpoint-seconds", "0"),
        *("--mitigation", f"{plugin}:{name}", "--out", str(out), *more),
    ]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Wait until ``condition`` holds; the bound is for a run that will never get there."""
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run did not get this far"
        time.sleep(0.05)


def records(out: Path) -> dict[str, Any]:
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("cells/*/record.json")}
    for record in found.values():
        del record["timing"]
    return found


@contextmanager
def waiting_run(plugin: Path, out: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a run; yield it and its worker's process id once the worker waits at the gate, checkpoints behind it."""
    waiting = plugin.with_name("waiting")
    waiting.unlink(missing_ok=True)
    pipe = subprocess.PIPE
    with subprocess.Popen(command(plugin, "Waits", out), stdout=pipe, stderr=pipe, text=True) as process:
        wait_for(lambda: waiting.exists() and waiting.read_text(), process)
        assert not records(out)
        yield process, int(waiting.read_text())
        process.communicate(timeout=240)


def checkpoint_steps(out: Path) -> int:
    pointer = next(out.glob("cells/*/checkpoint/latest.json"))
    return int(json.loads(pointer.read_text())["env_steps"])


def test_interrupt_killed_driver_and_killed_worker_end_in_the_undisturbed_record(tmp_path: Path) -> None:
    """One run of ten iterations, disturbed after the third, sixth and ninth."""
    plugin, out = tmp_path / "waits.py", tmp_path / "out"
    plugin.write_text(WAITS_AT_A_GATE)

    with waiting_run(plugin, out) as (process, _):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 130
        assert "Interrupted" in errors
        assert "Traceback" not in errors
    assert checkpoint_steps(out) == 3 * 4096

    with waiting_run(plugin, out) as (process, _):
        second = run(*command(plugin, "Waits", out))
        assert second.returncode == 2
        assert f"in use by another run (process {process.pid})" in second.stderr
        process.kill()
    assert checkpoint_steps(out) == 6 * 4096

    with waiting_run(plugin, out) as (process, worker):
        plugin.with_name("gate").touch()
        os.kill(worker, signal.SIGKILL)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert "is retried" in errors

    selection = Selection(tasks=("fraud",), mitigations=(f"{plugin}:Waits",))
    cells = cells_of(get_suite("smoke"), selection, device="cpu", salt_commitment=salt_commitment(PUBLIC_SALT))
    job = Job(cells[0], tmp_path / "undisturbed", PUBLIC_SALT, provenance("cpu"), 60.0)
    assert run_cell(job).status == "done"
    assert records(out) == records(tmp_path / "undisturbed")


def test_a_failed_cell_and_a_lost_worker_are_retried_reported_and_hide_no_other(tmp_path: Path) -> None:
    names = ("fails:Fails", "fails:Dies")
    seeds = {stream_seed("smoke-v1", "fraud", 1, "mitigation", name) for name in names}
    plugin = tmp_path / "fails.py"
    plugin.write_text(FAILS_ON_ONE_SEED.format(seeds=seeds))
    out = tmp_path / "out"
    more = ("--mitigation", f"{plugin}:Dies", "--mitigation", "none", "--seeds", "2")
    result = run(*command(plugin, "Fails", out, *more))
    assert result.returncode == 1
    assert "(2/2)" in result.stderr
    assert "Hook 'after_rollout' of Fails raised ValueError: this seed does not train" in result.stderr
    assert "The worker was lost" in result.stderr
    assert "Traceback" not in result.stderr
    status = {(r["cell"]["mitigation"], r["cell"]["seed"]): r["status"] for r in records(out).values()}
    failed = {(name, 1): "failed" for name in names}
    assert status == {(name, seed): "done" for name in (*names, "none") for seed in range(2)} | failed
    entries = {e["mitigation"]: e for e in json.loads((out / "leaderboard.json").read_text())["entries"]}
    assert {name: entry["complete"] for name, entry in entries.items()} == {**dict.fromkeys(names, False), "none": True}


def test_a_game_that_ends_its_process_is_a_cell_that_failed_and_is_tried_again(tmp_path: Path) -> None:
    plugin = tmp_path / "breaks.py"
    plugin.write_text(BREAKS_A_GAME_ONCE)
    result = run(*command(plugin, "Breaks", tmp_path / "out"))
    assert result.returncode == 0
    assert "failed and is retried (1/2): The worker was lost" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert [record["status"] for record in records(tmp_path / "out").values()] == ["done"]


def test_a_folder_past_its_bound_ends_the_run_in_one_line(tmp_path: Path) -> None:
    plugin = tmp_path / "fails.py"
    plugin.write_text(FAILS_ON_ONE_SEED.format(seeds=set()))
    result = run(*command(plugin, "Fails", tmp_path / "out", "--max-disk", "1e-6"))
    assert result.returncode == 1
    assert "more than --max-disk 1e-06 allows" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_suite_and_a_task_of_one_s_own_run_and_are_read_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN_TASK)
    suite = tiny_suite().model_copy(update={"name": "mine"})
    (tmp_path / "mine.toml").write_text(suite_toml(suite))
    goalposts = (sys.executable, "-m", "goalposts")
    chosen = ("--task", f"{tmp_path / 'mine.py'}:Mine", "--task", "fraud", "--mitigation", "none")
    out = tmp_path / "out"
    result = run(*goalposts, "run", str(tmp_path / "mine.toml"), *chosen, "--out", str(out))
    assert result.returncode == 0, result.stderr
    found = {record["cell"]["task"]: record for record in records(out).values()}
    done = {task: (one["status"], one["cell"]["suite"]) for task, one in found.items()}
    assert done == dict.fromkeys(("mine", "fraud"), ("done", "mine-v1"))
    assert found["mine"]["config"]["task"]["sha256"]
    assert found["fraud"]["env_steps"] == 2048
    (tmp_path / "mine.toml").unlink()
    (tmp_path / "mine.py").unlink()
    board = run(*goalposts, "leaderboard", str(out), "--json")
    assert board.returncode == 0, board.stderr
    assert json.loads(board.stdout)["suite"] == "mine-v1"


def test_tuning_runs_its_trials_on_ray_and_the_same_command_finds_them_done(tmp_path: Path) -> None:
    arguments = ("tune", "none", "--suite", "smoke", "--task", "fraud", "--trials", "2", "--json", "--out")
    first = run(sys.executable, "-m", "goalposts", *arguments, str(tmp_path / "out"))
    assert first.returncode == 0, first.stderr
    tuned = json.loads(first.stdout)
    assert (tuned["trials"], tuned["pruned"], tuned["plan"]["name"]) == (2, 0, "none")
    assert json.loads((tmp_path / "out" / "tuned.json").read_text()) == tuned
    assert {record["cell"]["suite"] for record in records(tmp_path / "out").values()} == {"smoke-tuning-v1"}
    assert all((tmp_path / "out" / name).exists() for name in ("study.db", "history.png", "importance.png"))
    second = run(sys.executable, "-m", "goalposts", *arguments, str(tmp_path / "out"))
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")


@pytest.mark.parametrize(("gpus", "processes"), [("0", 1), ("0.5", 2)])
def test_a_process_that_held_a_gpu_serves_no_other_cell(gpus: str, processes: int, tmp_path: Path) -> None:
    """It would stay on its first GPU, whichever it is given for the next cell; others are kept, and their imports."""
    plugin = tmp_path / "notes.py"
    plugin.write_text(NOTES_ITS_PROCESS)
    arguments = (f"{plugin}:Notes", str(tmp_path / "out"), gpus)
    finished = run(sys.executable, "-W", "ignore", "-c", RUNS_ON_A_GPU, *arguments)
    assert finished.returncode == 0, finished.stderr
    found = (tmp_path / "processes").read_text().split()
    assert len(found) == 2, finished.stdout
    assert len(set(found)) == processes
