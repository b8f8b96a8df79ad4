"""A controller that tries a few short plans in copies of the game. It follows the plan that ends nearest its target.

The scripted reference policies of platform games use it, with one target for each goal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goalposts.benchmark.tasks.procgen.games import Games
from goalposts.benchmark.tasks.procgen.state import GameState, edited_bytes
from goalposts.benchmark.tasks.procgen.task import ProcgenEnv

Target = Callable[[int, GameState], tuple[float, float]]
"""Returns the place of an episode's target, in cells, given its number and state."""
TOGETHER = 16
"""Episodes planned in parallel."""
ARRIVED, DEAD = 1e3, -1e3
"""Value of a plan that completes the level, and of a plan in which the agent dies."""
LEFT, LEFT_UP, STAY, UP, RIGHT, RIGHT_UP = 1, 2, 4, 5, 7, 8
"""Actions."""


def plans(horizon: int) -> NDArray[np.int64]:
    """Return plans for a target on the right, ``int64[num_plans, horizon]`` actions.

    The plans walk, jump now, jump later, or wait.
    """
    jump, hop = [RIGHT_UP] * 5, [RIGHT_UP] * 2
    beginnings: list[list[int]] = [[], jump, hop, [UP] * 4, [STAY] * 4, [LEFT] * 3, [LEFT] * 3 + jump, [LEFT_UP] * 3]
    beginnings += [[RIGHT] * wait + jump for wait in (1, 2, 3, 5, 7)]
    beginnings += [[STAY] * wait + jump for wait in (3, 7)]
    beginnings += [[RIGHT_UP] * horizon]
    rows = [(beginning + [RIGHT] * horizon)[:horizon] for beginning in beginnings]
    return np.array(rows)


_MIRRORED = np.array([6, 7, 8, 3, 4, 5, 0, 1, 2])
"""Each action with left and right swapped."""


class Lookahead:
    """Acts in every episode of an environment.

    Args:
        env: the environment whose games are copied.
        target: returns the target of each episode.
        blind: removes the goal from the copies, so that a controller with another target neither seeks nor avoids it.
        horizon: actions that a plan looks ahead.
        followed: actions of a plan that are followed before the next plan is made.
    """

    def __init__(
        self,
        env: ProcgenEnv,
        target: Target,
        blind: Callable[[GameState], None] | None = None,
        horizon: int = 18,
        followed: int = 3,
    ) -> None:
        self.env = env
        self.target = target
        self.blind = blind
        self.horizon = max(horizon // env.task.action_repeat, 1)
        self.followed = max(followed // env.task.action_repeat, 1)
        self._plans = plans(self.horizon)
        self._copies = Games(env.task.game, TOGETHER * len(self._plans), env.task.look)
        self._queue = np.zeros((env.num_envs, 0), dtype=np.int64)
        self._time = np.zeros(env.num_envs, dtype=np.int64)
        self._over = np.zeros(env.num_envs, dtype=bool)

    def __call__(self, _observation: Tensor) -> Tensor:
        if not self._queue.shape[1]:
            self._queue = np.full((self.env.num_envs, self.followed), STAY)
            states = {i: self.env.game_state(i) for i in (~self._over).nonzero()[0].tolist()}
            for i, state in states.items():
                time = int(state.status["time"][0])
                self._over[i] = time < self._time[i]  # The game has started another episode itself.
                self._time[i] = time
            going = [i for i in states if not self._over[i]]
            for first in range(0, len(going), TOGETHER):
                self._plan([(i, states[i]) for i in going[first : first + TOGETHER]])
        actions, self._queue = self._queue[:, 0], self._queue[:, 1:]
        return torch.from_numpy(actions.copy())

    def _plan(self, episodes: Sequence[tuple[int, GameState]]) -> None:
        count = len(self._plans)
        moves = np.full((self._copies.count, self.horizon), STAY)
        targets = np.zeros((self._copies.count, 2))
        for k, (i, state) in enumerate(episodes):
            targets[k * count : (k + 1) * count] = self.target(i, state)
            on_the_left = targets[k * count, 0] < float(state.agent["x"][0])
            moves[k * count : (k + 1) * count] = _MIRRORED[self._plans] if on_the_left else self._plans
            copied = state.copy()
            if self.blind is not None:
                self.blind(copied)
            data = edited_bytes(copied, self.env.task.game)
            for row in range(k * count, (k + 1) * count):
                self._copies.set(row, data)
        values = self._values(moves, targets, len(episodes) * count).reshape(len(episodes), count)
        for k, (i, _state) in enumerate(episodes):
            best = int(values[k].argmax())
            self._queue[i] = moves[k * count + best, : self.followed]

    def _values(self, moves: NDArray[np.int64], targets: NDArray[np.float64], used: int) -> NDArray[np.float64]:
        """Return the value of each plan, ``float64[used]``: how near it comes, and how soon."""
        ended = np.zeros(self._copies.count, dtype=bool)
        worth = np.zeros(self._copies.count)
        for t in range(self.horizon):
            for _ in range(self.env.task.action_repeat):
                now = self._copies.step(moves[:, t]).ended & ~ended
                if now.any():
                    worth[now] = np.where(self._copies.completed()[now], ARRIVED - t, DEAD + t)
                    ended |= now
        for row in range(used):
            if not ended[row]:
                x, y = self._copies.place(row)
                worth[row] = -abs(x - targets[row, 0]) - 0.5 * abs(y - targets[row, 1]) * (abs(x - targets[row, 0]) < 4)
        return worth[:used]
