"""Provenance: the code, the libraries and the machine that this process runs with."""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from goalposts.benchmark.errors import GoalpostsError
from goalposts.benchmark.experiment.record import Commit, Machine
from goalposts.benchmark.sources import files_sha256

PACKAGE = Path(__file__).parents[2]
"""The folder of the package ``goalposts``."""
LIBRARIES = ("goalposts", "numpy", "ray", "safetensors", "scipy", "torch")
"""Libraries that affect a result."""
ALIKE = ("goalposts", "torch")
"""Libraries that must have equal versions on the driver and its workers."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The origin of a result."""

    versions: dict[str, str]
    commit: Commit
    source_sha256: str
    """Hash of Goalposts' own source files."""
    machine: Machine

    def check_like(self, driver: Provenance) -> None:
        """Refuse to work for a driver that runs other code.

        Raises:
            GoalpostsError: Goalposts or torch differs. The message names both sides.
        """
        pairs = {name: (self.versions[name], driver.versions[name]) for name in ALIKE}
        pairs["the source of goalposts"] = (self.source_sha256[:12], driver.source_sha256[:12])
        for what, (here, there) in pairs.items():
            if here != there:
                raise GoalpostsError(
                    f"The worker on {platform.node()} has {what} {here}, the driver on another machine has {there}; "
                    "install the same on both."
                )


@functools.cache
def provenance(device: str) -> Provenance:
    """Return the provenance of results that this process computes on ``device``, ``cpu`` or ``cuda``."""
    return Provenance(
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        commit=_commit(),
        source_sha256=package_sha256(PACKAGE),
        machine=Machine(processor=_processor(), gpu=torch.cuda.get_device_name() if device == "cuda" else None),
    )


def package_sha256(package: Path) -> str:
    """Return the hash of all source files in the folder of a package."""
    folders = [package]  # In a checkout, four of those below are links.
    for folder in folders:
        folders += sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isidentifier())
    return files_sha256(
        {path.relative_to(package).as_posix(): path for folder in folders for path in folder.glob("*.py")}
    )


def _commit() -> Commit:
    """Return the commit of the source tree and whether it is clean. Nulls if this file is in no repository."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return Commit(id=None, clean=None)
    return Commit(id=head.stdout.strip(), clean=not status.stdout.strip())


def _processor() -> str:
    """Return the model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
