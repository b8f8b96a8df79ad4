from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.training import checkpoint

STATE: dict[str, Any] = {
    "module": {"weight": torch.arange(6.0).view(2, 3), "bf16": torch.ones(2, dtype=torch.bfloat16)},
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, dtype=torch.int64),
    "scalar": torch.tensor(3),
    "optimizers": [{"state": {}, "step": 7, "lr": 0.1 + 0.2}, {"betas": [0.9, 0.999], "name": None}],
    "transposed": torch.arange(6).view(2, 3).T,
    "text": "new",
    "nothing": {},
}


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other


def test_nested_state_survives(tmp_path: Path) -> None:
    digest = checkpoint.save(tmp_path, STATE, 128)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    state, env_steps, loaded_digest = loaded
    assert_equal(state, STATE)
    assert (env_steps, loaded_digest) == (128, digest)


def test_keys_that_look_like_paths_stay_apart(tmp_path: Path) -> None:
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    checkpoint.save(tmp_path, state, 1)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert_equal(loaded[0], state)


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    backwards = dict(reversed(list(STATE.items())))
    assert checkpoint.save(tmp_path / "one", STATE, 1) == checkpoint.save(tmp_path / "other", backwards, 1)


def test_the_file_is_json_and_tensors_and_nothing_else(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, STATE, 1)
    (path,) = tmp_path.glob("step-*")
    content = path.read_bytes()
    header_size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_size])
    json.loads(header.pop("__metadata__")["tree"])
    sizes = [entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()]
    assert len(sizes) == 6
    assert 8 + header_size + sum(sizes) == len(content)


def test_there_may_be_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "nowhere") is None
    assert checkpoint.load_or_set_aside(tmp_path / "nowhere") == (None, None)


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    for env_steps in (64, 128):
        checkpoint.save(tmp_path, {"step": torch.tensor(env_steps)}, env_steps)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step-000000000128.safetensors"]


def truncate(folder: Path) -> None:
    (path,) = folder.glob("step-*")
    path.write_bytes(path.read_bytes()[:-1])


def alter(folder: Path) -> None:
    (path,) = folder.glob("step-*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def remove(folder: Path) -> None:
    next(folder.glob("step-*")).unlink()


def cut_pointer(folder: Path) -> None:
    (folder / "latest.json").write_text('{"file": "step-')


def empty_pointer(folder: Path) -> None:
    (folder / "latest.json").write_text("[]")


@pytest.mark.parametrize("damage", [truncate, alter, remove, cut_pointer, empty_pointer])
def test_damage_is_found_and_set_aside(tmp_path: Path, damage: Any) -> None:
    folder = tmp_path / "checkpoint"
    checkpoint.save(folder, STATE, 1)
    damage(folder)
    with pytest.raises(CorruptFileError, match="checkpoint") as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)
    assert checkpoint.load_or_set_aside(folder) == (None, tmp_path / "checkpoint.corrupt-1")
    assert not folder.exists()


@pytest.mark.parametrize("reached", ["partial", "renamed", "pointed"])
def test_a_crash_leaves_one_loadable_checkpoint(tmp_path: Path, reached: str) -> None:
    """Put on disk what a crash of the second save leaves, at each of its steps."""
    folder, done = tmp_path / "crashed", tmp_path / "done"
    checkpoint.save(folder, {"step": 1, "tensor": torch.ones(1)}, 1)
    checkpoint.save(done, {"step": 2, "tensor": torch.ones(2)}, 2)
    (new,) = done.glob("step-*")
    if reached == "partial":
        (folder / f"{new.name}.partial").write_bytes(new.read_bytes()[:20])
    else:
        shutil.copy(new, folder)
    if reached == "pointed":
        shutil.copy(done / "latest.json", folder)
    loaded = checkpoint.load(folder)
    assert loaded is not None
    assert loaded[0]["step"] == loaded[1] == (2 if reached == "pointed" else 1)

    checkpoint.save(folder, {"step": 3, "tensor": torch.ones(3)}, 3)
    assert [path.name for path in folder.glob("step-*")] == ["step-000000000003.safetensors"]


def reset_steps(folder: Path) -> None:
    pointer = folder / "latest.json"
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"env_steps": 0}))


def link_pointer(folder: Path) -> None:
    (folder / "latest.json").rename(folder / "elsewhere")
    (folder / "latest.json").symlink_to("elsewhere")


def pipe_pointer(folder: Path) -> None:
    (folder / "latest.json").unlink()
    os.mkfifo(folder / "latest.json")


def endless_file(folder: Path) -> None:
    (path,) = folder.glob("step-*")
    path.unlink()
    path.symlink_to("/dev/zero")


def link_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def deep_pointer(folder: Path) -> None:
    (folder / "latest.json").write_text("[" * 9_000)


@pytest.mark.parametrize("damage", [reset_steps, link_pointer, pipe_pointer, endless_file, link_folder, deep_pointer])
def test_a_forged_checkpoint_is_set_aside(tmp_path: Path, damage: Any) -> None:
    folder = tmp_path / "checkpoint"
    checkpoint.save(folder, STATE, 128)
    damage(folder)
    assert checkpoint.load_or_set_aside(folder) == (None, tmp_path / "checkpoint.corrupt-1")
    assert not os.path.lexists(folder)


def test_a_linked_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoint").symlink_to("elsewhere")
    with pytest.raises(RequestError, match="it is a link"):
        checkpoint.save(tmp_path / "checkpoint", STATE, 1)
    assert not list((tmp_path / "elsewhere").iterdir())
