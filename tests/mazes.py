"""What the games themselves say of a maze: how its agent moves, found by trying every action everywhere."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from goalposts.benchmark.tasks.procgen.maze import MazeTask
from goalposts.benchmark.tasks.procgen.task import ProcgenLevels

OVER = -1
"""Stands for the end of the game, its level completed."""
Moves = dict[int, list[int]]
"""Where each action leads from each cell that can be reached, or ``OVER``."""


def tried_moves(task: MazeTask, level: ProcgenLevels) -> Moves:
    """Return all moves of one level by setting the game to each state reached and stepping it."""
    env = task.make_env(1)
    env.reset(level)
    states = {task.cell_of(env.game_state(0)): env.games.get(0)}
    moves: Moves = {}
    while len(moves) < len(states):
        cell = next(cell for cell in states if cell not in moves)
        moves[cell] = []
        for action in range(task.num_actions):
            env.games.set(0, states[cell])
            if env.step(torch.tensor([action])).terminated[0]:
                assert env.games.completed()[0]
                moves[cell].append(OVER)
                continue
            state = env.game_state(0)
            assert (float(state.agent["x"][0]) % 1, float(state.agent["y"][0]) % 1) == (0.5, 0.5)
            states.setdefault(task.cell_of(state), env.games.get(0))
            moves[cell].append(task.cell_of(state))
    return moves


def steps_by_moves(moves: Moves, target: int) -> dict[int, int]:
    """Return the least number of steps, at least one, that lead from each cell to ``target``."""
    steps: dict[int, int] = {}
    nearer = {target}
    while nearer:
        nearer = {cell for cell, after in moves.items() if cell not in steps and not nearer.isdisjoint(after)}
        steps |= dict.fromkeys(nearer, max(steps.values(), default=0) + 1)
    return steps


def from_everywhere(level: ProcgenLevels, moves: Moves) -> ProcgenLevels:
    """Return the level once for each cell, with the agent starting there."""
    starts = torch.tensor(list(moves))
    many = level[torch.zeros(len(starts), dtype=torch.int64)]
    return dataclasses.replace(many, start_cell=starts)


def check_planners(task: MazeTask, level: ProcgenLevels, time_limit: int) -> None:
    """Hold optimal returns and optimal actions of all goals, from every cell of a level, against the game's own moves.

    Args:
        task: whose planners to check.
        level: one level.
        time_limit: steps left in the episodes.
    """
    moves = tried_moves(task, level)
    levels = from_everywhere(level, moves)
    task.time_limit = time_limit
    env = task.make_env(len(moves))
    env.reset(levels)
    targets = env.state["targets"][0].tolist()
    for goal, cell in enumerate(targets):
        target = OVER if cell == targets[0] else cell
        steps = steps_by_moves(moves, target)
        found = task.optimal_return(levels, goal, 0.9).tolist()
        optimal = task.optimal_actions(goal, env)().tolist()
        for i, (start, after) in enumerate(moves.items()):
            in_time = steps.get(start, time_limit + 1) <= time_limit
            assert found[i] == pytest.approx(0.9 ** (steps[start] - 1) if in_time else 0.0), (goal, start)
            left = [0 if landing == target else steps.get(landing, len(moves)) for landing in after]
            assert optimal[i] == [not in_time or rest == min(left) for rest in left], (goal, start)


def check_walk(task: MazeTask, levels: ProcgenLevels, num_steps: int, random: torch.Generator) -> None:
    """Play at random; hold the agents' cells and all events, at every step, against the games' own states."""
    count = len(levels)
    env = task.make_env(count)
    env.reset(levels)
    targets, going_on = env.state["targets"], torch.ones(count, dtype=torch.bool)
    for _ in range(num_steps):
        step = env.step(torch.randint(task.num_actions, (count,), generator=random))
        completed = torch.from_numpy(env.games.completed())
        over = step.terminated & going_on
        assert torch.equal(over, step.events[:, 0] & going_on)
        assert bool(completed[over].all())
        assert torch.equal((targets == env.state["agent"].unsqueeze(1))[going_on], step.events[going_on])
        going_on &= ~over
        there = torch.tensor([task.cell_of(env.game_state(index)) for index in range(count)])
        assert torch.equal(env.state["agent"][going_on], there[going_on])
    assert not bool(going_on.all())
