"""Connects to Ray: by default to a private local instance, or to a running cluster by its address."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from goalposts.benchmark.errors import GoalpostsError, RequestError

CONNECT_SECONDS = 5.0
PROBE_SECONDS = 22.0
"""Together with the connection attempt it stays under the 30 seconds for reporting an unreachable address."""

_PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
except BaseException as error:
    print(" ".join(str(error).split()))
    sys.exit(3)
"""


def check_reachable(address: str) -> None:
    """Check within a time limit whether ``address`` is a Ray cluster of this version.

    Raises:
        RequestError: it is unreachable, not a Ray cluster, or of another version.
    """
    if address not in ("auto", "local"):
        match = re.fullmatch(r"(?:ray://)?([^:/\s]+):(\d{1,5})", address)
        if match is None:
            raise RequestError(f"Ray address {address!r} is malformed; write host:port, ray://host:port or auto.")
        try:
            socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise RequestError(
                f"Ray address {address!r} cannot be reached ({error}); start the cluster with 'ray start --head', "
                "or leave --address out to run on this machine."
            ) from error
    command = [sys.executable, "-c", _PROBE, address]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RequestError(
            f"Ray address {address!r} answers, but not as a Ray cluster within {PROBE_SECONDS:.0f} s; check the port."
        ) from error
    if probe.returncode == 0:
        return
    problem = (probe.stdout.strip().splitlines() or probe.stderr.strip().splitlines() or ["no reason given"])[-1]
    if "ersion mismatch" in problem or "same version" in problem:
        raise RequestError(
            f"The Ray cluster at {address!r} does not match this installation (Ray {ray.__version__}, Python "
            f"{sys.version.split()[0]}): {problem[:300]} Install the same versions on both sides."
        )
    if "InvalidAuthToken" in probe.stderr:
        raise RequestError(
            f"The Ray cluster at {address!r} refuses this machine's authentication token; set RAY_AUTH_MODE and "
            "RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to those of the cluster."
        )
    raise RequestError(f"Ray address {address!r} does not answer: {problem[:300]}. Check it with 'ray status'.")


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Hold a connection to Ray. A local instance ends with it.

    Raises:
        RequestError: ``address`` is not a reachable cluster of this version.
        GoalpostsError: Ray could not start.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if address is not None and address != "local":
        check_reachable(address)
        options: dict[str, Any] = {"address": address}
    else:
        options = {"address": "local", "include_dashboard": False, "object_store_memory": 100 * 1024 * 1024}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
    except SystemExit as ended:  # From Ray's own SIGTERM handler, until ours is back.
        raise KeyboardInterrupt from ended
    except (RuntimeError, ValueError, ConnectionError) as error:
        raise GoalpostsError(f"Ray could not start: {' '.join(str(error).split())[:300]}") from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler ends the process at once.
        yield
    finally:
        ray.shutdown()
