"""The batched environment: episodes of one task, held as tensors on one device and stepped together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from goalposts.benchmark.tasks.drawing import Picture
from goalposts.benchmark.tasks.levels import Levels

if TYPE_CHECKING:
    from goalposts.benchmark.tasks.task import Task

L = TypeVar("L", bound=Levels)


class Step(NamedTuple):
    """What one step of a batch of environments returns."""

    observation: Tensor
    """``[num_envs, *observation_shape]``, after the step and before any reset."""
    events: Tensor
    """``bool[num_envs, num_goals]``: the goals achieved at this step."""
    cost: Tensor
    """``float[num_envs]``: the step cost, subtracted from the reward for any goal."""
    terminated: Tensor
    """``bool[num_envs]``"""
    truncated: Tensor
    """``bool[num_envs]``: the episode reached the time limit without termination."""


class Advance(NamedTuple):
    """What a task's dynamics return. The time limit and the rewarded goal are handled by :class:`BatchedEnv`."""

    events: Tensor
    """``bool[num_envs, num_goals]``"""
    cost: Tensor | None = None
    """``float[num_envs]``. None if steps cost nothing."""
    died: Tensor | None = None
    """``bool[num_envs]``: episodes that cannot continue. None if no agent can die."""


class BatchedEnv(ABC, Generic[L]):
    """``num_envs`` episodes of one task, held as tensors on one device and stepped together.

    The whole state is ``self.state``: named tensors with first dimension ``num_envs``. A checkpoint of an environment
    is a copy of it. Every state has ``goal`` and ``elapsed``. It has ``time_limit`` (``int64[num_envs]``) if episodes
    differ in it.
    """

    def __init__(self, task: Task[L], num_envs: int, device: torch.device | str = "cpu") -> None:
        self.task = task
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.state: dict[str, Tensor] = {}
        self.watched = False
        """Set by an evaluation: also report events that are too costly to detect during training."""
        self._goal_terminates = torch.tensor([goal.terminal for goal in task.goals], device=self.device)

    @abstractmethod
    def _start(self, levels: L) -> dict[str, Tensor]:
        """Return the task's own state of fresh episodes on ``levels``."""

    @abstractmethod
    def _advance(self, actions: Tensor) -> Advance:
        """Apply ``int64[num_envs]`` actions to ``self.state``. ``elapsed`` does not count this step yet."""

    @abstractmethod
    def _observe(self, state: dict[str, Tensor]) -> Tensor:
        """Return the observation of each row of ``state``."""

    @abstractmethod
    def picture(self, index: int = 0) -> Picture:
        """Return a picture of episode ``index`` as it is now."""

    def overview(self, index: int = 0) -> Picture:
        """Return a picture of the whole level of episode ``index``, of which :meth:`picture` may show only a part."""
        return self.picture(index)

    def reset(self, levels: L, where: Tensor | None = None, goals: Tensor | None = None) -> Tensor:
        """Start new episodes.

        Args:
            levels: as many levels as there are episodes to start.
            where: ``bool[num_envs]``, the environments to restart. By default all of them.
            goals: ``int64[len(levels)]``, the goal each new episode is rewarded for. By default the aligned one.

        Returns:
            The first observation of each new episode.
        """
        count = len(levels)
        if goals is None:
            goals = torch.zeros(count, dtype=torch.int64, device=self.device)
        fresh = {
            "goal": goals,
            "elapsed": torch.zeros(count, dtype=torch.int64, device=self.device),
            **self._start(levels),
        }
        if where is None:
            self.state = {name: tensor.clone() for name, tensor in fresh.items()}
        else:
            index = where.nonzero().squeeze(1)
            for name, tensor in fresh.items():
                self.state[name].index_copy_(0, index, tensor)
        return self._observe(fresh)

    def step(self, actions: Tensor) -> Step:
        """Advance every episode by one step. Finished episodes must be reset first."""
        events, cost, died = self._advance(actions)
        self.state["elapsed"] += 1
        goal = self.state["goal"]
        achieved = events.gather(1, goal.unsqueeze(1)).squeeze(1)
        terminated = achieved & self._goal_terminates[goal]
        if died is not None:
            terminated |= died
        if cost is None:
            cost = torch.zeros(self.num_envs, device=self.device)
        truncated = (self.state["elapsed"] >= self.state.get("time_limit", self.task.time_limit)) & ~terminated
        return Step(self._observe(self.state), events, cost, terminated, truncated)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that hold the whole state."""
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        self.state = {name: tensor.to(self.device).clone() for name, tensor in state.items()}


ReferencePolicy = Callable[[Tensor], Tensor]
"""Maps observations to ``int64[num_envs]`` actions. It may read the environment that it was made for."""
