from __future__ import annotations

import os
from pathlib import Path

import pytest

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.rows import read_rows


@pytest.mark.parametrize(
    "bad", [b"\xff", b'{"a": "\xff"}', b'{"a": 1', b"[]", b"NaN", b'{"a": NaN}', b'{"a": 1e999}', b"", b"[" * 100_000]
)
def test_rows_end_at_the_first_that_cannot_be_read(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n' + bad + b'\n{"a": 3}\n')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "rows.jsonl") == []


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(CorruptFileError, match="it is a pipe"):
        read_rows(tmp_path / "rows.jsonl")
