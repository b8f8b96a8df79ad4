from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

import pytest

from goalposts.benchmark.files import file_sha256, locked, set_aside, write_atomically


def test_writing_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("a long first text", "ä"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()


def test_setting_aside_overwrites_nothing(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / "record.json").write_text(str(n))
        assert set_aside(tmp_path / "record.json") == tmp_path / f"record.json.corrupt-{n}"
    assert (tmp_path / "record.json.corrupt-1").read_text() == "1"


def test_a_lock_holds_until_it_is_left(tmp_path: Path) -> None:
    def try_lock() -> None:
        with (tmp_path / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError):
        try_lock()
    try_lock()
