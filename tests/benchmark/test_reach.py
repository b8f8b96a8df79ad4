from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.tasks.corner import Corner
from goalposts.benchmark.tasks.dish import Dish
from goalposts.benchmark.tasks.kinds.reach import ReachTask
from tests.grids import Cell, shortest_paths, value_iteration

each_task = pytest.mark.parametrize("task_type", [Corner, Dish])


def cell_of(task: ReachTask[Any], index: Tensor) -> Cell:
    return divmod(int(index), task.size)


@each_task
@pytest.mark.parametrize("time_limit", [4, 12])
def test_optimal_return_is_that_of_value_iteration(task_type: type[ReachTask[Any]], time_limit: int) -> None:
    task = task_type(size=4, wall_density=0.35, time_limit=time_limit)
    levels = task.sample_levels(40, 1.0, torch.Generator().manual_seed(1))
    for goal in range(len(task.goals)):
        optimal = task.optimal_return(levels, goal, 0.9)
        cells = task.goal_cell(levels, goal)
        for i in range(len(levels)):
            expected = value_iteration(
                levels.walls[i], cell_of(task, levels.start[i]), cell_of(task, cells[i]), 0.9, time_limit
            )
            assert optimal[i] == pytest.approx(expected), (goal, levels[i : i + 1])


@each_task
def test_planner_policy_earns_the_optimal_return(task_type: type[ReachTask[Any]]) -> None:
    task = task_type(size=5, wall_density=0.3, time_limit=12)
    levels = task.sample_levels(200, 1.0, torch.Generator().manual_seed(1))
    for goal in range(len(task.goals)):
        env = task.make_env(200)
        env.reset(levels, goals=torch.full((200,), goal))
        policy = task.planner_policy(goal, env)
        earned = torch.zeros(200, dtype=torch.float64)
        for t in range(task.time_limit):
            step = env.step(policy(torch.empty(0)))
            earned = torch.where((earned == 0) & step.events[:, goal], 0.9**t, earned)
        torch.testing.assert_close(earned, task.optimal_return(levels, goal, 0.9))


@each_task
def test_distinguishing_is_what_enumerating_all_shortest_paths_says(task_type: type[ReachTask[Any]]) -> None:
    task = task_type(size=4, wall_density=0.25, time_limit=6)
    levels = task._draw(600, True, torch.Generator().manual_seed(2))
    levels = levels[task.valid(levels)]
    found = task.distinguishing(levels)
    aligned, proxy = (task.goal_cell(levels, goal) for goal in (0, *task.proxies))
    for i in range(len(levels)):
        walls, start = levels.walls[i], cell_of(task, levels.start[i])
        ends = [cell_of(task, aligned[i]), cell_of(task, proxy[i])]
        paths = [list(shortest_paths(walls, start, end)) for end in ends]
        in_time = all(found and len(found[0]) - 1 <= task.time_limit for found in paths)
        apart = all(other not in path for other, found in zip(ends[::-1], paths, strict=True) for path in found)
        assert bool(found[i]) == (in_time and apart)
    assert 0.1 < found.double().mean() < 0.95


@each_task
def test_valid_refuses_each_flaw(task_type: type[ReachTask[Any]]) -> None:
    """A wall on the start or a goal, a goal under the agent, an aligned goal out of reach."""
    task = task_type(size=4, time_limit=3)
    levels = task.sample_levels(200, 1.0, torch.Generator().manual_seed(1))
    rows = torch.arange(200)
    proxy = task.goal_cell(levels, 1)
    for cell in (levels.start, levels.cheese, proxy):
        walls = levels.walls.flatten(1).clone()
        walls[rows, cell] = True
        assert not bool(task.valid(type(levels)(**{**levels.tensors(), "walls": walls.view_as(levels.walls)})).any())
    for cell in (levels.cheese, proxy):
        assert not bool(task.valid(type(levels)(**{**levels.tensors(), "start": cell})).any())
    shut = torch.ones(200, 16, dtype=torch.bool)
    for cell in (levels.start, levels.cheese, proxy):
        shut[rows, cell] = False
    alone = type(levels)(**{**levels.tensors(), "walls": shut.view_as(levels.walls)})
    assert torch.equal(task.valid(alone), task.start_distance(alone, 0) <= 3)
    assert not bool(task.valid(alone).all())
