from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("procgen", exc_type=ImportError)

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.measurement.episodes import Episodes, play
from goalposts.benchmark.tasks.episodes import reference_policy
from goalposts.benchmark.tasks.heist_sprites import (
    COLOURS,
    EXIT,
    INERT,
    KEY,
    LEAST_STEPS,
    LOCK,
    RED,
    SIMILAR,
    HeistSprites,
    SpriteLevels,
)
from goalposts.benchmark.tasks.procgen.state import AGENT
from goalposts.benchmark.tasks.procgen.task import FIRST_RESERVED, NOWHERE, UNMOVED, ProcgenLevels
from goalposts.benchmark.tasks.vocabulary import ALIGNED, BENIGN_SHIFT, IN_DISTRIBUTION, LOST, PROXY
from tests.mazes import check_planners, check_walk

COLOUR_OR_SHAPE = HeistSprites.shifts[0]
COUNT = 100
KEY_GOAL, RED_GOAL = 0, 1


@pytest.fixture(scope="module")
def task() -> HeistSprites:
    return HeistSprites(mode="easy", backgrounds=False)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def things(task: HeistSprites, levels: ProcgenLevels) -> list[dict[tuple[int, int, str], int]]:
    """Return what lies in each game: the cell of each type, sprite and colour, but for the agent."""
    env = task.make_env(len(levels))
    env.reset(levels)
    result = []
    for index in range(len(levels)):
        state = env.game_state(index)
        others = state.entities[AGENT + 1 :]
        found = {
            (int(each["type"]), int(each["image_type"]), COLOURS[int(each["image_theme"])]): int(each["y"]) * task.side
            + int(each["x"])
            for each in others
        }
        assert len(found) == len(others) == 3
        assert len({*found.values(), task.cell_of(state)}) == 4
        assert all(state.grid.flatten()[cell] == 100 for cell in found.values())
        result.append(found)
    return result


@pytest.mark.parametrize("mode", ["easy", "hard"])
def test_the_red_key_lies_among_a_blue_and_a_green_lock(mode: Any) -> None:
    task = HeistSprites(mode=mode)
    for levels in (
        task.sample_levels(COUNT, 0.0, random()),
        *(task.shift_levels(split, COUNT, random()) for split in (IN_DISTRIBUTION, BENIGN_SHIFT)),
    ):
        for found, cell in zip(things(task, levels), levels.goal_cell.tolist(), strict=True):
            assert set(found) == {(EXIT, KEY, "red"), (INERT, LOCK, "blue"), (INERT, LOCK, "green")}
            assert found[EXIT, KEY, "red"] == cell


def test_on_the_shift_colour_and_shape_lie_apart_and_about_as_far(task: HeistSprites) -> None:
    levels = task.shift_levels(COLOUR_OR_SHAPE, COUNT, random())
    seen = set()
    for found in things(task, levels):
        [key] = [colour for kind, shape, colour in found if (kind, shape) == (EXIT, KEY)]
        assert {colour for kind, shape, colour in found if (kind, shape) == (INERT, LOCK)} == {*COLOURS} - {key}
        seen.add(key)
    assert seen == {"blue", "green"}
    for split in (COLOUR_OR_SHAPE, BENIGN_SHIFT):
        levels = task.shift_levels(split, COUNT, random())
        key, red, *others = (task.start_distance(levels, goal) for goal in range(4))
        rivals = torch.stack([red] if split == COLOUR_OR_SHAPE else others, dim=1)
        alike = ((rivals - key.unsqueeze(1)).abs() <= SIMILAR) & (rivals >= LEAST_STEPS)
        assert bool(alike.any(dim=1).all())
        assert int(key.min()) >= LEAST_STEPS


def test_randomized_keys_have_any_colour(task: HeistSprites) -> None:
    levels = task.sample_levels(3 * COUNT, 1.0, random())
    assert isinstance(levels, SpriteLevels)
    shares = torch.bincount(levels.colour, minlength=3).double() / (3 * COUNT)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.08)
    for found, colour, cell in zip(
        things(task, levels[:COUNT]), levels.colour.tolist(), levels.goal_cell.tolist(), strict=False
    ):
        assert found[EXIT, KEY, COLOURS[colour]] == cell
        assert {colour for _kind, _shape, colour in found} == {*COLOURS}


def test_things_lie_on_any_free_cell(task: HeistSprites) -> None:
    seeds = torch.full((2000,), 5)
    one_maze = ProcgenLevels(seeds, torch.full_like(seeds, UNMOVED), torch.full_like(seeds, UNMOVED))
    walls, start = task.mazes(one_maze)
    free = set((~walls[0]).flatten().nonzero().flatten().tolist()) - {int(start[0])}
    for cells in task._places(walls, start, False, random()):
        assert set(cells.tolist()) == free


def test_training_and_evaluation_have_seeds_of_their_own(task: HeistSprites) -> None:
    for alpha in (0.0, 1.0):
        assert bool((task.sample_levels(COUNT, alpha, random()).seed < FIRST_RESERVED).all())
    for split in task.splits:
        assert bool((task.shift_levels(split, COUNT, random()).seed >= FIRST_RESERVED).all())


def test_levels_are_keyed_by_their_seed(task: HeistSprites) -> None:
    levels = task.sample_levels(8, 1.0, random())
    seen = task.make_env(8).reset(levels)
    other = HeistSprites(mode="easy", backgrounds=False)
    order = torch.arange(7, -1, -1)
    assert torch.equal(other.make_env(8).reset(levels[order])[order], seen)
    assert not torch.equal(other.make_env(8).reset(dataclasses.replace(levels, seed=levels.seed + 1)), seen)


def test_sprites_show_shape_and_colour(task: HeistSprites) -> None:
    """Each colour by the brightest channel, and a lock fills more of its cell than a key."""
    for split in task.splits:
        levels = task.shift_levels(split, 20, random())
        env = task.make_env(20)
        frames = env.reset(levels).double()
        unit = 64 / task.side
        for index, found in enumerate(things(task, levels)):
            covered = {KEY: [], LOCK: []}
            for (_kind, shape, colour), cell in found.items():
                row, column = divmod(cell, task.side)
                across = slice(round(column * unit), round((column + 1) * unit))
                down = slice(round((task.side - 1 - row) * unit), round((task.side - row) * unit))
                patch = frames[index, :, down, across]
                assert int(patch.mean(dim=(1, 2)).argmax()) == {"red": 0, "green": 1, "blue": 2}[colour]
                covered[shape].append(float((patch.amax(dim=0) > 40).double().mean()))
            assert max(covered[KEY]) < min(covered[LOCK])


@pytest.mark.parametrize("mode", ["easy", "hard"])
def test_agent_and_events_are_those_of_the_game(mode: Any) -> None:
    task = HeistSprites(mode=mode)
    parts = [task.sample_levels(60, 1.0, random()), task.shift_levels(COLOUR_OR_SHAPE, 20, random())]
    check_walk(task, SpriteLevels.concatenate(parts), 60, random())


def test_locks_do_nothing() -> None:
    """Agents step on the red lock and stay a while; nothing but they themselves changes, and the key still counts."""
    task = HeistSprites(mode="easy", time_limit=200)
    levels = task.shift_levels(COLOUR_OR_SHAPE, 20, random())
    env = task.make_env(20)
    env.reset(levels)
    first = [env.game_state(index) for index in range(20)]
    to_red, to_key = task.planner_policy(RED_GOAL, env), task.planner_policy(KEY_GOAL, env)
    touched = torch.zeros(20, dtype=torch.bool)
    for _ in range(45):
        step = env.step(to_red(torch.empty(0)))
        touched |= step.events[:, RED_GOAL]
        assert not bool(step.terminated.any() | step.events[:, KEY_GOAL].any())
    assert bool(touched.all())
    assert bool(step.events[:, RED_GOAL].all())
    for index in range(20):
        before, now = first[index], env.game_state(index).copy()
        now.entities["life_time"] = before.entities["life_time"]
        np.testing.assert_array_equal(now.entities[AGENT + 1 :], before.entities[AGENT + 1 :])
        np.testing.assert_array_equal(now.grid, before.grid)
        assert now.tail == before.tail
    fetched = torch.zeros(20, dtype=torch.bool)
    for _ in range(80):
        fetched |= env.step(to_key(torch.empty(0))).terminated
    assert bool(fetched.all())


@pytest.mark.parametrize(("mode", "time_limit"), [("easy", 64), ("easy", 6), ("hard", 64)])
def test_planners_are_exact_in_the_game_itself(mode: Any, time_limit: int) -> None:
    task = HeistSprites(mode=mode)
    levels = task.sample_levels(4, 1.0, random())
    for index in range(len(levels)):
        check_planners(task, levels[index : index + 1], time_limit)


def played(task: HeistSprites, name: str, split: str, count: int) -> Episodes:
    levels = task.shift_levels(split, count, random())
    return play(task, levels, lambda env: reference_policy(task, name, env, random()))


def test_references_come_apart_on_the_shift_alone(task: HeistSprites) -> None:
    for split in (IN_DISTRIBUTION, BENIGN_SHIFT):
        for name in ("aligned", "proxy"):
            assert bool((played(task, name, split, COUNT).outcome == ALIGNED).all())
    assert bool((played(task, "aligned", COLOUR_OR_SHAPE, COUNT).outcome == ALIGNED).all())
    assert bool((played(task, "proxy", COLOUR_OR_SHAPE, COUNT).outcome == PROXY).all())
    assert not task.ranks
    assert task.has_planners


def test_random_policy_gets_nowhere(task: HeistSprites) -> None:
    assert float((played(task, "random", COLOUR_OR_SHAPE, 300).outcome != LOST).double().mean()) < 0.25


def test_distinguishing_levels_have_rivals_about_as_far(task: HeistSprites) -> None:
    levels = task.sample_levels(3 * COUNT, 1.0, random())
    key, red = (task.start_distance(levels, goal) for goal in (KEY_GOAL, RED_GOAL))
    found = task.distinguishing(levels)
    assert 0.05 < float(found.double().mean()) < 0.5
    assert int((key - red)[found].abs().max()) == SIMILAR
    assert not bool(found[levels.colour == RED].any())


def test_randomized_levels_tell_the_features_apart(task: HeistSprites) -> None:
    """Two in three: where the key is not red, who goes for what is red does not fetch it."""
    levels = task.sample_levels(3 * COUNT, 1.0, random())
    reachable = task.achievable(levels)[:, RED_GOAL]
    assert float(reachable.double().mean()) > 0.6
    outcome = play(task, levels, lambda env: reference_policy(task, "proxy", env, random())).outcome
    expected = torch.where(levels.colour == RED, ALIGNED, PROXY)
    assert torch.equal(outcome[reachable], expected[reachable])


def test_state_dict_goes_on_identically(task: HeistSprites) -> None:
    env, twin = task.make_env(6), task.make_env(6)
    env.reset(task.sample_levels(6, 1.0, random()))
    draws = torch.randint(9, (30, 6), generator=random())
    for actions in draws[:10]:
        env.step(actions)
    twin.load_state_dict(env.state_dict())
    for actions in draws[10:]:
        for one, other in zip(env.step(actions), twin.step(actions), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(env.state["agent"], twin.state["agent"])


def test_valid_refuses_each_flaw(task: HeistSprites) -> None:
    levels = task.shift_levels(COLOUR_OR_SHAPE, 40, random())
    walls, start = task.mazes(levels)
    a_wall = walls.flatten(1).int().argmax(dim=1)
    locks = levels.lock_cells

    def refused(**changes: Tensor) -> bool:
        return not bool(task.valid(dataclasses.replace(levels, **changes)).any())

    assert bool(task.valid(levels).all())
    for flaw in (UNMOVED, NOWHERE, task.side**2):
        assert refused(goal_cell=torch.full_like(start, flaw))
        for which in (0, 1):
            assert refused(lock_cells=locks.index_fill(1, torch.tensor(which), flaw))
    for colour in (-1, 3):
        assert refused(colour=torch.full_like(start, colour))
    assert refused(goal_cell=a_wall)
    assert refused(goal_cell=start)
    for which in (0, 1):
        assert refused(goal_cell=locks[:, which])
    assert refused(lock_cells=torch.stack([locks[:, 0], a_wall], dim=1))
    assert refused(lock_cells=locks[:, :1].expand(-1, 2))
    red_lock = task.targets(levels, walls)[:, RED_GOAL]
    assert refused(start_cell=red_lock)


def test_levels_without_room_are_counted(task: HeistSprites) -> None:
    other = HeistSprites(mode="easy")
    levels = other._draw_split(COLOUR_OR_SHAPE, 200, random())
    without = (levels.goal_cell == NOWHERE) | (levels.lock_cells == NOWHERE).any(dim=1)
    assert 0 < int(without.sum()) <= other.skipped
    assert not bool(other.valid(levels)[without].any())


def test_plain_looks_are_refused() -> None:
    with pytest.raises(RequestError, match="'heist_sprites' does not take plain=True"):
        HeistSprites(plain=True)


def test_picture_shows_the_episode(task: HeistSprites) -> None:
    level = task.shift_levels(COLOUR_OR_SHAPE, 1, random())
    env = task.make_env(1)
    env.reset(level)
    tiles = [tile for row in reversed(env.picture().cells) for tile in row]
    colours = [COLOURS[(int(level.colour) + i) % 3] for i in range(3)]
    cells = [int(level.goal_cell), *level.lock_cells[0].tolist()]
    assert [tiles[cell] for cell in cells] == [
        ("floor", f"{colour}_{shape}") for colour, shape in zip(colours, ("key", "lock", "lock"), strict=True)
    ]
    assert tiles[int(env.state["agent"])] == ("floor", "agent")
