"""What becomes of a run that is ended from outside: its exit code, its words, and the processes it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

START_SECONDS = 300.0
GONE_SECONDS = 10.0
LINE = "Interrupted. The same command resumes from the last checkpoints."
ENDS = {
    "SIGTERM": (signal.SIGTERM,),
    "SIGHUP": (signal.SIGHUP,),
    "twice": (signal.SIGINT, signal.SIGINT),
    "SIGKILL": (signal.SIGKILL,),
}


def workers(mark: str) -> list[int]:
    """Return the processes that run a cell and have ``mark`` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_text(errors="replace") and "run_cell" in (
                process / "cmdline"
            ).read_text(errors="replace"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("name", ENDS)
def test_a_run_that_is_ended_leaves_no_worker(name: str, tmp_path: Path) -> None:
    mark, out = f"TEST_MARK={uuid.uuid4().hex}", tmp_path / "out"
    command = [sys.executable, "-m", "goalposts", "run", "tasks", "--task", "keys_and_chests", "--seeds", "1"]
    environment = {**os.environ, **dict([mark.split("=")])}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "--out", str(out)], stdout=pipe, stderr=pipe, text=True, env=environment
    ) as process:
        until = time.monotonic() + START_SECONDS
        while not any(out.glob("cells/*/metrics.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        assert workers(mark)
        for number in ENDS[name]:
            process.send_signal(number)
            time.sleep(0.3)
        code = process.wait(60)
        until = time.monotonic() + GONE_SECONDS
        while workers(mark):
            assert time.monotonic() < until
            time.sleep(0.2)
        printed, said = process.communicate()
    assert code == (-signal.SIGKILL if name == "SIGKILL" else 130)
    assert printed == ""
    words = [line for line in said.splitlines() if " elapsed" not in line]
    assert words in ([], [LINE]) if name == "twice" else words == ([] if name == "SIGKILL" else [LINE])
