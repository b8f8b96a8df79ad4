"""File operations that are safe against interruption: atomic writes, bounded reads, checksums, locks.

The paths that a user gives may be links, for instance ``--out`` to a larger disk. Files and folders inside a run, a
cell or a published folder are never followed if they are links. Files there must be regular.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from goalposts.benchmark.errors import CorruptFileError, RequestError

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_OPEN = {"read": os.O_RDONLY, "append": os.O_WRONLY | os.O_APPEND | os.O_CREAT}
_HARMLESS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""Opening a file follows no link, does not wait for the other end of a pipe, and takes no terminal."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the content of ``path`` with ``content``. Readers see the old or the new content, never a part.

    Raises:
        RequestError: ``path`` exists and is not a regular file. It is left unchanged.
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    if os.path.lexists(path) and not stat.S_ISREG(mode := path.lstat().st_mode):
        raise RequestError(f"Cannot write {str(path)!r}: it is {_kind(mode)}. Move it away, or give another path.")
    partial = path.with_name(f"{path.name[:40]}.{secrets.token_hex(8)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def own_folder(parent: Path, *names: str) -> Path:
    """Return the folder ``parent/names[0]/names[1]/...``, created if it is missing. ``parent`` may be a link.

    Raises:
        RequestError: one of ``names`` is a link, or not a folder.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        parent = parent / name
        with suppress(FileExistsError):
            parent.mkdir()
        if not stat.S_ISDIR(mode := parent.lstat().st_mode):
            kind = _kind(mode)
            raise RequestError(f"Cannot use {str(parent)!r} as a folder: it is {kind}. Move it away.")
    return parent


def open_regular(path: Path, purpose: Literal["read", "append"] = "read") -> IO[bytes]:
    """Open a regular file. If it is missing, ``append`` creates it.

    Raises:
        FileNotFoundError: it is missing.
        CorruptFileError: it is a link or not a regular file, or it cannot be opened.
    """
    try:
        descriptor = os.open(path, _OPEN[purpose] | _HARMLESS, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        problem = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise CorruptFileError(f"Cannot open {str(path)!r}: {problem}. Move it away.") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise CorruptFileError(f"Cannot open {str(path)!r}: it is {_kind(mode)}. Move it away.")
    except BaseException:
        os.close(descriptor)
        raise
    return open(descriptor, "rb" if purpose == "read" else "ab")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        FileNotFoundError: it is missing.
        CorruptFileError: it is a link or not a regular file, holds more than ``most_bytes``, or cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise CorruptFileError(
                f"Cannot read {str(path)!r}: it holds {size:,} bytes, more than {most_bytes:,}. Move it away."
            )
        try:
            return file.read(most_bytes)
        except OSError as error:
            raise CorruptFileError(f"Cannot read {str(path)!r}: {error.strerror}. Move it away.") from error


def read_regular_text(path: Path, most_bytes: int) -> str:
    """Return the UTF-8 text of a regular file.

    Raises:
        FileNotFoundError: it is missing.
        CorruptFileError: as :func:`read_regular`, or it is not UTF-8 text.
    """
    try:
        return read_regular(path, most_bytes).decode()
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"Cannot read {str(path)!r}: {error}. Move it away.") from error


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a regular file.

    Raises:
        FileNotFoundError: it is missing.
        CorruptFileError: it is a link or not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def set_aside(path: Path) -> Path:
    """Rename a corrupt file or folder to the first free ``<name>.corrupt-<n>`` and return that path."""
    n = 1
    while os.path.lexists(target := path.with_name(f"{path.name}.corrupt-{n}")):
        n += 1
    path.rename(target)
    return target


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``, after waiting for it. The kernel releases it however the process ends.

    Raises:
        CorruptFileError: it is a link or not a regular file.
    """
    with open_regular(path, "append") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _kind(mode: int) -> str:
    return _KINDS[stat.S_IFMT(mode)]
