from __future__ import annotations

import os
from pathlib import Path

import pytest

from goalposts._cli.images import _write
from goalposts.benchmark.errors import RequestError


def test_an_image_takes_the_place_of_a_regular_file_alone(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"old")
    assert _write(tmp_path / "image", lambda file: file.write(b"new image") and None) == 9
    assert (tmp_path / "image").read_bytes() == b"new image"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="it is a pipe"):
        _write(tmp_path / "pipe", lambda file: None)
    with pytest.raises(RequestError, match="cannot be written"):
        _write(Path("/proc/x/image"), lambda file: None)
