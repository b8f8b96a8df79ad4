from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.files import (
    file_sha256,
    locked,
    open_regular,
    own_folder,
    read_regular,
    read_regular_text,
    set_aside,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def link(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("victim")
    path.symlink_to(victim)


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def endless_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


irregular = pytest.mark.parametrize("make", [link, dangling_link, endless_link, pipe, folder])


def test_writing_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("a long first text", "ä"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert names(tmp_path) == ["file"]


def test_what_is_written_has_the_usual_mode(tmp_path: Path) -> None:
    write_atomically(tmp_path / "atomic", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError("disk full")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@irregular
def test_only_a_regular_file_is_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "target")
    before = names(tmp_path), (tmp_path / "target").lstat()
    with pytest.raises(RequestError, match=r"target'.*Move it away"):
        write_atomically(tmp_path / "target", "text")
    assert (names(tmp_path), (tmp_path / "target").lstat()) == before
    assert "victim" not in names(tmp_path) or (tmp_path / "victim").read_text() == "victim"


def test_a_device_is_refused() -> None:
    assert stat.S_ISCHR(Path("/dev/full").lstat().st_mode)
    with pytest.raises(CorruptFileError, match="is a device"):
        read_regular(Path("/dev/full"), 10)


def test_a_link_under_the_partial_name_of_old_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("victim")
    (tmp_path / "file.partial").symlink_to("victim")
    write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "victim").read_text() == "victim"
    assert (tmp_path / "file").read_text() == "text"


def test_a_long_name_leaves_room_for_the_partial_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 255), "text")
    assert names(tmp_path) == ["n" * 255]


def test_the_folder_of_a_user_may_be_a_link_and_its_own_may_not(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    assert own_folder(tmp_path / "out", "cells", "a") == tmp_path / "out" / "cells" / "a"
    assert own_folder(tmp_path / "out", "cells", "a").is_dir()
    (tmp_path / "out" / "site").symlink_to(tmp_path)
    with pytest.raises(RequestError, match=r"site' as a folder: it is a link"):
        own_folder(tmp_path / "out", "site")
    with pytest.raises(RequestError, match=r"site' as a folder: it is a link"):
        own_folder(tmp_path / "out", "site", "deeper")
    assert names(tmp_path) == ["disk", "out"]


@pytest.mark.parametrize("make", [dangling_link, pipe])
def test_what_is_no_folder_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "site")
    with pytest.raises(RequestError, match="as a folder: it is a"):
        own_folder(tmp_path, "site")


@irregular
def test_only_a_regular_file_is_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "target"
    make(path)
    for read in (file_sha256, lambda path: read_regular(path, 10), lambda path: locked(path).__enter__()):
        with pytest.raises(CorruptFileError, match=r"target': .*Move it away") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert "nowhere" not in names(tmp_path)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "missing", 10)
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "missing")


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert read_regular(path, 4) == b"1234"
    with pytest.raises(CorruptFileError, match="4 bytes, more than 3"):
        read_regular(path, 3)
    os.truncate(path, 1 << 40)
    with pytest.raises(CorruptFileError, match="1,099,511,627,776 bytes"):
        read_regular(path, 4)


def test_text_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ä", encoding="utf-8")
    assert read_regular_text(path, 10) == "ä"
    path.write_bytes(b"\xff")
    with pytest.raises(CorruptFileError, match="file': 'utf-8' codec can't decode byte 0xff"):
        read_regular_text(path, 10)


def test_appending_makes_the_file_and_keeps_what_it_holds(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        with open_regular(tmp_path / "file", "append") as file:
            file.write(text)
    assert (tmp_path / "file").read_bytes() == b"onetwo"


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()


def test_setting_aside_overwrites_nothing(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / "record.json").write_text(str(n))
        assert set_aside(tmp_path / "record.json") == tmp_path / f"record.json.corrupt-{n}"
    assert (tmp_path / "record.json.corrupt-1").read_text() == "1"
    (tmp_path / "record.json.corrupt-3").symlink_to("nowhere")
    (tmp_path / "record.json").touch()
    assert set_aside(tmp_path / "record.json") == tmp_path / "record.json.corrupt-4"


def test_a_lock_holds_until_it_is_left(tmp_path: Path) -> None:
    def try_lock() -> None:
        with (tmp_path / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError):
        try_lock()
    try_lock()
