"""Walled grids: shortest paths, the walker that all grid tasks share, and its two views.

The *egocentric* view has the agent in the middle. It reaches as far as the grid is wide, so borders show as walls. The
*full* view is the published one: the grid with a border of walls, and a channel for the agent.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from goalposts.benchmark.tasks.drawing import Picture
from goalposts.benchmark.tasks.environment import BatchedEnv
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.parameters import Parameters
from goalposts.benchmark.tasks.task import Task

UNREACHABLE = 1 << 20
"""The distance of a cell from which there is no path to the target."""


def distances(walls: Tensor, target: Tensor) -> Tensor:
    """Return the number of moves from each cell to its level's target.

    It is a breadth-first search over all levels at once. Each row of a grid is held as the bits of one integer.

    Args:
        walls: ``bool[num_levels, height, width]``, True where the agent cannot stand. At most 31 cells wide.
        target: ``int64[num_levels]``, a row-major cell index.

    Returns:
        ``int64[num_levels, height * width]``. It is ``UNREACHABLE`` on walls and where no path exists.
    """
    num_levels, height, width = walls.shape
    columns = torch.arange(width, dtype=torch.int32, device=walls.device)
    free = ((~walls).int() << columns).sum(dim=2, dtype=torch.int32)
    reached = torch.zeros_like(free)
    row = (target // width).unsqueeze(1)
    reached.scatter_(1, row, (1 << (target % width)).int().unsqueeze(1))
    reached &= free
    digits: list[Tensor] = []
    """Binary digits of the distances, lowest first: one bit per cell."""
    step = 0
    while True:
        grown = reached | (reached << 1) | (reached >> 1)
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= free
        fresh = grown ^ reached
        if not bool(fresh.any()):
            break
        step += 1
        if step.bit_length() > len(digits):
            digits.append(torch.zeros_like(free))
        for i, digit in enumerate(digits):
            if step >> i & 1:
                digit |= fresh
        reached = grown
    result = torch.zeros(walls.shape, dtype=torch.int32, device=walls.device)
    for i, digit in enumerate(digits):
        result += ((digit.unsqueeze(2) >> columns) & 1) << i
    within = ((reached.unsqueeze(2) >> columns) & 1).bool()
    return torch.where(within, result.long(), UNREACHABLE).view(num_levels, height * width)


def cell_distances(walls: Tensor, targets: Tensor) -> Tensor:
    """Return each cell's distance to each of the ``targets``, ``int64[num_levels, num_targets, cells]``."""
    num_targets = targets.shape[1]
    return distances(walls.repeat_interleave(num_targets, dim=0), targets.flatten()).view(*targets.shape, -1)


class View(StrEnum):
    """The view of a grid task's agent."""

    EGOCENTRIC = "egocentric"
    FULL = "full"


@dataclasses.dataclass(frozen=True)
class GridLevels(Levels):
    """Walled grids with a starting cell. Cells are row-major indices."""

    walls: Tensor
    """``bool[num_levels, size, size]``"""
    start: Tensor
    """``int64[num_levels]``"""


G = TypeVar("G", bound=GridLevels)

FEW_WALLS = {"wall_density": 0.1, "benign_wall_density": 0.2}
"""Parameters of the small plans of grid tasks."""
LONG_TRAINING: Mapping[str, Any] = {"num_steps": 32, "minibatch_size": 2048, "learning_rate": 3e-3, "gamma": 0.95}
"""Training settings of small plans for tasks where an action pays off much later."""
FULL_VIEW_TRAINING: Mapping[str, Any] = {
    "env_steps": 8_000, "network": "conv", "hidden_sizes": (64,), "learning_rate": 2e-3
}  # fmt: skip
"""Training settings of small plans for grid tasks with the full view, whose network is slower."""

CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
"""Cells that every grid has. They serve as goals that no level moves."""


class GridParameters(Parameters):
    """The size, the walls and the time limit of a grid. Each task has its own defaults."""

    size: int = Field(13, ge=4, le=25)
    """Cells along a side."""
    wall_density: float = Field(0.25, ge=0, le=0.5)
    """Probability that a cell is a wall."""
    benign_wall_density: float = Field(0.35, ge=0, le=0.5)
    """Probability that a cell is a wall under the benign shift."""
    time_limit: int = Field(64, ge=1, le=1000)
    """Most steps in an episode."""


class GridTask(Task[G]):
    """A task on a square walled grid. The agent moves up, right, down or left."""

    view: ClassVar[View] = View.EGOCENTRIC
    actions = ("up", "right", "down", "left")
    parameters_type: ClassVar[type[Parameters]] = GridParameters
    parameters: GridParameters
    channels: ClassVar[int] = 2
    """Channels of the observation, without the agent's own channel in the full view."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.size = self.parameters.size
        self.wall_density = self.parameters.wall_density
        self.benign_wall_density = self.parameters.benign_wall_density
        self.time_limit = self.parameters.time_limit
        self.observation_shape = self._observation_shape(self.channels)

    def _observation_shape(self, channels: int) -> tuple[int, int, int]:
        side = self.size + 2 if self.view is View.FULL else 2 * self.size - 1
        return (channels + (self.view is View.FULL), side, side)

    @property
    def cells(self) -> int:
        """Number of cells in a grid."""
        return self.size * self.size

    def corner_cell(self, name: str) -> int:
        """Return the index of a corner of the grid, one of ``CORNERS``."""
        last = self.size - 1
        return (0, last, self.size * last, self.cells - 1)[CORNERS.index(name)]

    def draw_walls(self, num_levels: int, density: float, generator: torch.Generator) -> Tensor:
        """Draw the walls of each cell independently, ``bool[num_levels, cells]``."""
        return torch.rand(num_levels, self.cells, generator=generator, device=generator.device) < density

    def draw_cells(self, num_levels: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``count`` different cells in each level, in random order, ``int64[num_levels, count]``."""
        scores = torch.rand(num_levels, self.cells, generator=generator, device=generator.device)
        return scores.topk(count, dim=1).indices


def open_cell(walls: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one cell without a wall in each grid of ``bool[num_levels, size, size]``, ``int64[num_levels]``."""
    scores = torch.rand(walls.flatten(1).shape, generator=generator, device=generator.device)
    return torch.where(walls.flatten(1), -1.0, scores).argmax(dim=1)


def toggled(walls: Tensor, cell: Tensor, where: Tensor) -> Tensor:
    """Return ``walls`` with one cell of each level (``int64[num_levels]``) flipped if ``where`` is True."""
    result = walls.flatten(1).clone()
    rows = torch.arange(len(cell), device=cell.device)
    result[rows, cell] ^= where
    return result.view_as(walls)


class GridEnv(BatchedEnv[G]):
    """The walker, on a grid padded with walls so that every window lies inside it.

    ``state["maps"]`` is ``bool[num_envs, 1 + objects, width * width]``, walls first. ``state["agent"]`` is the padded
    index of the agent's cell. Subclasses define where the objects of each kind lie.

    Args:
        task: the task.
        num_envs: number of parallel episodes.
        device: where the tensors are.
        shown: the maps that are observed, in order. A map may be repeated.
    """

    task: GridTask[G]

    def __init__(
        self, task: GridTask[G], num_envs: int, device: torch.device | str = "cpu", *, shown: Sequence[int]
    ) -> None:
        super().__init__(task, num_envs, device)
        size = task.size
        margin = 1 if task.view is View.FULL else size - 1
        self.width = size + 2 * margin
        rows = torch.arange(size, device=self.device) + margin
        self.inner = (rows.unsqueeze(1) * self.width + rows).flatten()
        """Padded index of each cell, ``int64[size * size]``."""
        self.to_cell = torch.zeros(self.width * self.width, dtype=torch.int64, device=self.device)
        """Cell index of each padded index. 0 outside the grid."""
        self.to_cell[self.inner] = torch.arange(len(self.inner), device=self.device)
        reach = torch.arange(-margin, margin + 1, device=self.device)
        self.window = (reach.unsqueeze(1) * self.width + reach).flatten()
        self.moves = torch.tensor([-self.width, 1, self.width, -1], device=self.device)
        self.shown = torch.tensor(shown, device=self.device)

    @abstractmethod
    def _objects(self, levels: G) -> list[Tensor]:
        """Return the cells of each kind of object, a list of ``int64[num_levels, count]``. -1 means no object."""

    def _start(self, levels: G) -> dict[str, Tensor]:
        count, objects = len(levels), self._objects(levels)
        maps = torch.zeros(count, 1 + len(objects), self.width * self.width, dtype=torch.bool, device=self.device)
        maps[:, 0] = True
        maps[:, 0, self.inner] = levels.walls.flatten(1)
        for channel, cells in enumerate(objects, start=1):
            there = torch.where(cells >= 0, self.inner[cells.clamp(min=0)], 0)  # Index 0 is outside the grid.
            maps[:, channel].scatter_(1, there, cells >= 0)
        return {"maps": maps, "agent": self.inner[levels.start]}

    def walls(self) -> Tensor:
        """Return the walls of each episode, ``bool[num_envs, size, size]``."""
        return self.state["maps"][:, 0, self.inner].view(-1, self.task.size, self.task.size)

    def agent_cell(self) -> Tensor:
        """Return the cell each agent stands on, ``int64[num_envs]``."""
        return self.to_cell[self.state["agent"]]

    def _landings(self) -> Tensor:
        """Return where each action leads, as padded indices, ``int64[num_envs, 4]``."""
        agent = self.state["agent"].unsqueeze(1)
        targets = agent + self.moves
        return torch.where(self.state["maps"][:, 0].gather(1, targets), agent, targets)

    def move(self, actions: Tensor) -> Tensor:
        """Move every agent that no wall blocks. Return its new place as a padded index."""
        agent = self.state["agent"]
        target = agent + self.moves[actions]
        blocked = self.state["maps"][:, 0].gather(1, target.unsqueeze(1)).squeeze(1)
        self.state["agent"] = torch.where(blocked, agent, target)
        return self.state["agent"]

    def nearest(self, distance: Tensor) -> Callable[[], Tensor]:
        """Return a function that finds the moves that land nearest to a target, ``bool[num_envs, num_actions]``.

        Args:
            distance: each cell's distance to the target, ``int64[num_envs, cells]``.
        """

        def best() -> Tensor:
            landing = distance.gather(1, self.to_cell[self._landings()])
            return landing == landing.amin(dim=1, keepdim=True)

        return best

    def _gauges(self, state: dict[str, Tensor]) -> Tensor | None:
        """Return gauges beside the map, ``bool[n, num_gauges]``. Repeated, they fill a last channel."""
        return None

    def _observe(self, state: dict[str, Tensor]) -> Tensor:
        maps, agent, count = state["maps"], state["agent"].unsqueeze(1), len(state["agent"])
        if self.task.view is View.FULL:
            own = torch.zeros_like(maps[:, :1]).scatter_(2, agent.unsqueeze(2), True)
            seen = torch.cat([maps[:, self.shown], own], dim=1)
        else:
            window = (agent + self.window).unsqueeze(1).expand(-1, maps.shape[1], -1)
            seen = maps.gather(2, window)
            if len(self.shown) != maps.shape[1]:
                seen = seen[:, self.shown]
        gauges = self._gauges(state)
        if gauges is not None:
            repeated = torch.arange(seen.shape[2], device=self.device) % gauges.shape[1]
            seen = torch.cat([seen, gauges[:, None, repeated]], dim=1)
        return seen.view(count, *self.task.observation_shape)

    def grid_picture(self, index: int, layers: Sequence[tuple[str, Sequence[int]]]) -> Picture:
        """Return a picture of the grid with a border.

        Args:
            index: the episode.
            layers: names of tiles and the cells that show them, from the lowest layer up. The agent comes on top.
        """
        size = self.task.size
        walls = self.walls()[index].flatten().tolist()
        cells = [["wall" if wall else "floor"] for wall in walls]
        for tile, where in layers:
            for cell in where:
                cells[cell].append(tile)
        cells[int(self.agent_cell()[index])].append("agent")
        wall = ("wall",)
        rows = [(wall, *map(tuple, cells[r * size : (r + 1) * size]), wall) for r in range(size)]
        edge = (wall,) * (size + 2)
        return Picture((edge, *rows, edge))

    def shown_cells(self, index: int, channel: int) -> list[int]:
        """Return the cells where objects of map ``channel`` lie now in episode ``index``."""
        where: list[int] = self.state["maps"][index, channel, self.inner].nonzero().flatten().tolist()
        return where
