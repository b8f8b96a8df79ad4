from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark.training import checkpoint
from mitigations.level_buffer import LevelBuffer
from tests.toy import ToyLevels, unreserved


def filled(
    scores: list[float], capacity: int = 10, temperature: float = 0.5, staleness_coeff: float = 0.25
) -> LevelBuffer:
    """Return a buffer whose levels are numbered in the order of ``scores``."""
    buffer = LevelBuffer(capacity, temperature, staleness_coeff)
    buffer.insert(ToyLevels(torch.arange(len(scores))), torch.tensor(scores))
    return buffer


def test_probabilities_mix_rank_and_staleness() -> None:
    buffer = filled([0.1, 0.9, 0.5])
    buffer.time = 4
    buffer.last_sampled = torch.tensor([4, 3, 1])
    # Ranks 3, 1, 2; (1 / rank) ** 2 = 1/9, 1, 1/4, in sum 49/36. Staleness 0, 1, 3, in sum 4.
    by_rank = [4 / 49, 36 / 49, 9 / 49]
    by_staleness = [0, 1 / 4, 3 / 4]
    expected = [0.75 * p + 0.25 * q for p, q in zip(by_rank, by_staleness, strict=True)]
    assert buffer.probabilities().tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("staleness_coeff", "expected"), [(0.0, [4 / 49, 36 / 49, 9 / 49]), (1.0, [0.0, 1 / 4, 3 / 4])]
)
def test_staleness_coeff_runs_from_rank_alone_to_staleness_alone(staleness_coeff: float, expected: list[float]) -> None:
    buffer = filled([0.1, 0.9, 0.5], staleness_coeff=staleness_coeff)
    buffer.time, buffer.last_sampled = 4, torch.tensor([4, 3, 1])
    assert buffer.probabilities().tolist() == pytest.approx(expected)


def test_equally_fresh_levels_are_equally_stale() -> None:
    assert filled([3.0, 2.0, 1.0], staleness_coeff=1.0).probabilities().tolist() == pytest.approx([1 / 3] * 3)
    assert filled([3.0]).probabilities().tolist() == [1.0]


@pytest.mark.parametrize(("temperature", "best"), [(0.1, 0.999), (100.0, 0.251)])
def test_low_temperature_prefers_the_best(temperature: float, best: float) -> None:
    buffer = filled([1.0, 2.0, 4.0, 3.0], temperature=temperature, staleness_coeff=0.0)
    assert float(buffer.probabilities()[2]) == pytest.approx(best, abs=0.003)


def test_capacity_keeps_the_highest_scores_in_order() -> None:
    buffer = filled([0.5, 0.1, 0.9], capacity=4)
    buffer.insert(ToyLevels(torch.tensor([10, 11, 12])), torch.tensor([0.0, 0.7, 0.5]))
    assert isinstance(buffer.levels, ToyLevels)
    assert buffer.levels.number.tolist() == [0, 2, 11, 12]
    assert buffer.scores.tolist() == pytest.approx([0.5, 0.9, 0.7, 0.5])
    assert buffer.last_sampled.tolist() == [1, 1, 2, 2]
    assert len(buffer) == 4


def test_sampling_draws_different_levels_and_refreshes_them(generator: torch.Generator) -> None:
    buffer = filled([float(i) for i in range(10)])
    for time in (2, 3, 4):
        rows = buffer.sample(6, generator)
        assert len(rows.unique()) == 6
        assert bool((buffer.last_sampled[rows] == time).all())
    assert bool((buffer.sample(10, generator).sort().values == torch.arange(10)).all())


def test_sampling_follows_the_probabilities(generator: torch.Generator) -> None:
    buffer = filled([1.0, 2.0, 3.0], staleness_coeff=0.0)
    drawn = torch.cat([buffer.sample(1, generator) for _ in range(4000)])
    torch.testing.assert_close(drawn.bincount() / 4000, buffer.probabilities().float(), atol=0.02, rtol=0)


def test_scores_are_replaced() -> None:
    buffer = filled([0.1, 0.2, 0.3])
    buffer.update(torch.tensor([2, 0]), torch.tensor([9.0, 8.0]))
    assert buffer.scores.tolist() == pytest.approx([8.0, 0.2, 9.0])


@pytest.mark.parametrize("empty", [True, False])
def test_state_survives_a_checkpoint(tmp_path: Path, generator: torch.Generator, empty: bool) -> None:
    buffer = LevelBuffer(10, 0.5, 0.25) if empty else filled([0.5, 0.1, 0.9, 0.3])
    if not empty:
        buffer.sample(2, generator)
    checkpoint.save(tmp_path, buffer.state_dict(), 1)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    twin = LevelBuffer(10, 0.5, 0.25)
    twin.load_state_dict(loaded[0], ToyLevels, torch.device("cpu"))
    assert len(twin) == len(buffer)
    for each in (buffer, twin):
        each.insert(unreserved(4), torch.arange(4.0))
    assert isinstance(twin.levels, ToyLevels)
    assert isinstance(buffer.levels, ToyLevels)
    assert torch.equal(twin.levels.number, buffer.levels.number)
    assert torch.equal(twin.probabilities(), buffer.probabilities())
    assert twin.time == buffer.time
