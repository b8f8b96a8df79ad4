from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.tasks.levels import RESERVED_SHARE, Levels
from tests.toy import ToyLevels


@dataclasses.dataclass(frozen=True)
class Mixed(Levels):
    walls: torch.Tensor
    cell: torch.Tensor
    amount: torch.Tensor


OF_TASK: dict[str, Any] = {"task": "mixed", "version": 3}


def mixed(count: int, generator: torch.Generator) -> Mixed:
    return Mixed(
        walls=torch.rand(count, 3, 3, generator=generator) < 0.5,
        cell=torch.randint(9, (count,), generator=generator),
        amount=torch.randn(count, 2, generator=generator),
    )


def same(one: Levels, other: Levels) -> bool:
    return all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())


def test_hash_depends_on_the_content_alone(generator: torch.Generator) -> None:
    levels = mixed(500, generator)
    order = torch.randperm(500, generator=generator)
    assert torch.equal(levels[order].hashes(), levels.hashes()[order])
    assert torch.equal(levels[3:4].hashes(), levels.hashes()[3:4])
    assert len(levels.hashes().unique()) == 500


@pytest.mark.parametrize("field", ["walls", "cell", "amount"])
def test_hash_changes_with_every_element(generator: torch.Generator, field: str) -> None:
    levels = mixed(50, generator)
    tensor = getattr(levels, field)
    for element in range(tensor[0].numel()):
        changed = tensor.clone().view(50, -1)
        changed[:, element] = ~changed[:, element] if changed.dtype == torch.bool else changed[:, element] + 1
        other = dataclasses.replace(levels, **{field: changed.view_as(tensor)})
        assert not bool((levels.hashes() == other.hashes()).any())


def test_hash_is_frozen() -> None:
    # Records refer to levels by it, so another hash needs a new version of every task.
    assert ToyLevels(torch.tensor([0, 1, 123456789])).hashes().tolist() == [
        -4939952379759434050,
        -605440715266478683,
        432066612342384771,
    ]


def test_a_sixteenth_is_reserved(generator: torch.Generator) -> None:
    assert RESERVED_SHARE == 16
    assert mixed(20_000, generator).reserved().float().mean() == pytest.approx(1 / 16, abs=0.006)
    assert ToyLevels(torch.arange(20_000)).reserved().float().mean() == pytest.approx(1 / 16, abs=0.006)


def test_slices_and_concatenates(generator: torch.Generator) -> None:
    levels = mixed(6, generator)
    assert len(levels) == 6
    assert same(Mixed.concatenate([levels[:2], levels[2:2], levels[2:]]), levels)
    assert same(levels[torch.tensor([5, 0])], Mixed.concatenate([levels[5:], levels[:1]]))
    assert same(levels[levels.cell == levels.cell[3]][:1], levels[(levels.cell == levels.cell[3]).nonzero()[:1, 0]])
    assert len(levels[:0]) == 0


def test_replaces_rows(generator: torch.Generator) -> None:
    levels, others = mixed(6, generator), mixed(2, generator)
    replaced = levels.replaced(torch.tensor([4, 1]), others)
    assert same(replaced[torch.tensor([4, 1])], others)
    rest = torch.tensor([0, 2, 3, 5])
    assert same(replaced[rest], levels[rest])
    assert same(levels.replaced(torch.tensor([], dtype=torch.int64), others[:0]), levels)


def test_differences_count_elements(generator: torch.Generator) -> None:
    levels = mixed(4, generator)
    walls, amount = levels.walls.clone(), levels.amount.clone()
    walls[1, 0, 0] ^= True
    walls[3] ^= True
    amount[3, 1] += 1.0
    other = Mixed(walls, levels.cell + torch.tensor([0, 0, 1, 0]), amount)
    assert levels.differences(other).tolist() == other.differences(levels).tolist() == [0, 1, 1, 10]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_survives_a_file(tmp_path: Path, generator: torch.Generator, count: int) -> None:
    levels = mixed(count, generator)
    levels.save(tmp_path / "levels.safetensors", **OF_TASK)
    loaded = Mixed.load(tmp_path / "levels.safetensors", **OF_TASK)
    assert same(levels, loaded)
    assert [tensor.dtype for tensor in loaded.tensors().values()] == [torch.bool, torch.int64, torch.float32]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def scribble(path: Path) -> None:
    path.write_text("not levels\n" * 40)


def of_another_kind(path: Path) -> None:
    ToyLevels(torch.arange(3)).save(path, **OF_TASK)


def of_another_task(path: Path) -> None:
    Mixed.load(path, **OF_TASK).save(path, task="other", version=3)


def of_another_version(path: Path) -> None:
    Mixed.load(path, **OF_TASK).save(path, task="mixed", version=4)


@pytest.mark.parametrize(
    "spoil", [truncate, scribble, of_another_kind, of_another_task, of_another_version, Path.unlink]
)
def test_a_file_that_is_not_such_levels_is_refused(tmp_path: Path, generator: torch.Generator, spoil) -> None:
    path = tmp_path / "levels.safetensors"
    mixed(4, generator).save(path, **OF_TASK)
    spoil(path)
    with pytest.raises(CorruptFileError, match=r"levels\.safetensors") as caught:
        Mixed.load(path, **OF_TASK)
    assert "\n" not in str(caught.value)


def test_other_fields_are_refused() -> None:
    with pytest.raises(CorruptFileError, match="Mixed"):
        Mixed.from_tensors({"walls": torch.zeros(1)})


def test_a_level_file_may_be_a_link_when_it_is_read_alone(tmp_path: Path, generator: torch.Generator) -> None:
    levels = mixed(5, generator)
    levels.save(tmp_path / "file", **OF_TASK)
    (tmp_path / "link").symlink_to("file")
    assert same(Mixed.load(tmp_path / "link", **OF_TASK), levels)
    with pytest.raises(RequestError, match="it is a link"):
        levels.save(tmp_path / "link", **OF_TASK)


def test_levels_are_not_written_over_a_pipe_nor_read_from_one(tmp_path: Path, generator: torch.Generator) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="it is a pipe"):
        mixed(5, generator).save(tmp_path / "pipe", **OF_TASK)
    with pytest.raises(CorruptFileError, match="it is a pipe"):
        Mixed.load(tmp_path / "pipe", **OF_TASK)
