from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.tasks.corner import Corner, CornerFull, CornerLevels
from goalposts.benchmark.tasks.dish import Dish, DishFull
from goalposts.benchmark.tasks.kinds.grid import UNREACHABLE, GridEnv, GridTask, distances, open_cell, toggled
from tests.grids import breadth_first, draw


@settings(max_examples=60)
@given(st.data())
def test_distances_are_those_of_breadth_first_search(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    cells = st.lists(st.booleans(), min_size=height * width, max_size=height * width)
    grids = data.draw(st.lists(cells, min_size=1, max_size=3))
    walls = torch.tensor(grids).view(-1, height, width)
    targets = torch.tensor([data.draw(st.integers(0, height * width - 1)) for _ in grids])
    found = distances(walls, targets).view(walls.shape)
    for grid, target, result in zip(walls, targets.tolist(), found, strict=True):
        expected = breadth_first(grid, divmod(target, width))
        for r in range(height):
            for c in range(width):
                assert result[r, c] == expected.get((r, c), UNREACHABLE)


def test_distances_span_the_widest_and_longest_grid() -> None:
    corridor = torch.zeros(1, 31, 31, dtype=torch.bool)
    corridor[0, 1::4, :-1] = True
    corridor[0, 3::4, 1:] = True
    found = distances(corridor, torch.tensor([0]))
    assert int(found[0, 30 * 31]) == breadth_first(corridor[0], (0, 0))[30, 0] == 15 * 32 + 30


def env_on(task: Corner, walls: Tensor, at: dict[str, int]) -> GridEnv[CornerLevels]:
    """Return the environment of one level: the agent on A, the cheese on C."""
    env = task.make_env(1)
    env.reset(CornerLevels(walls.unsqueeze(0), torch.tensor([at["A"]]), torch.tensor([at["C"]])))
    return env


GRID = """
    ..#.
    .A.#
    ....
    #..C
    """


def test_egocentric_view_shows_walls_and_cheese_around_the_agent() -> None:
    env = env_on(Corner(size=4), *draw(GRID))
    seen = env._observe(env.state)[0]
    view, centre = draw(
        """
        #######
        #######
        ##..#.#
        ##.A.##
        ##....#
        ###..C#
        #######
        """
    )
    assert centre["A"] == 3 * 7 + 3
    assert torch.equal(seen[0].bool(), view)
    assert seen[1].flatten().nonzero().tolist() == [[centre["C"]]]


def test_full_view_shows_the_grid_with_a_border_and_the_agent_in_its_own_channel() -> None:
    env = env_on(CornerFull(size=4), *draw(GRID))
    seen = env._observe(env.state)[0]
    view, at = draw(
        """
        ######
        #..#.#
        #.A.##
        #....#
        ##..C#
        ######
        """
    )
    assert torch.equal(seen[0].bool(), view)
    assert seen[1].flatten().nonzero().tolist() == [[at["C"]]]
    assert seen[2].flatten().nonzero().tolist() == [[at["A"]]]


@pytest.mark.parametrize(("task", "shape"), [(CornerFull(), (3, 15, 15)), (DishFull(dish_channels=6), (9, 15, 15))])
def test_full_views_have_the_published_shape(task: GridTask[Any], shape: tuple[int, ...]) -> None:
    assert task.size == 13
    assert task.observation_shape == shape
    assert task.make_env(2).reset(task.sample_levels(2, 0.0, torch.Generator())).shape == (2, *shape)


@pytest.mark.parametrize(("near", "full"), [(Corner, CornerFull), (Dish, DishFull)])
def test_both_views_describe_the_same_state(near: type[GridTask[Any]], full: type[GridTask[Any]]) -> None:
    """Step for step: what the agent sees around it is what lies around it in the full view."""
    count, size = 20, 5
    tasks = [view(size=size, time_limit=12) for view in (near, full)]
    levels = tasks[0].sample_levels(count, 1.0, torch.Generator().manual_seed(0))
    envs = [task.make_env(count) for task in tasks]
    around, whole = (env.reset(levels) for env in envs)
    random = torch.Generator().manual_seed(1)
    for _ in range(12):
        *maps, own = whole.unbind(dim=1)
        assert bool((own.flatten(1).sum(dim=1) == 1).all())
        walls = maps[0].clone()
        assert bool(walls[:, [0, -1]].all())
        assert bool(walls[:, :, [0, -1]].all())
        assert not bool((walls & own).any())
        assert around.shape[1] == len(maps)
        for i in range(count):
            row, column = divmod(int(own[i].flatten().nonzero()), size + 2)
            for channel, seen in enumerate(maps):
                margin = torch.nn.functional.pad(seen[i], [size - 2] * 4, value=channel == 0)
                window = margin[row - 1 : row - 2 + 2 * size, column - 1 : column - 2 + 2 * size]
                assert torch.equal(around[i, channel], window)
        actions = torch.randint(4, (count,), generator=random)
        steps = [env.step(actions) for env in envs]
        assert torch.equal(steps[0].events, steps[1].events)
        around, whole = (step.observation for step in steps)


@pytest.mark.parametrize("task", [Corner(size=4), CornerFull(size=4)], ids=["egocentric", "full"])
@pytest.mark.parametrize(("action", "lands_on"), [("up", "U"), ("right", "A"), ("down", "D"), ("left", "L")])
def test_actions_move_and_walls_block(task: Corner, action: str, lands_on: str) -> None:
    walls, at = draw(
        """
        .U..
        LA#.
        .D..
        ...C
        """
    )
    env = env_on(task, walls, at)
    env.step(torch.tensor([task.actions.index(action)]))
    assert env.agent_cell().tolist() == [at[lands_on]]


@pytest.mark.parametrize("view", [Corner, CornerFull])
def test_borders_block(view: type[Corner]) -> None:
    task = view(size=4)
    for cell, actions in ((0, ("up", "left")), (15, ("right", "down"))):
        env = env_on(task, torch.zeros(4, 4, dtype=torch.bool), {"A": cell, "C": 5})
        for action in actions:
            env.step(torch.tensor([task.actions.index(action)]))
            assert env.agent_cell().tolist() == [cell]


def test_picture_shows_the_grid_with_a_border_and_the_agent_on_top() -> None:
    env = env_on(Corner(size=4), *draw(GRID))
    picture = env.picture()
    assert picture.text().splitlines() == [
        "████████████",
        "██+   ██  ██",
        "██  @   ████",
        "██        ██",
        "████    % ██",
        "████████████",
    ]
    assert picture.cells[2][2] == ("floor", "agent")


def test_open_cell_is_drawn_from_all_cells_without_a_wall(generator: torch.Generator) -> None:
    walls, at = draw("A#.#B")
    cells = open_cell(walls.view(1, 1, 5).expand(300, 1, 5), generator)
    assert set(cells.tolist()) == {at["A"], 2, at["B"]}


def test_toggled_flips_one_cell_where_it_should() -> None:
    walls = torch.tensor([[[True, False]], [[True, False]], [[True, False]]])
    flipped = toggled(walls, torch.tensor([0, 1, 0]), torch.tensor([True, True, False]))
    assert flipped.tolist() == [[[False, False]], [[True, True]], [[True, False]]]
    assert walls.tolist() == [[[True, False]]] * 3


@pytest.mark.parametrize("size", [3, 26, 4.0, True, "7"])
def test_size_has_bounds(size: Any) -> None:
    with pytest.raises(RequestError, match=repr(size)):
        Corner(size=size)
    assert [Corner(size=bound).observation_shape for bound in (4, 25)] == [(2, 7, 7), (2, 49, 49)]
    assert [CornerFull(size=bound).observation_shape for bound in (4, 25)] == [(3, 6, 6), (3, 27, 27)]


@pytest.mark.parametrize(
    "wrong", [{"wall_density": -0.01}, {"benign_wall_density": 0.51}, {"time_limit": 0}, {"time_limit": 1001}], ids=str
)
@pytest.mark.parametrize("task", [Corner, Dish])
def test_densities_and_time_limits_have_bounds(task: type[GridTask[Any]], wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=repr(next(iter(wrong.values())))):
        task(**wrong)
    for right in ({"wall_density": 0, "benign_wall_density": 0.5, "time_limit": 1}, {"time_limit": 1000}):
        task(**right)
