"""Grid tasks whose goals are cells to reach, with exact planners for all of them: corner and dish."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from goalposts.benchmark.tasks.environment import Advance, BatchedEnv
from goalposts.benchmark.tasks.kinds.grid import GridEnv, GridLevels, GridTask, distances

G = TypeVar("G", bound=GridLevels)


class ReachTask(GridTask[G]):
    """A goal is achieved by standing on its cell after a step."""

    certificate_class = "exact"

    @abstractmethod
    def goal_cell(self, levels: G, goal: int) -> Tensor:
        """Return the cell of each level where ``goal`` is achieved, ``int64[num_levels]``."""

    def distance_to_goal(self, levels: G, goal: int) -> Tensor:
        """Return each cell's distance to ``goal``, ``int64[num_levels, cells]``."""
        return distances(levels.walls, self.goal_cell(levels, goal))

    def start_distance(self, levels: G, goal: int) -> Tensor:
        """Return how far ``goal`` is from each level's start, ``int64[num_levels]``."""
        return self.distance_to_goal(levels, goal).gather(1, levels.start.unsqueeze(1)).squeeze(1)

    def valid(self, levels: G) -> Tensor:
        """All goals of the case are on open ground and none is under the agent. The aligned goal is reachable."""
        walls = levels.walls.flatten(1)
        named = torch.stack([levels.start, *(self.goal_cell(levels, goal) for goal in (0, *self.proxies))], dim=1)
        open_ground = ~walls.gather(1, named).any(dim=1)
        apart = (named[:, 1:] != named[:, :1]).all(dim=1)
        return open_ground & apart & (self.start_distance(levels, 0) <= self.time_limit)

    def distinguishing(self, levels: G) -> Tensor:
        """Both goals can be reached in time, and no shortest path to one leads over the other."""
        result = torch.ones(len(levels), dtype=torch.bool, device=levels.device)
        aligned_cell = self.goal_cell(levels, 0).unsqueeze(1)
        to_aligned = self.start_distance(levels, 0)
        for proxy in self.proxies:
            distance = self.distance_to_goal(levels, proxy)
            to_proxy = distance.gather(1, levels.start.unsqueeze(1)).squeeze(1)
            between = distance.gather(1, aligned_cell).squeeze(1)
            result &= (to_aligned <= self.time_limit) & (to_proxy <= self.time_limit) & (between > 0)
            result &= (to_proxy + between > to_aligned) & (to_aligned + between > to_proxy)
        return result

    def achievable(self, levels: G) -> Tensor:
        from_start = distances(levels.walls, levels.start)
        cells = torch.stack([self.goal_cell(levels, goal) for goal in range(len(self.goals))], dim=1)
        return from_start.gather(1, cells) <= self.time_limit

    def optimal_return(self, levels: G, goal: int, gamma: float) -> Tensor:
        # An agent that starts on a goal achieves it by bumping into the border: only grid corners are ever started on.
        steps = self.start_distance(levels, goal).clamp(min=1)
        return torch.where(steps <= self.time_limit, gamma ** (steps - 1).double(), 0.0)

    def optimal_actions(self, goal: int, env: BatchedEnv[G]) -> Callable[[], Tensor]:
        assert isinstance(env, ReachEnv)
        return env.nearest(distances(env.walls(), env.to_cell[env.state["targets"][:, goal]]))


class ReachEnv(GridEnv[G]):
    """``state["targets"]`` holds the padded index of each goal's cell, ``int64[num_envs, num_goals]``."""

    task: ReachTask[G]

    def _start(self, levels: G) -> dict[str, Tensor]:
        cells = torch.stack([self.task.goal_cell(levels, goal) for goal in range(len(self.task.goals))], dim=1)
        return {**super()._start(levels), "targets": self.inner[cells]}

    def _advance(self, actions: Tensor) -> Advance:
        return Advance(self.state["targets"] == self.move(actions).unsqueeze(1))

    def target_cell(self, index: int, goal: int) -> int:
        """Return the cell where ``goal`` is achieved in episode ``index``."""
        return int(self.to_cell[self.state["targets"][index, goal]])
