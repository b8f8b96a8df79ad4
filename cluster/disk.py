"""A limit on the disk space of a run's output folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from goalposts.benchmark.errors import GoalpostsError
from goalposts.benchmark.experiment.run_folder import CellFolder

GIGABYTE = 10**9


class DiskFullError(GoalpostsError):
    """The output folder has no room to grow. The files written so far can be resumed."""


def used_bytes(folder: Path) -> int:
    """Return the total size of all files in ``folder`` in bytes."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
        except FileNotFoundError:  # A worker is just replacing it.
            continue
    return total


def make_room(out: Path, finished: Iterable[CellFolder], most_bytes: int) -> list[str]:
    """Delete checkpoints of finished cells until the output folder fits, those that finished first before others.

    A record outlives its checkpoint. Only an evaluation on other levels would have to train its cell again.

    Args:
        out: the output folder.
        finished: folders of finished cells.
        most_bytes: the limit.

    Returns:
        The names of the cells whose checkpoints were deleted.

    Raises:
        DiskFullError: the folder exceeds the limit even without them.
    """
    used = used_bytes(out)
    deleted = []
    kept = [folder for folder in finished if folder.checkpoint.is_dir() and not folder.checkpoint.is_symlink()]
    for folder in sorted(kept, key=lambda folder: folder.record.lstat().st_mtime):
        if used <= most_bytes:
            break
        used -= used_bytes(folder.checkpoint)
        shutil.rmtree(folder.checkpoint)
        deleted.append(folder.path.name)
    if used > most_bytes:
        raise DiskFullError(
            f"The output folder {str(out)!r} holds {used / GIGABYTE:.3g} GB, more than --max-disk "
            f"{most_bytes / GIGABYTE:g} allows, and no checkpoint of a finished cell is left to delete. Run the same "
            "command with a greater --max-disk: it resumes where it stopped."
        )
    return deleted
