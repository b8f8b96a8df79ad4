"""Grids written as text, and what plain search in Python says of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from goalposts.benchmark.tasks.kinds.grid import UNREACHABLE

Cell = tuple[int, int]


def draw(rows: str) -> tuple[Tensor, dict[str, int]]:
    """Return the walls (``#``) of a drawn grid, and the index of every lettered cell."""
    lines = rows.split()
    letters = {letter: i for i, letter in enumerate("".join(lines)) if letter.isalpha()}
    return torch.tensor([[letter == "#" for letter in line] for line in lines]), letters


def neighbours(walls: Tensor, cell: Cell) -> list[Cell]:
    """Return the free cells beside ``cell``: up, right, down, left."""
    height, width = walls.shape
    beside = [(cell[0] + r, cell[1] + c) for r, c in ((-1, 0), (0, 1), (1, 0), (0, -1))]
    return [(r, c) for r, c in beside if 0 <= r < height and 0 <= c < width and not walls[r, c]]


def breadth_first(walls: Tensor, target: Cell) -> dict[Cell, int]:
    """Return the distance to ``target`` of every cell that can reach it."""
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
