from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.measurement.episodes import play
from goalposts.benchmark.measurement.evaluation import evaluation_set
from goalposts.benchmark.measurement.external import external_policy
from tests import toy

EPISODES = 200


def play_external(function: Callable[[Any], Any]) -> torch.Tensor:
    task = toy.Toy()
    levels = evaluation_set(task, "tests", EPISODES, "public").levels
    policy = external_policy(function, task, "mine:act")
    return play(task, levels, lambda _env: policy).discounted_return


def test_an_agent_of_ours_fares_the_same_when_it_comes_from_outside() -> None:
    task = toy.Toy()
    trained = toy.trainer(task=task)
    trained.iterate()
    levels = evaluation_set(task, "tests", EPISODES, "public").levels

    def ours() -> Any:
        return trained.agent("greedy").policy(torch.Generator().manual_seed(0))

    inside = ours()
    outside = ours()
    policy = external_policy(lambda seen: outside(torch.from_numpy(seen))[0].numpy(), task, "mine:act")
    one, other = play(task, levels, lambda _env: inside), play(task, levels, lambda _env: policy)
    assert torch.equal(one.outcome, other.outcome)
    assert torch.equal(one.discounted_return, other.discounted_return)
    assert torch.equal(one.length, other.length)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float32])
def test_any_kind_of_whole_number_will_do(dtype: type) -> None:
    reference = play_external(lambda seen: np.ones(len(seen), dtype=np.int64))
    assert torch.equal(play_external(lambda seen: np.ones(len(seen), dtype=dtype)), reference)
    assert torch.equal(play_external(lambda seen: [1] * len(seen)), reference)


def test_it_is_shown_arrays_of_its_own() -> None:
    def spoil(seen: Any) -> Any:
        assert isinstance(seen, np.ndarray)
        assert seen.shape == (3 * EPISODES, 2)
        seen[:] = np.nan
        return np.zeros(len(seen), dtype=np.int64)

    play_external(spoil)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda seen: np.zeros((len(seen), 2), dtype=int), r"shape \(600, 2\)"),
        (lambda seen: np.zeros(len(seen) - 1, dtype=int), r"shape \(599,\)"),
        (lambda seen: np.zeros((), dtype=int), r"shape \(\)"),
        (lambda seen: np.full(len(seen), np.nan), "NaN"),
        (lambda seen: np.full(len(seen), np.inf), "infinity"),
        (lambda seen: np.full(len(seen), 0.5), "0.5"),
        (lambda seen: np.full(len(seen), 2), "action 2"),
        (lambda seen: np.full(len(seen), -1), "action -1"),
        (lambda seen: np.full(len(seen), "left"), "type <U4"),
        (lambda seen: [[0], [0, 1]], "raised ValueError"),
        (lambda seen: 1 / 0, "raised ZeroDivisionError"),
        (lambda: 0, "raised TypeError"),
    ],
)
def test_what_is_no_policy_is_refused_in_one_line(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        play_external(function)
    assert "mine:act" in str(caught.value)
    assert "\n" not in str(caught.value)
