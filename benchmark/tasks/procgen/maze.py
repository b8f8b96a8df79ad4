"""What tasks in Procgen's mazes share: an agent that walks whole cells, and planners for every goal."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from goalposts.benchmark.tasks.drawing import Picture
from goalposts.benchmark.tasks.environment import Advance, BatchedEnv
from goalposts.benchmark.tasks.kinds.grid import distances, open_cell
from goalposts.benchmark.tasks.parameters import Parameters
from goalposts.benchmark.tasks.procgen.state import GameState
from goalposts.benchmark.tasks.procgen.task import (
    NOWHERE,
    UNMOVED,
    Photograph,
    ProcgenEnv,
    ProcgenLevels,
    ProcgenParameters,
    ProcgenTask,
)

WALL = 51
"""Code of the grid."""
CARDINAL = (1, 1, 1, 3, 4, 5, 7, 7, 7)
"""Effect of each action in a maze. A diagonal goes sideways, as in the game ``maze``."""


class MazeParameters(ProcgenParameters):
    """Parameters of a game whose agent walks whole cells."""

    paint_velocity: Literal[False] = False
    """An agent in a maze has no velocity."""
    action_repeat: Literal[1] = 1
    time_limit: int = Field(256, ge=1, le=10_000)


class MazeTask(ProcgenTask):
    """A game whose agent walks one cell per step through a maze. Its goals are cells, with planners for all of them.

    A cell's number is row · side + column, where row 0 is the lowest. Reaching goal 0 completes the game's level and
    ends the episode, whatever goal is rewarded. So the planner of another goal treats that cell as a wall.
    """

    parameters_type: ClassVar[type[Parameters]] = MazeParameters
    parameters: MazeParameters
    sides: ClassVar[Mapping[str, int]]
    """Cells a side of the world in each mode. The maze may be smaller."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.side = self.sides[self.parameters.mode]

    @abstractmethod
    def targets(self, levels: ProcgenLevels, walls: Tensor) -> Tensor:
        """Return the cell where each goal is achieved, ``int64[num_levels, num_goals]``.

        Args:
            levels: well-formed levels.
            walls: their walls, ``bool[num_levels, side, side]``.
        """

    def tiles(self, env: MazeEnv, index: int) -> list[tuple[int, str]]:
        """Return the cells of episode ``index`` that hold something, and the tiles that show it."""
        return []

    def make_env(self, num_envs: int, device: torch.device | str = "cpu") -> MazeEnv:
        return MazeEnv(self, num_envs, device)

    def mazes(self, levels: ProcgenLevels) -> tuple[Tensor, Tensor]:
        """Return the walls, ``bool[num_levels, side, side]``, and the start, ``int64[num_levels]``, of each level."""
        states = self.level_states(levels.seed.tolist())
        grids = np.array([state.grid == WALL for state in states], dtype=bool).reshape(-1, self.side, self.side)
        made = torch.tensor([self.cell_of(state) for state in states], dtype=torch.int64, device=levels.device)
        start = torch.where(levels.start_cell == UNMOVED, made, levels.start_cell)
        return torch.from_numpy(grids).to(levels.device), start

    def cell_of(self, state: GameState) -> int:
        """Return the cell the agent stands on."""
        return int(state.agent["y"][0]) * self.side + int(state.agent["x"][0])

    def put(self, state: GameState, start_cell: int) -> None:
        """Move the agent to a cell, or leave it where it is."""
        if start_cell != UNMOVED:
            row, column = divmod(start_cell, self.side)
            state.agent["x"], state.agent["y"] = column + 0.5, row + 0.5

    def game_events(self, env: ProcgenEnv, completed: NDArray[np.bool_]) -> Tensor:
        """Goal 0 as the game reports it, the others by the agent's cell."""
        events = env.state["targets"] == env.state["agent"].unsqueeze(1)
        events[:, 0] = torch.from_numpy(completed).to(env.device)
        return events

    @staticmethod
    def distance_to_goal(walls: Tensor, targets: Tensor, goal: int) -> Tensor:
        """Return the number of steps from each cell to ``goal``, ``int64[num_levels, cells]``.

        Args:
            walls: ``bool[num_levels, side, side]``
            targets: the cell of each goal, ``int64[num_levels, num_goals]``.
            goal: index of the goal.
        """
        first, target = targets[:, 0], targets[:, goal]
        rows = torch.arange(len(walls), device=walls.device)
        blocked = walls.flatten(1).clone()
        blocked[rows, first] |= first != target
        return distances(blocked.view_as(walls), target)

    def start_distance(self, levels: ProcgenLevels, goal: int) -> Tensor:
        """Return the number of steps from each level's start to ``goal``, ``int64[num_levels]``."""
        walls, start = self.mazes(levels)
        distance = self.distance_to_goal(walls, self.targets(levels, walls), goal)
        return distance.gather(1, start.unsqueeze(1)).squeeze(1)

    def valid(self, levels: ProcgenLevels) -> Tensor:
        """All goals are on open ground. None of the case's is under the agent, and the aligned one is reachable."""
        cells = self.side**2
        result = super().valid(levels) & (levels.goal_cell >= 0)
        result &= (levels.goal_cell < cells) & (levels.start_cell < cells)
        if bool(result.any()):
            result[result.clone()] = self._open(levels[result])
        return result

    def _open(self, levels: ProcgenLevels) -> Tensor:
        """Like :meth:`valid`, for levels whose cells lie in the world, ``bool[num_levels]``."""
        walls, start = self.mazes(levels)
        targets = self.targets(levels, walls)
        steps = self.distance_to_goal(walls, targets, 0).gather(1, start.unsqueeze(1)).squeeze(1)
        named = torch.cat([targets, start.unsqueeze(1)], dim=1)
        apart = (targets[:, [0, *self.proxies]] != start.unsqueeze(1)).all(dim=1)
        return ~walls.flatten(1).gather(1, named).any(dim=1) & apart & (steps <= self.time_limit)

    def distinguishing(self, levels: ProcgenLevels) -> Tensor:
        """Both goals can be reached in time, and no shortest path to one leads over the other."""
        walls, start = self.mazes(levels)
        targets = self.targets(levels, walls)
        from_start, from_aligned = distances(walls, start), distances(walls, targets[:, 0])
        to_aligned = from_start.gather(1, targets[:, :1])
        proxies = targets[:, list(self.proxies)]
        to_proxy, between = from_start.gather(1, proxies), from_aligned.gather(1, proxies)
        in_time = (to_aligned <= self.time_limit) & (to_proxy <= self.time_limit)
        apart = (to_proxy + between > to_aligned) & (to_aligned + between > to_proxy)
        return (in_time & apart).all(dim=1)

    def achievable(self, levels: ProcgenLevels) -> Tensor:
        steps = [self.start_distance(levels, goal) for goal in range(len(self.goals))]
        return torch.stack(steps, dim=1) <= self.time_limit

    def optimal_return(self, levels: ProcgenLevels, goal: int, gamma: float) -> Tensor:
        steps = self.start_distance(levels, goal).clamp(min=1)  # An agent that starts on a goal achieves it by staying.
        return torch.where(steps <= self.time_limit, gamma ** (steps - 1).double(), 0.0)

    def optimal_actions(self, goal: int, env: BatchedEnv[ProcgenLevels]) -> Callable[[], Tensor]:
        assert isinstance(env, MazeEnv)
        distance = self.distance_to_goal(env.state["walls"], env.state["targets"], goal)

        def best() -> Tensor:
            steps = 1 + distance.gather(1, env.landings())
            least = steps.amin(dim=1, keepdim=True)
            too_late = env.state["elapsed"].unsqueeze(1) + least > self.time_limit
            return (steps == least) | too_late

        return best

    def free_cell(self, free: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one free cell of each level, ``int64[num_levels]``.

        It is ``NOWHERE``, and counts the level as skipped, if a level has no free cell.

        Args:
            free: the cells to choose from, ``bool[num_levels, cells]``.
            generator: source of randomness, on their device.
        """
        found = free.any(dim=1)
        self.skipped += int((~found).sum())
        return torch.where(found, open_cell(~free, generator), NOWHERE)


class MazeEnv(ProcgenEnv):
    """Tracks each agent's cell, ``state["agent"]``, by walking along with the game.

    ``state["walls"]`` is ``bool[num_envs, side, side]``. ``state["targets"]`` is the cell of each goal,
    ``int64[num_envs, num_goals]``.
    """

    task: MazeTask

    def __init__(self, task: MazeTask, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(task, num_envs, device)
        self._cardinal = torch.tensor(CARDINAL, device=self.device)

    def _start(self, levels: ProcgenLevels) -> dict[str, Tensor]:
        walls, start = self.task.mazes(levels)
        known = {"walls": walls, "agent": start, "targets": self.task.targets(levels, walls)}
        return {**super()._start(levels), **{name: tensor.to(self.device) for name, tensor in known.items()}}

    def landings(self) -> Tensor:
        """Return the cell that each action leads to, ``int64[num_envs, num_actions]``."""
        side, agent = self.task.side, self.state["agent"].unsqueeze(1)
        right, up = self._cardinal // 3 - 1, self._cardinal % 3 - 1
        row, column = (agent // side + up).clamp(0, side - 1), (agent % side + right).clamp(0, side - 1)
        beside = row * side + column
        return torch.where(self.state["walls"].flatten(1).gather(1, beside), agent, beside)

    def _advance(self, actions: Tensor) -> Advance:
        self.state["agent"] = self.landings().gather(1, actions.unsqueeze(1)).squeeze(1)
        return super()._advance(self._cardinal[actions])

    def picture(self, index: int = 0) -> Picture:
        return Photograph(self.overview(index).cells, rgb=self.camera.photograph(self.visible_state(index)).tobytes())

    def overview(self, index: int = 0) -> Picture:
        side = self.task.side
        walls = self.state["walls"][index].flatten().tolist()
        cells: list[tuple[str, ...]] = [("wall",) if wall else ("floor",) for wall in walls]
        for cell, tile in (*self.task.tiles(self, index), (int(self.state["agent"][index]), "agent")):
            cells[cell] += (tile,)
        return Picture(tuple(tuple(cells[row * side : (row + 1) * side]) for row in reversed(range(side))))


def unmoved(seeds: Tensor) -> ProcgenLevels:
    """Return the levels of ``int64[num_levels]`` seeds as the game makes them."""
    return ProcgenLevels(seeds, torch.full_like(seeds, UNMOVED), torch.full_like(seeds, UNMOVED))
