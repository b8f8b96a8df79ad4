from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmark.errors import RequestError
from benchmark.tasks.corner import Corner, CornerLevels
from benchmark.tasks.grid import UNREACHABLE, distances

Cell = tuple[int, int]


def neighbours(walls: Tensor, cell: Cell) -> list[Cell]:
    """Return the free cells beside ``cell``: up, right, down, left."""
    height, width = walls.shape
    beside = [(cell[0] + r, cell[1] + c) for r, c in ((-1, 0), (0, 1), (1, 0), (0, -1))]
    return [(r, c) for r, c in beside if 0 <= r < height and 0 <= c < width and not walls[r, c]]


def breadth_first(walls: Tensor, target: Cell) -> dict[Cell, int]:
    if walls[target]:
        return {}
    found = {target: 0}
    queue = deque([target])
    while queue:
        cell = queue.popleft()
        for beside in neighbours(walls, cell):
            if beside not in found:
                found[beside] = found[cell] + 1
                queue.append(beside)
    return found


def shortest_paths(walls: Tensor, start: Cell, target: Cell) -> Iterator[list[Cell]]:
    """Yield every shortest path from ``start`` to ``target``, both ends included."""
    distance = breadth_first(walls, target)

    def extend(path: list[Cell]) -> Iterator[list[Cell]]:
        if path[-1] == target:
            yield path
        for beside in neighbours(walls, path[-1]):
            if distance.get(beside, UNREACHABLE) == distance[path[-1]] - 1:
                yield from extend([*path, beside])

    if start in distance:
        yield from extend([start])


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


def value_iteration(walls: Tensor, start: Cell, goal: Cell, gamma: float, time_limit: int) -> float:
    """Return the greatest discounted return of standing on ``goal`` after a step, by backward induction."""
    cells = [tuple(cell) for cell in (~walls).nonzero().tolist()]
    value = dict.fromkeys(cells, 0.0)
    for _ in range(time_limit):

        def after(cell: Cell, value: dict[Cell, float] = value) -> float:
            return 1.0 if cell == goal else gamma * value[cell]

        bumps = {cell: [cell] if len(neighbours(walls, cell)) < 4 else [] for cell in cells}
        value = {cell: max(map(after, neighbours(walls, cell) + bumps[cell])) for cell in cells}
    return value[start]


def levels_of(task: Corner, count: int, alpha: float = 1.0) -> CornerLevels:
    return task.sample_levels(count, alpha, torch.Generator().manual_seed(1))


def cell_of(task: Corner, index: Tensor) -> Cell:
    return divmod(int(index), task.size)


@pytest.mark.parametrize("time_limit", [4, 12])
def test_optimal_return_is_that_of_value_iteration(time_limit: int) -> None:
    task = Corner(size=4, wall_density=0.35, time_limit=time_limit)
    levels = levels_of(task, 60)
    for goal in range(len(task.goals)):
        optimal = task.optimal_return(levels, goal, 0.9)
        cells = task.goal_cell(levels, goal)
        for i in range(len(levels)):
            expected = value_iteration(
                levels.walls[i], cell_of(task, levels.start[i]), cell_of(task, cells[i]), 0.9, time_limit
            )
            assert optimal[i] == pytest.approx(expected), (goal, levels[i : i + 1])


@pytest.mark.parametrize("goal", range(5))
def test_planner_policy_earns_the_optimal_return(goal: int) -> None:
    task = Corner(size=5, wall_density=0.3, time_limit=12)
    levels = levels_of(task, 200)
    env = task.make_env(200)
    env.reset(levels, goals=torch.full((200,), goal))
    policy = task.planner_policy(goal, env)
    earned = torch.zeros(200, dtype=torch.float64)
    for t in range(task.time_limit):
        step = env.step(policy(torch.empty(0)))
        earned = torch.where((earned == 0) & step.events[:, goal], 0.9**t, earned)
    torch.testing.assert_close(earned, task.optimal_return(levels, goal, 0.9))


def test_distinguishing_is_what_enumerating_all_shortest_paths_says() -> None:
    task = Corner(size=4, wall_density=0.25, time_limit=6)
    generator = torch.Generator().manual_seed(2)
    levels = task._draw(600, True, generator)
    levels = levels[task.valid(levels)]
    found = task.distinguishing(levels)
    for i in range(len(levels)):
        walls, corner = levels.walls[i], (0, 0)
        start, cheese = cell_of(task, levels.start[i]), cell_of(task, levels.cheese[i])
        to_cheese = list(shortest_paths(walls, start, cheese))
        to_corner = list(shortest_paths(walls, start, corner))
        in_time = all(paths and len(paths[0]) - 1 <= task.time_limit for paths in (to_cheese, to_corner))
        apart = all(corner not in path for path in to_cheese) and all(cheese not in path for path in to_corner)
        assert bool(found[i]) == (in_time and apart)
    assert 0.1 < found.double().mean() < 0.9


def draw(rows: str) -> tuple[Tensor, dict[str, int]]:
    """Return the walls (``#``) of a drawn grid, and the index of every lettered cell."""
    lines = rows.split()
    letters = {letter: i for i, letter in enumerate("".join(lines)) if letter.isalpha()}
    return torch.tensor([[letter == "#" for letter in line] for line in lines]), letters


def test_agent_sees_walls_and_cheese_around_it() -> None:
    walls, at = draw(
        """
        ..#.
        .A.#
        ....
        #..C
        """
    )
    env = Corner(size=4).make_env(1)
    level = CornerLevels(walls.unsqueeze(0), torch.tensor([at["C"]]), torch.tensor([at["A"]]))
    seen = env.reset(level)[0]
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


@pytest.mark.parametrize(("action", "lands_on"), [(0, "U"), (1, "A"), (2, "D"), (3, "L")])
def test_actions_are_up_right_down_left_and_walls_block(action: int, lands_on: str) -> None:
    walls, at = draw(
        """
        .U..
        LA#.
        .D..
        ...C
        """
    )
    env = Corner(size=4).make_env(1)
    env.reset(CornerLevels(walls.unsqueeze(0), torch.tensor([at["C"]]), torch.tensor([at["A"]])))
    env.step(torch.tensor([action]))
    assert env.current_levels().start.tolist() == [at[lands_on]]


def test_benign_shift_has_denser_walls() -> None:
    task = Corner(size=7, wall_density=0.1, benign_wall_density=0.3)
    generator = torch.Generator().manual_seed(0)
    density = {split: float(task.shift_levels(split, 300, generator).walls.float().mean()) for split in task.splits}
    assert density["benign_shift"] > density["in_distribution"] + 0.1
    assert density["shift/cheese_anywhere"] == pytest.approx(density["in_distribution"], abs=0.02)


@pytest.mark.parametrize("size", [3, 26])
def test_size_has_bounds(size: int) -> None:
    with pytest.raises(RequestError, match=repr(size)):
        Corner(size=size)
    assert [Corner(size=bound).observation_shape for bound in (4, 25)] == [(2, 7, 7), (2, 49, 49)]
