"""Shortest paths on batches of walled grids, for tasks that live on one."""

from __future__ import annotations

import torch
from torch import Tensor

UNREACHABLE = 1 << 20
"""The distance of a cell from which the target cannot be reached."""


def distances(walls: Tensor, target: Tensor) -> Tensor:
    """Return how many moves each cell is away from its level's target.

    Args:
        walls: ``bool[num_levels, height, width]``, True where one cannot stand.
        target: ``int64[num_levels]``, a row-major cell index.

    Returns:
        ``int64[num_levels, height * width]``; ``UNREACHABLE`` on walls and where no path exists.
    """
    num_levels, height, width = walls.shape
    free = ~walls
    reached = torch.zeros_like(walls)
    reached.view(num_levels, height * width).scatter_(1, target.unsqueeze(1), True)
    reached &= free
    steps = torch.zeros(walls.shape, dtype=torch.int32, device=walls.device)
    while True:
        steps += ~reached
        grown = reached.clone()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        grown &= free
        if torch.equal(grown, reached):
            break
        reached = grown
    return torch.where(reached, steps.long(), UNREACHABLE).view(num_levels, height * width)
