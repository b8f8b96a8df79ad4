"""A running cluster of another Ray version is refused; the cluster lives in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from goalposts.benchmark.errors import RequestError
from goalposts.cluster.connection import check_reachable

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

CLUSTER_OF_ANOTHER_VERSION = """
import json, logging, ray
ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, num_cpus=1)
import ray._private.worker
gcs = ray._private.worker.global_worker.gcs_client
metadata = json.loads(gcs.internal_kv_get(b"CLUSTER_METADATA", b"cluster"))
metadata["ray_version"] = "2.40.0"
gcs.internal_kv_put(b"CLUSTER_METADATA", json.dumps(metadata).encode(), True, b"cluster")
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


def test_a_cluster_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "ignore", "-c", CLUSTER_OF_ANOTHER_VERSION]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with pytest.raises(RequestError, match=r"does not match this installation.*Ray: 2\.40\.0.*Install the same"):
            check_reachable(address)
        process.communicate("\n")
