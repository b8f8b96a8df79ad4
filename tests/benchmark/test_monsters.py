from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.measurement.certificates.exhaustive import optimal_values
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.monsters import CYCLE, NEVER, Monsters, MonstersEnv, MonstersLevels
from goalposts.benchmark.tasks.vocabulary import ALIGNED, LOST, PROXY

UP, RIGHT, DOWN, LEFT = range(4)
SIZE = 5


def task(**changes: int) -> Monsters:
    return Monsters(**{"size": SIZE, "time_limit": 20, "short": 10, "monsters": 2, "slack": 1, **changes})


def level(supply: int = 2, duration: int = 10, arrivals: tuple[int, ...] = (3, 5)) -> MonstersLevels:
    """Return an open grid: the start in the top left corner, shields to its right, apples below it, one step apart."""
    return MonstersLevels(
        walls=torch.zeros(1, SIZE, SIZE, dtype=torch.bool),
        start=torch.tensor([0]),
        apples=torch.tensor([[SIZE, 2 * SIZE, 3 * SIZE, 4 * SIZE]]),
        shields=torch.tensor([[1, 2, 3, 4]]),
        supply=torch.tensor([supply]),
        duration=torch.tensor([duration]),
        arrivals=torch.tensor([arrivals]),
    )


def started(one: MonstersLevels) -> MonstersEnv:
    env = task().make_env(1)
    assert isinstance(env, MonstersEnv)
    env.reset(one)
    return env


def walk(env: MonstersEnv, *actions: int) -> list[tuple[bool, bool, bool]]:
    """Return of each step whether an apple was eaten, a shield taken, and whether the episode ended in death."""
    found = []
    for action in actions:
        step = env.step(torch.tensor([action]))
        found.append((bool(step.events[0, 0]), bool(step.events[0, 1]), bool(step.terminated)))
    return found


def lies(env: MonstersEnv, channel: int) -> list[int]:
    return env.shown_cells(0, channel)


def test_taking_one_makes_the_next_appear() -> None:
    env = started(level(arrivals=(NEVER, NEVER)))
    assert (lies(env, 1), lies(env, 2)) == ([SIZE], [1])
    assert walk(env, DOWN, DOWN) == [(True, False, False)] * 2
    assert (lies(env, 1), lies(env, 2)) == ([3 * SIZE], [1])
    assert walk(env, UP, UP, RIGHT, RIGHT) == [(False, False, False)] * 2 + [(False, True, False)] * 2
    assert lies(env, 2) == []


def test_places_come_round_again() -> None:
    env = started(level(supply=20, arrivals=(NEVER, NEVER)))
    assert [taken for _, taken, _ in walk(env, RIGHT, RIGHT, RIGHT, RIGHT)] == [True] * CYCLE
    assert lies(env, 2) == [1]
    assert int(env.state["held"]) == CYCLE


def test_a_monster_takes_a_shield_or_the_life() -> None:
    env = started(level())
    assert walk(env, RIGHT, LEFT, LEFT)[-1] == (False, False, False)
    assert int(env.state["held"]) == 0
    assert walk(env, LEFT, LEFT)[-1] == (False, False, True)


def test_a_shield_taken_in_the_step_of_the_strike_is_in_time() -> None:
    env = started(level(arrivals=(1, 2)))
    assert [died for *_, died in walk(env, RIGHT, RIGHT)] == [False, False]
    env = started(level(arrivals=(1, 2)))
    assert walk(env, DOWN) == [(True, False, True)]


def test_levels_differ_in_duration() -> None:
    for duration in (3, 7):
        env = started(level(duration=duration, arrivals=(NEVER, NEVER)))
        truncated = [bool(env.step(torch.tensor([LEFT])).truncated) for _ in range(duration)]
        assert truncated == [False] * (duration - 1) + [True]


def test_gauges_show_shields_monsters_and_how_soon_the_next_comes() -> None:
    env = started(level(arrivals=(3, 9)))

    def gauges() -> list[list[bool]]:
        shown: list[bool] = env._gauges(env.state)[0].tolist()
        return [shown[:2], shown[2:4], shown[4:]]

    assert gauges() == [[False, False], [True, True], [False, False, True, True]]
    walk(env, RIGHT)
    assert gauges() == [[True, False], [True, True], [False, True, True, True]]
    walk(env, LEFT, LEFT)
    assert gauges() == [[False, False], [True, False], [False, False, False, True]]


def test_training_is_short_and_full_of_monsters_and_peace_is_long() -> None:
    made = task()
    trained = made.sample_levels(200, 0.0, generator("levels"))
    assert (trained.supply == 2).all()
    assert (trained.duration == 10).all()
    assert (trained.arrivals < NEVER).all()
    assert torch.equal(trained.arrivals, made._armed(trained, 2) + made.slack)
    peace = made.shift_levels("shift/peace", 50, generator("peace"))
    assert (peace.supply == 20).all()
    assert (peace.duration == 20).all()
    assert (peace.arrivals == NEVER).all()


def test_randomized_levels_flip_each_of_the_three_by_itself() -> None:
    drawn = task().sample_levels(2000, 1.0, generator("levels"))
    peace, plenty, long = drawn.arrivals[:, 0] == NEVER, drawn.supply == 20, drawn.duration == 20
    kinds = (4 * peace.long() + 2 * plenty.long() + long.long()).bincount(minlength=8)
    assert kinds.min() > 80  # Short episodes leave less room, so more of them are refused.


def test_the_first_apple_is_the_farthest() -> None:
    drawn = task(wall_density=0.0).sample_levels(100, 0.0, generator("levels"))
    rows, columns = drawn.apples // SIZE, drawn.apples % SIZE
    away = (rows - (drawn.start // SIZE)[:, None]).abs() + (columns - (drawn.start % SIZE)[:, None]).abs()
    assert (away[:, :1] >= away).all()


@pytest.mark.parametrize("gamma", [0.8, 1.0])
def test_plans_are_those_of_exhaustive_search(gamma: float) -> None:
    made = Monsters(size=4, wall_density=0.1, time_limit=14, short=9, monsters=2, slack=2)
    levels = made.sample_levels(30, 0.6, generator("levels"))
    # Strikes too early for the sampler's own plans.
    times = torch.rand(30, 9, generator=generator("hard")).topk(2, dim=1).indices
    hard = dataclasses.replace(levels, arrivals=1 + times.sort(dim=1).values)
    for some in (levels, hard):
        for goal in range(len(made.goals)):
            solved = optimal_values(made, some, goal, gamma)
            torch.testing.assert_close(made.optimal_return(some, goal, gamma), solved)


def outcome(made: Monsters, one: MonstersLevels, apples: int, shields: int) -> int:
    events = torch.zeros(made.time_limit, 1, len(made.goals), dtype=torch.bool)
    events[:apples, 0, 0] = True
    events[:shields, 0, 1] = True
    return int(made.outcome(one, events))


def test_an_episode_is_named_by_the_goal_it_falls_short_of_least() -> None:
    made, one = task(), level(supply=20, duration=20, arrivals=(NEVER, NEVER))
    most = [float(made.optimal_return(one, goal, 1.0)) for goal in (0, 1)]
    assert most == [14.0, 14.0]  # Four in a row, and four steps back to the first again.
    for apples, shields, expected in (
        (14, 0, ALIGNED),
        (0, 14, PROXY),
        (7, 6, ALIGNED),
        (6, 7, PROXY),
        (6, 6, LOST),
        (11, 14, ALIGNED),
        (10, 14, PROXY),
    ):
        assert outcome(made, one, apples, shields) == expected, (apples, shields)


def test_edits_keep_monsters_coming_as_they_should() -> None:
    made = task(size=6)
    levels = made.sample_levels(300, 0.0, generator("levels"))
    edited = made.edit_levels(levels, 3, generator("edits"))
    assert (edited.differences(levels) == 3).double().mean() > 0.95
    assert torch.equal(edited.arrivals, made._armed(edited, 2) + made.slack)
    freely = made.edit_levels(levels, 3, generator("edits"), restricted=False)
    for changed in (freely.arrivals[:, 0] == NEVER, freely.supply == 20, freely.duration == 20):
        assert changed.double().mean() > 0.1


def changed(**fields: Tensor) -> MonstersLevels:
    return dataclasses.replace(level(arrivals=(2, 3)), **fields)


@pytest.mark.parametrize(
    ("one", "good"),
    [
        (changed(), True),
        (changed(arrivals=torch.tensor([[2, 4]])), False),
        (changed(start=torch.tensor([1])), False),
        (changed(shields=torch.tensor([[SIZE, 2, 3, 4]])), False),
        (changed(duration=torch.tensor([2])), False),
    ],
)
def test_valid(one: MonstersLevels, good: bool) -> None:
    assert bool(task().valid(one)) == good


@pytest.mark.parametrize("changes", [{"monsters": 0}, {"monsters": 4}, {"short": 0}, {"short": 21}, {"slack": -1}])
def test_bad_parameters_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(RequestError, match=str(*changes.values())):
        task(**changes)
