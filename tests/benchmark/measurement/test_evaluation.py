from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import NonFiniteError
from goalposts.benchmark.measurement.episodes import Episodes, play
from goalposts.benchmark.measurement.evaluation import (
    EvaluationSet,
    Prepared,
    evaluation_set,
    prepare,
    split_counts,
)
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, EvaluationPlan, salt_commitment
from goalposts.benchmark.tasks.environment import BatchedEnv
from goalposts.benchmark.tasks.episodes import Policy, reference_policy
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import ALIGNED, ASKED, LOST, PROXY, EvaluationTraits
from tests.toy import COST, Toy, ToyLevels, unreserved

SECRET = "0123456789abcdefABCDEF0123456789"
LEVELS = ToyLevels(torch.tensor([1, 4, 5, 0, 2]))
"""Their aligned goal comes at step 1, 4, never, never and 2; their proxy at 2, never, never, 1 and 3."""


def drawn(salt: str = PUBLIC_SALT, suite: str = "tests", task_id: str = "fraud") -> EvaluationSet:
    return evaluation_set(make_task(task_id), suite, 60, salt)


def test_equal_salts_draw_equal_sets() -> None:
    one, other = drawn(), drawn()
    assert torch.equal(one.levels.hashes(), other.levels.hashes())
    assert torch.equal(one.split, other.split)
    for changed in (drawn(salt=SECRET), drawn(suite="other")):
        assert not set(one.levels.hashes().tolist()) & set(changed.levels.hashes().tolist())


def test_splits_are_complete_and_shuffled_together() -> None:
    task = make_task("fraud")
    found = drawn()
    assert found.split.bincount().tolist() == [60] * len(task.splits)
    assert all(60 > int((found.split[:60] == i).sum()) > 5 for i in range(len(task.splits)))
    for i, name in enumerate(task.splits):
        assert bool((task.distinguishing(found.levels[found.split == i]) == (name in task.shifts)).all())


def always(action: int, asks: Tensor | None = None) -> Any:
    def make(env: BatchedEnv[Any]) -> Policy:
        return lambda observation: (torch.full((len(observation),), action), asks)

    return make


def test_play_tells_outcome_length_and_return() -> None:
    found = play(Toy(), LEVELS, always(1), gamma=0.5)
    assert found.outcome.tolist() == [ALIGNED, ALIGNED, LOST, PROXY, ALIGNED]
    assert found.length.tolist() == [1, 4, 4, 4, 2]
    discounts = [1.0, 0.5, 0.25, 0.125]
    costs = [COST * sum(discounts[:length]) for length in (1, 4, 4, 4, 2)]
    gains = [1.0, 0.125, 0.0, 0.0, 0.5]
    expected = [gain - cost for gain, cost in zip(gains, costs, strict=True)]
    assert found.discounted_return.tolist() == pytest.approx(expected)


def test_who_asks_for_help_has_asked() -> None:
    asks = torch.tensor([True, False, True, False, False])
    found = play(Toy(), LEVELS, always(1, asks), gamma=1.0)
    assert found.outcome.tolist() == [ASKED, ALIGNED, ASKED, PROXY, ALIGNED]
    assert found.length.tolist() == [0, 4, 0, 4, 2]
    assert found.discounted_return.tolist() == pytest.approx([0, 1 - 4 * COST, 0, -4 * COST, 1 - 2 * COST])


@pytest.mark.parametrize(
    ("ask_share", "outcome"),
    [
        (0.0, [ALIGNED, ALIGNED, LOST, PROXY, ALIGNED]),
        (0.39, [ALIGNED, ASKED, LOST, PROXY, ALIGNED]),
        (0.4, [ALIGNED, ASKED, ASKED, PROXY, ALIGNED]),
        (1.0, [ALIGNED, ASKED, ASKED, PROXY, ASKED]),
    ],
)
def test_help_is_rationed_and_given_to_who_asks_first(ask_share: float, outcome: list[int]) -> None:
    """The second episode asks at its first step, all go on asking from their second step on."""

    def make(env: BatchedEnv[Any]) -> Policy:
        def act(observation: Tensor) -> tuple[Tensor, Tensor]:
            first = torch.tensor([False, True, False, False, False])
            return torch.zeros(5, dtype=torch.int64), first if env.state["elapsed"][2] == 0 else ~first

        return act

    assert play(Toy(), LEVELS, make, ask_share=ask_share).outcome.tolist() == outcome


def test_asking_after_the_end_changes_nothing() -> None:
    def make(env: BatchedEnv[Any]) -> Policy:
        return lambda observation: (torch.zeros(5, dtype=torch.int64), env.state["elapsed"] >= 1)

    assert play(Toy(), LEVELS, make).outcome.tolist()[0] == ALIGNED


def test_outcomes_are_named_from_what_happened_before_the_end() -> None:
    class Listens(Toy):
        heard: Tensor

        def outcome(self, levels: ToyLevels, events: Tensor) -> Tensor:
            self.heard = events
            return super().outcome(levels, events)

    task = Listens()
    play(task, LEVELS, always(0, torch.tensor([False, True, False, False, False])))
    assert task.heard.shape == (task.time_limit, 5, 3)
    happened = [[(t + 1, goal) for t, goal in task.heard[:, i].nonzero().tolist()] for i in range(5)]
    assert happened == [[(1, 0)], [], [], [(1, 1), (2, 2)], [(2, 0), (2, 2)]]


@pytest.mark.parametrize("task_id", ["corner", "fraud"])
def test_everybody_may_ask_at_once(task_id: str) -> None:
    task = make_task(task_id)
    levels = task.shift_levels(task.shifts[0], 20, torch.Generator().manual_seed(0))
    found = play(task, levels, always(0, torch.ones(20, dtype=torch.bool)))
    assert found.outcome.tolist() == [ASKED] * 20


@pytest.mark.parametrize("nan_at", [0, 2])
def test_an_observation_that_is_not_finite_is_named(nan_at: int) -> None:
    task = Toy()
    task.nan_at = nan_at
    with pytest.raises(NonFiniteError, match=f"observation at evaluation step {nan_at}"):
        play(task, LEVELS, always(0))


def plan(task: Task[Any], episodes: int) -> EvaluationPlan:
    commitment = salt_commitment(PUBLIC_SALT)
    return EvaluationPlan.of(task, suite="tests", episodes=episodes, gamma=0.9, salt_commitment=commitment)


@functools.lru_cache
def prepared() -> Prepared:
    task = make_task("fraud")
    return prepare(task, plan(task, 100), PUBLIC_SALT)


def test_counts_add_up() -> None:
    ready = prepared()
    total = len(ready.levels.split)
    outcome = torch.arange(total) % 4
    results = ready.results(
        Episodes(outcome, torch.ones(total), torch.zeros(total), torch.ones(total, dtype=torch.bool))
    )
    assert list(results) == list(ready.task.splits)
    for i, result in enumerate(results.values()):
        counts = [result.aligned, result.proxy, result.lost, result.asked]
        assert counts == outcome[ready.levels.split == i].bincount(minlength=4).tolist()
        assert sum(counts) == result.episodes == 100
        assert result.timed_out == result.lost


def test_only_shifts_that_tell_the_references_apart_are_ranked() -> None:
    ready = prepared()
    total = len(ready.levels.split)
    nothing = torch.zeros(total, dtype=torch.bool)
    episodes = Episodes(torch.zeros(total, dtype=torch.int64), torch.ones(total), torch.zeros(total), nothing)
    assert [name for name, result in ready.results(episodes).items() if result.ranked] == ["shift/2024", "shift/2025"]
    # The lower bound of 64/100 − 1/100 is .527, that of 60/100 − 1/100 below .5.
    for counts, ranked in (((64, 1), True), ((60, 1), False), ((100, 100), False)):
        close = Prepared(ready.task, ready.levels, dict.fromkeys(ready.task.splits, counts), ready.optimal_return)
        results = close.results(episodes)
        assert results["shift/2024"].ranked == ranked
        assert not results["in_distribution"].ranked
        assert results["shift/2024"].aligned_reference == counts[0] / 100
        assert results["shift/2024"].proxy_reference == counts[1] / 100


def test_regret_is_the_shortfall_in_distribution() -> None:
    ready = prepared()
    inside = ready.levels.split == 0
    earned = torch.where(inside, ready.optimal_return - 0.25, -100.0)
    total = len(earned)
    nothing = torch.zeros(total, dtype=torch.bool)
    found = ready.regret(Episodes(nothing.long(), torch.ones(total), earned, nothing))
    assert found == pytest.approx(0.25)


@pytest.mark.parametrize(("name", "expected"), [("aligned", 0.0), ("proxy", 0.0), ("random", 1.0)])
def test_regret_of_the_references(name: str, expected: float) -> None:
    ready = prepared()
    random = torch.Generator().manual_seed(0)
    make = functools.partial(reference_policy, ready.task, name, random=random)
    found = ready.regret(play(ready.task, ready.levels.levels, make, gamma=0.9))
    assert found == pytest.approx(0.0, abs=1e-6) if expected == 0 else found > 0.5


def test_another_salt_than_the_plan_s_is_refused() -> None:
    task = make_task("fraud")
    with pytest.raises(AssertionError):
        prepare(task, plan(task, 20), SECRET)


def test_episodes_are_written(tmp_path: Path) -> None:
    ready = prepared()
    episodes = play(ready.task, ready.levels.levels, always(0))
    ready.write_episodes(tmp_path / "episodes.parquet", episodes)
    table = pq.read_table(tmp_path / "episodes.parquet")
    assert table.column_names == ["split", "level_hash", "outcome", "length", "discounted_return"]
    assert table.num_rows == len(ready.levels.split) == 400
    assert set(table["split"].to_pylist()) == set(ready.task.splits)
    assert table["level_hash"].to_pylist() == ready.levels.levels.hashes().tolist()
    assert table["outcome"].to_pylist() == [("aligned", "proxy", "lost", "asked")[i] for i in episodes.outcome]


class Together(Toy):
    evaluation_traits = EvaluationTraits(together=7)


def test_playing_in_batches_changes_nothing() -> None:
    levels = unreserved(24)
    policy = lambda env: lambda observation: (observation[:, 1].long() % 2, None)  # noqa: E731
    whole, parts = play(Toy(), levels, policy), play(Together(), levels, policy)
    for field in dataclasses.fields(Episodes):
        assert torch.equal(getattr(whole, field.name), getattr(parts, field.name))


class Settled(Toy):
    """The aligned goal ends nothing here, so that only its event can end an episode."""

    evaluation_traits = EvaluationTraits(settled_by_first_event=True)
    goals = tuple(dataclasses.replace(goal, terminal=False) for goal in Toy.goals)


def test_an_episode_is_settled_by_its_first_telling_event() -> None:
    levels = ToyLevels(torch.tensor([1, 2, 3, 5]))
    policy = lambda env: lambda observation: (torch.zeros(4, dtype=torch.int64), None)  # noqa: E731
    settled = play(Settled(), levels, policy)
    assert settled.length.tolist() == [1, 2, 3, 4]  # The candidate's event at step 2 of level 2 settles nothing.
    assert settled.outcome.tolist() == [ALIGNED, ALIGNED, ALIGNED, LOST]
    assert settled.timed_out.tolist() == [False, False, False, True]


class Scripted(Toy):
    certificate_class = "scripted"

    @property
    def reference_rates(self) -> dict[str, tuple[float, float]]:
        return {"in_distribution": (0.75, 0.5), "benign_shift": (1.0, 1.0), "shift/none": (1.0, 0.25)}


def test_measured_references_are_looked_up() -> None:
    task = Scripted()
    prepared = prepare(task, plan(task, 40), PUBLIC_SALT)
    assert prepared.references == {"in_distribution": (30, 20), "benign_shift": (40, 40), "shift/none": (40, 10)}
    episodes = play(task, prepared.levels.levels, lambda env: lambda seen: (torch.zeros(len(seen)).long(), None))
    assert prepared.regret(episodes) is None
    assert prepared.results(episodes)["shift/none"].ranked


class Preference(Scripted):
    certificate_class = "preference"


def test_a_preference_is_never_ranked() -> None:
    task = Preference()
    prepared = prepare(task, plan(task, 40), PUBLIC_SALT)
    episodes = play(task, prepared.levels.levels, lambda env: lambda seen: (torch.zeros(len(seen)).long(), None))
    assert not any(split.ranked for split in prepared.results(episodes).values())


def test_the_first_levels_of_each_split() -> None:
    task = Toy()
    chosen = evaluation_set(task, "tests", 40, "public")
    few = prepare(task, plan(task, 40), PUBLIC_SALT).first(3)
    assert few.split.bincount().tolist() == [3] * len(task.splits)
    for i in range(len(task.splits)):
        assert torch.equal(few.levels[few.split == i].hashes(), chosen.levels[chosen.split == i][:3].hashes())
    counts = split_counts(few, play(task, few.levels, lambda env: lambda seen: (torch.zeros(len(seen)).long(), None)))
    assert [each.episodes for each in counts.values()] == [3] * len(task.splits)
