"""Every task as a Gymnasium environment: one episode at a time, or a batch of them that steps together.

``import goalposts`` registers ``goalposts/<Task>-v<version>``. Without it, ask for ``goalposts:goalposts/Corner-v1``:
Gymnasium imports the part before the colon.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.tasks.drawing import Picture
from goalposts.benchmark.tasks.environment import Step
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task

TRAIN = "train"
"""The name of the training distribution. The task's evaluation splits have their own names."""
LEVELS_OPTION = "levels"

RGB_ARRAY, ANSI = "rgb_array", "ansi"
RENDER_FPS = 6
"""Frames per second at which an episode is easy to follow."""

Array = npt.NDArray[Any]


def draw_levels(task: Task[Any], split: str, alpha: float, num_levels: int, generator: torch.Generator) -> Levels:
    """Draw levels of ``split``: ``train``, at disambiguation rate ``alpha``, or one of the task's evaluation splits.

    Raises:
        RequestError: the task has no such split, or a rate is given for a split other than ``train``.
    """
    known = (TRAIN, *task.splits)
    if split not in known:
        raise unknown_name(f"split of task {task.id!r}", split, known)
    if split != TRAIN and alpha != 0.0:
        raise RequestError(f"alpha is {alpha!r}, but only split {TRAIN!r} has one; leave it out for {split!r}.")
    levels: Levels
    if split == TRAIN:
        levels = task.sample_levels(num_levels, alpha, generator)
    else:
        levels = task.shift_levels(split, num_levels, generator)
    return levels


class _Batch:
    """Episodes of one task on levels of one split, in numpy. Both environments below use it."""

    def __init__(
        self, task: str, num_envs: int, split: str, alpha: float, goal: int, parameters: dict[str, Any], block: int
    ) -> None:
        self.task = make_task(task, **parameters)
        if goal not in range(len(self.task.goals)):
            names = ", ".join(f"{i} {goal.name}" for i, goal in enumerate(self.task.goals))
            raise RequestError(f"Task {task!r} has no goal {goal!r}. Known: {names}.")
        if num_envs < 1:
            raise RequestError(f"num_envs is {num_envs!r}; give at least 1.")
        self.split = split
        self.alpha = alpha
        self.goal = goal
        self.env = self.task.make_env(num_envs)
        self.levels: Levels
        """The level in each environment."""
        self._block = block
        """Number of levels drawn at once."""
        self._generator: torch.Generator | None = None
        self._queue: Levels
        """Levels drawn but not yet played."""
        example = self.task.make_env(1).reset(self._draw(1, torch.Generator().manual_seed(0)))[0]
        self.observation_space = _space_of(example)
        self.action_space: gym.spaces.Space[Any] = gym.spaces.Discrete(self.task.num_actions)

    def _draw(self, count: int, generator: torch.Generator) -> Levels:
        return draw_levels(self.task, self.split, self.alpha, count, generator)

    def _next_levels(self, count: int) -> Levels:
        assert self._generator is not None
        while len(self._queue) < count:
            fresh = self._draw(self._block, self._generator)
            self._queue = type(fresh).concatenate([self._queue, fresh])
        levels, self._queue = self._queue[:count], self._queue[count:]
        return levels

    def reset(self, seed: int | None, random: np.random.Generator, options: dict[str, Any] | None) -> Array:
        """Start all episodes, on ``options["levels"]`` if given. A seed, or the first reset, starts the level stream.

        Raises:
            RequestError: unknown options, or not one level for each environment.
        """
        if seed is not None or self._generator is None:
            self._generator = torch.Generator().manual_seed(int(random.integers(2**63)))
            self._queue = self._draw(self._block, self._generator)
        options = options or {}
        if unknown := set(options) - {LEVELS_OPTION}:
            raise RequestError(f"Unknown reset options {sorted(unknown)!r}. Known: {LEVELS_OPTION}.")
        levels = options.get(LEVELS_OPTION)
        if levels is None:
            levels = self._next_levels(self.env.num_envs)
        elif not isinstance(levels, self.task.levels_type) or len(levels) != self.env.num_envs:
            raise RequestError(
                f"Option 'levels' must be {self.env.num_envs} {self.task.levels_type.__name__}, not {levels!r:.80}."
            )
        self.levels = levels
        return observation_array(self.env.reset(levels, goals=self._goals(len(levels))))

    def restart(self, done: Tensor) -> Array:
        """Start the next levels of the stream where episodes are ``done``. Return the new episodes' observations."""
        where = done.nonzero().squeeze(1)
        fresh = self._next_levels(len(where))
        self.levels = self.levels.replaced(where, fresh)
        return observation_array(self.env.reset(fresh, done, self._goals(len(where))))

    def _goals(self, count: int) -> Tensor:
        return torch.full((count,), self.goal)

    def step(self, actions: Array) -> tuple[Step, Tensor]:
        """Step all episodes. Return the step and the rewards, ``float32[num_envs]``.

        Raises:
            RequestError: not one valid action for each environment.
        """
        if actions.shape != (self.env.num_envs,) or actions.dtype.kind not in "iu":
            raise RequestError(
                f"Actions are {actions.dtype} of shape {actions.shape}; give integers, one for each episode."
            )
        if actions.min() < 0 or actions.max() >= self.task.num_actions:
            raise RequestError(
                f"Actions {np.unique(actions).tolist()!r} exceed the range 0 to {self.task.num_actions - 1}."
            )
        step = self.env.step(torch.from_numpy(actions.astype(np.int64)))
        return step, step.events[:, self.goal].float() - step.cost

    def picture(self, index: int) -> Picture:
        """Return a picture of episode ``index``."""
        if not self.env.state:
            raise ResetNeeded("No episode has begun; call reset() before render().")
        return self.env.picture(index)


class GoalpostsEnv(gym.Env[Array, np.int64]):
    """One episode of a task at a time. ``info["events"]`` holds the goals achieved at a step, ``bool[num_goals]``.

    ``reset(options={"levels": levels})`` plays the given level instead of drawing the next one.

    Args:
        task: the task's id. The registered ids fill it in.
        split: ``train``, ``in_distribution``, ``benign_shift`` or one of the task's shifts.
        alpha: disambiguation rate of the training levels, in [0, 1].
        goal: index of the rewarded goal. 0 is the aligned one.
        render_mode: what ``render()`` returns. ``rgb_array``: an image as ``uint8[height, width, 3]``. ``ansi``: text.
            None: nothing.
        parameters: the task's own (``size`` and the like).

    Raises:
        RequestError: the task has no such split, rate, goal, render mode or parameter.
    """

    metadata: dict[str, Any] = {"render_modes": [RGB_ARRAY, ANSI], "render_fps": RENDER_FPS}  # noqa: RUF012 (as declared)

    def __init__(
        self,
        task: str,
        *,
        split: str = TRAIN,
        alpha: float = 0.0,
        goal: int = 0,
        render_mode: str | None = None,
        **parameters: Any,
    ) -> None:
        _check_render_mode(render_mode, self.metadata)
        self.render_mode = render_mode
        self._batch = _Batch(task, 1, split, alpha, goal, parameters, block=64)
        self.task = self._batch.task
        self.observation_space = self._batch.observation_space
        self.action_space = self._batch.action_space
        self._playing = False

    @property
    def levels(self) -> Levels:
        """The level of the episode, as a batch of one."""
        return self._batch.levels

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._playing = True
        return self._batch.reset(seed, self.np_random, options)[0], {}

    def step(self, action: np.int64 | int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        if not self._playing:
            raise ResetNeeded("The episode has ended or not begun; call reset() before step().")
        step, rewards = self._batch.step(np.asarray([action]))
        terminated, truncated = bool(step.terminated), bool(step.truncated)
        self._playing = not (terminated or truncated)
        info = {"events": step.events[0].numpy()}
        return observation_array(step.observation)[0], float(rewards), terminated, truncated, info

    def render(self) -> Array | str | None:  # type: ignore[override]
        """Return the episode's picture in the render mode. None without a render mode."""
        if self.render_mode is None:
            return None
        picture = self._batch.picture(0)
        return picture.text() if self.render_mode == ANSI else _pixels(picture)


class GoalpostsVectorEnv(gym.vector.VectorEnv[Array, Array, Array]):
    """Episodes of one task, stepped together. The next level follows at once when an episode ends.

    The autoreset mode is ``SAME_STEP``. When an episode ends, the observation returned is the first one of the next
    episode, and ``infos["final_obs"]`` has the last one of the finished episode. ``infos["events"]`` holds the goals
    achieved at the step, ``bool[num_envs, num_goals]``, for finished episodes as well. ``infos["final_info"]`` repeats
    the events of finished episodes where Gymnasium's wrappers look for them.

    ``reset(options={"levels": levels})`` plays the given levels, one in each environment, instead of drawing the next
    ones.

    Args:
        task: the task's id. The registered ids fill it in.
        num_envs: number of parallel episodes.
        split: ``train``, ``in_distribution``, ``benign_shift`` or one of the task's shifts.
        alpha: disambiguation rate of the training levels, in [0, 1].
        goal: index of the rewarded goal. 0 is the aligned one.
        render_mode: what ``render()`` returns. ``rgb_array``: an image of each episode. None: nothing.
        parameters: the task's own (``size`` and the like).

    Raises:
        RequestError: the task has no such split, rate, goal, number, render mode or parameter.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (as declared)
        "render_modes": [RGB_ARRAY],
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        task: str,
        num_envs: int = 1,
        *,
        split: str = TRAIN,
        alpha: float = 0.0,
        goal: int = 0,
        render_mode: str | None = None,
        **parameters: Any,
    ) -> None:
        _check_render_mode(render_mode, self.metadata)
        self.render_mode = render_mode
        self._batch = _Batch(task, num_envs, split, alpha, goal, parameters, block=max(num_envs, 64))
        self.task = self._batch.task
        self.num_envs = num_envs
        self.single_observation_space = self._batch.observation_space
        self.single_action_space = self._batch.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._playing = False

    @property
    def levels(self) -> Levels:
        """The current level of each environment."""
        return self._batch.levels

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._playing = True
        return self._batch.reset(seed, self.np_random, options), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        if not self._playing:
            raise ResetNeeded("No episode has begun; call reset() before step().")
        step, rewards = self._batch.step(np.asarray(actions))
        observation, events = observation_array(step.observation), step.events.numpy()
        infos: dict[str, Any] = {"events": events, "_events": np.ones(self.num_envs, dtype=np.bool_)}
        done = step.terminated | step.truncated
        if bool(done.any()):
            ended = done.numpy()
            final = np.full(self.num_envs, None, dtype=object)
            for i in ended.nonzero()[0]:
                final[i] = observation[i].copy()
            infos |= {
                "final_obs": final,
                "_final_obs": ended,
                "final_info": {"events": events & ended[:, None], "_events": ended},
                "_final_info": ended,
            }
            observation[ended] = self._batch.restart(done)
        return observation, rewards.numpy(), step.terminated.numpy(), step.truncated.numpy(), infos

    def render(self) -> tuple[Array, ...] | None:  # type: ignore[override]
        """Return the picture of each episode, ``uint8[height, width, 3]``. None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(_pixels(self._batch.picture(i)) for i in range(self.num_envs))


def _space_of(observation: Tensor) -> gym.spaces.Box:
    """Return a space that contains ``observation``. Booleans become bytes, which every library accepts."""
    shape = tuple(observation.shape)
    if observation.dtype == torch.bool:
        return gym.spaces.Box(0, 1, shape, np.uint8)
    if observation.dtype == torch.uint8:
        return gym.spaces.Box(0, 255, shape, np.uint8)
    return gym.spaces.Box(-math.inf, math.inf, shape, np.float32)


def observation_array(observation: Tensor) -> Array:
    """Return a copy of a batch of observations as an array, in the dtype of its space."""
    array: Array = observation.numpy()
    return array.view(np.uint8).copy() if array.dtype == np.bool_ else array.copy()


def _pixels(picture: Picture) -> Array:
    pixels: Array = picture.pixels().numpy()
    return pixels


def _check_render_mode(render_mode: str | None, metadata: dict[str, Any]) -> None:
    if render_mode is not None and render_mode not in metadata["render_modes"]:
        raise unknown_name("render mode", str(render_mode), metadata["render_modes"])
