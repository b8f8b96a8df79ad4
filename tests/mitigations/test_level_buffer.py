from __future__ import annotations

from pathlib import Path

import pytest
import torch

from goalposts.benchmark.training import checkpoint
from goalposts.mitigations.level_buffer import LevelBuffer
from tests.toy import ToyLevels, unreserved


def numbered(numbers: list[int]) -> ToyLevels:
    return ToyLevels(torch.tensor(numbers))


def record(
    buffer: LevelBuffer, numbers: list[int], scores: list[float] | None = None, best: list[float] | None = None
) -> None:
    """Record a batch; without scores or returns, they are 0."""
    none = [0.0] * len(numbers)
    buffer.record(numbered(numbers), torch.tensor(scores or none), torch.tensor(best or none))


def filled(
    scores: list[float], capacity: int = 10, temperature: float = 0.5, staleness_coeff: float = 0.25
) -> LevelBuffer:
    """Return a buffer whose levels are numbered in the order of ``scores``."""
    buffer = LevelBuffer(capacity, temperature, staleness_coeff)
    record(buffer, list(range(len(scores))), scores)
    return buffer


def numbers(buffer: LevelBuffer) -> list[int]:
    assert isinstance(buffer.levels, ToyLevels)
    found: list[int] = buffer.levels.number.tolist()
    return found


def test_probabilities_mix_rank_and_staleness() -> None:
    buffer = filled([0.1, 0.9, 0.5])
    buffer.time = 4
    buffer.last_played = torch.tensor([4, 3, 1])
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
    buffer.time, buffer.last_played = 4, torch.tensor([4, 3, 1])
    assert buffer.probabilities().tolist() == pytest.approx(expected)


def test_staleness_is_the_number_of_batches_since_a_level_was_played() -> None:
    buffer = filled([3.0, 2.0, 1.0], staleness_coeff=1.0)
    record(buffer, [0, 7], [3.0, 0.0])
    # Level 1 and 2 were left out once, 0 and 7 were just played.
    assert buffer.probabilities().tolist() == pytest.approx([0.0, 1 / 2, 1 / 2, 0.0])
    record(buffer, [1])
    assert buffer.probabilities().tolist() == pytest.approx([1 / 4, 0.0, 2 / 4, 1 / 4])
    record(buffer, [8])
    assert buffer.probabilities().tolist() == pytest.approx([2 / 8, 1 / 8, 3 / 8, 2 / 8, 0.0])


def test_equally_fresh_levels_are_equally_stale() -> None:
    assert filled([3.0, 2.0, 1.0], staleness_coeff=1.0).probabilities().tolist() == pytest.approx([1 / 3] * 3)
    assert filled([3.0]).probabilities().tolist() == [1.0]


@pytest.mark.parametrize(("temperature", "best"), [(0.1, 0.999), (100.0, 0.251)])
def test_low_temperature_prefers_the_best(temperature: float, best: float) -> None:
    buffer = filled([1.0, 2.0, 4.0, 3.0], temperature=temperature, staleness_coeff=0.0)
    assert float(buffer.probabilities()[2]) == pytest.approx(best, abs=0.003)


def test_levels_enter_freely_while_there_is_room() -> None:
    buffer = filled([0.5, 0.1, 0.9], capacity=5)
    record(buffer, [10, 11], [0.0, -1.0])
    assert numbers(buffer) == [0, 1, 2, 10, 11]
    assert buffer.scores.tolist() == pytest.approx([0.5, 0.1, 0.9, 0.0, -1.0])
    assert buffer.last_played.tolist() == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.3, [0, 10, 2]), (0.1, [0, 1, 2]), (0.05, [0, 1, 2])],
    ids=["higher", "equal", "lower"],
)
def test_a_full_buffer_swaps_its_least_probable_level_for_one_of_higher_score(
    score: float, expected: list[int]
) -> None:
    buffer = filled([0.5, 0.1, 0.9], capacity=3, staleness_coeff=0.0)
    record(buffer, [10], [score])
    assert numbers(buffer) == expected
    assert len(buffer) == 3


def test_it_is_the_probability_and_not_the_score_that_marks_who_may_leave() -> None:
    buffer = filled([0.1, 0.9, 0.5], capacity=3, staleness_coeff=0.5)
    record(buffer, [1, 2], [0.9, 0.5])
    # Level 0 has the lowest score, but is stale: of the others 2 is less probable, and its score is beaten.
    record(buffer, [10], [0.6])
    assert numbers(buffer) == [0, 1, 10]
    record(buffer, [11], [0.2])
    assert numbers(buffer) == [0, 1, 10]


def test_a_batch_competes_with_as_many_of_the_least_probable() -> None:
    buffer = filled([0.8, 0.1, 0.9, 0.2], capacity=5, staleness_coeff=0.0)
    record(buffer, [10, 11, 12], [0.0, 0.7, 0.15])
    # One place was free; the rivals for the other two are levels 1 and 3. Of 0.1, 0.2, 0.0, 0.7 and 0.15 three stay.
    assert sorted(numbers(buffer)) == [0, 2, 3, 11, 12]
    held = dict(zip(numbers(buffer), buffer.scores.tolist(), strict=True))
    assert held == pytest.approx({0: 0.8, 2: 0.9, 3: 0.2, 11: 0.7, 12: 0.15})


def test_a_known_level_is_updated_and_not_kept_twice() -> None:
    buffer = filled([0.5, 0.1], capacity=4)
    record(buffer, [1, 10, 10], [0.7, 0.2, 0.3], best=[1.0, 2.0, 3.0])
    assert numbers(buffer) == [0, 1, 10]
    assert buffer.scores.tolist() == pytest.approx([0.5, 0.7, 0.2])
    assert buffer.best_returns.tolist() == [0.0, 1.0, 2.0]
    assert buffer.last_played.tolist() == [1, 2, 2]


def test_the_same_level_may_be_updated_and_then_leave() -> None:
    buffer = filled([0.5, 0.1], capacity=2, staleness_coeff=0.0)
    record(buffer, [0, 10], [-1.0, 0.2])
    assert numbers(buffer) == [10, 1]
    assert buffer.scores.tolist() == pytest.approx([0.2, 0.1])


def test_the_best_return_is_remembered() -> None:
    buffer = LevelBuffer(3, 0.5, 0.0)
    for returns, expected in (([0.5, 0.2], [0.5, 0.2]), ([0.1, 0.9], [0.5, 0.9]), ([0.6, 0.0], [0.6, 0.9])):
        best = buffer.best_ever(numbered([4, 5]), torch.tensor(returns))
        assert best.tolist() == pytest.approx(expected)
        buffer.record(numbered([4, 5]), torch.zeros(2), best)
    assert buffer.best_ever(numbered([5, 6]), torch.tensor([-1.0, -1.0])).tolist() == pytest.approx([0.9, -1.0])


def test_sampling_draws_different_levels(generator: torch.Generator) -> None:
    buffer = filled([float(i) for i in range(10)])
    assert len(buffer.sample(6, generator).unique()) == 6
    assert bool((buffer.sample(10, generator).sort().values == torch.arange(10)).all())


def test_improbable_levels_come_last(generator: torch.Generator) -> None:
    buffer = filled([0.0, 0.0, 0.0], staleness_coeff=1.0)
    record(buffer, [1, 2])
    assert buffer.probabilities().tolist() == [1.0, 0.0, 0.0]
    pairs = [buffer.sample(2, generator).tolist() for _ in range(30)]
    assert {first for first, _ in pairs} == {0}
    assert {second for _, second in pairs} == {1, 2}
    assert filled([1.0, 2.0], temperature=1e-4, staleness_coeff=0.0).sample(2, generator).tolist() == [1, 0]


def test_sampling_follows_the_probabilities(generator: torch.Generator) -> None:
    buffer = filled([1.0, 2.0, 3.0], staleness_coeff=0.0)
    drawn = torch.cat([buffer.sample(1, generator) for _ in range(4000)])
    torch.testing.assert_close(drawn.bincount() / 4000, buffer.probabilities().float(), atol=0.02, rtol=0)


def test_a_full_buffer_is_written_in_place() -> None:
    buffer = filled([0.5, 0.1, 0.9], capacity=3)
    assert isinstance(buffer.levels, ToyLevels)
    place = buffer.levels.number.data_ptr()
    record(buffer, [10], [0.7])
    assert buffer.levels.number.data_ptr() == place
    assert 10 in numbers(buffer)


def test_a_state_is_not_touched_by_what_is_played_later() -> None:
    buffer = filled([0.5, 0.1, 0.9], capacity=3)
    state = buffer.state_dict()
    twin = LevelBuffer(3, 0.5, 0.25)
    twin.load_state_dict(state, ToyLevels)
    for each in (buffer, twin):
        record(each, [10, 0], [0.7, 0.0])
    assert state["levels"]["number"].tolist() == [0, 1, 2]
    assert state["scores"].tolist() == pytest.approx([0.5, 0.1, 0.9])
    assert state["last_played"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("empty", [True, False])
def test_state_survives_a_checkpoint(tmp_path: Path, generator: torch.Generator, empty: bool) -> None:
    buffer = LevelBuffer(10, 0.5, 0.25) if empty else filled([0.5, 0.1, 0.9, 0.3])
    checkpoint.save(tmp_path, buffer.state_dict(), 1)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    twin = LevelBuffer(10, 0.5, 0.25)
    twin.load_state_dict(loaded[0], ToyLevels)
    assert len(twin) == len(buffer)
    for each in (buffer, twin):
        each.record(unreserved(8), torch.arange(8.0), torch.arange(8.0))
        each.record(unreserved(4, first=50), torch.arange(4.0), torch.arange(4.0))
    assert numbers(twin) == numbers(buffer)
    assert torch.equal(twin.probabilities(), buffer.probabilities())
    assert torch.equal(twin.best_returns, buffer.best_returns)
    assert twin.time == buffer.time
