"""What all Procgen tasks share: levels as seeds and moved objects, and the games behind the contract.

A level is a seed with the places of the moved objects. The game makes the rest. An environment's episodes live in the
games themselves, so its state is their serialized states.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.tasks.drawing import Picture
from goalposts.benchmark.tasks.environment import Advance, BatchedEnv
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.parameters import Parameters
from goalposts.benchmark.tasks.procgen.games import FRAME, PHOTOGRAPH, Camera, Games, LevelMaker, Look
from goalposts.benchmark.tasks.procgen.state import GameState, edited_bytes
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import EvaluationTraits, SamplingTraits, SmallPlan

FIRST_RESERVED = 1 << 30
"""Level seeds from here on are for evaluation, and those below for training."""
SEEDS = (1 << 31) - 1
"""Number of seeds that the games accept."""
UNMOVED = -1
"""Marks an object that stays where the game put it."""
NOWHERE = -2
"""Marks a place that a level does not have. Such a level is not valid."""
CACHED_LEVELS = 512
"""First states that a task caches, so that a level that was inspected when drawn is not made twice."""
NEVER = 1 << 20
"""The games' own time limit. The task's limit comes first, so that the last picture of a truncated episode is shown."""
SHOWN = (15, 21)
"""Rows and columns around the agent that the terminal shows."""


@dataclasses.dataclass(frozen=True)
class ProcgenLevels(Levels):
    """Levels of a game."""

    seed: Tensor
    """``int64[num_levels]``, the game's own level seed."""
    goal_cell: Tensor
    """``int64[num_levels]``: the cell that the goal was moved to, or ``UNMOVED``."""
    start_cell: Tensor
    """``int64[num_levels]``: the cell that the agent was moved to, or ``UNMOVED``."""

    def reserved(self) -> Tensor:
        """Reserve ranges of seeds, so that no evaluation level was ever trained on, wherever its goal lay."""
        return self.seed >= FIRST_RESERVED


@dataclasses.dataclass(frozen=True)
class Photograph(Picture):
    """A picture in the game's own graphics, with a table of tiles for the terminal."""

    rgb: bytes = b""
    """``uint8[height, width, 3]``"""
    width: int = PHOTOGRAPH
    place: tuple[float, float] | None = None
    """Place of the agent, in pixels from the top and from the left."""

    @property
    def agent(self) -> tuple[float, float] | None:
        return self.place

    def pixels(self) -> Tensor:
        """Return the picture as ``uint8[height, width, 3]``."""
        return torch.frombuffer(bytearray(self.rgb), dtype=torch.uint8).view(-1, self.width, 3)


class ProcgenParameters(Parameters):
    """The look of a game, and how it is stepped."""

    mode: Literal["easy", "hard"] = "hard"
    """The game's difficulty."""
    backgrounds: bool = True
    """Draw backgrounds."""
    plain: bool = False
    """One colour for each kind of thing, and one theme."""
    paint_velocity: bool = False
    """Show the agent's velocity in the picture's corner."""
    pixels: Literal[64, 32] = 64
    """Side of the observation in pixels: 64, as the game draws it, or 32, averaged."""
    action_repeat: int = Field(1, ge=1, le=10_000)
    """Steps of the game for each action."""
    time_limit: int = Field(1000, ge=1, le=10_000)
    """Actions in an episode."""
    threads: int = Field(0, ge=0, le=10_000)
    """Threads of each batch of games. 0 steps them in the caller's thread."""


class ProcgenTask(Task[ProcgenLevels]):
    """A game with a moved goal."""

    game: ClassVar[str]
    """Procgen's name of the game."""
    poll_every: ClassVar[int] = 5
    """Least number of game steps between two polls."""
    tile_names: ClassVar[Mapping[int, str]]
    """The tile that shows each code of the game's grid in the terminal."""
    levels_type: ClassVar[type[Levels]] = ProcgenLevels
    actions = (
        "left and down", "left", "left and up", "down", "nothing", "up", "right and down", "right", "right and up",
    )  # fmt: skip
    sampling_traits = SamplingTraits(expected_share=1.0, spare_levels=0)
    evaluation_traits = EvaluationTraits(together=256, settled_by_first_event=True)
    parameters_type: ClassVar[type[Parameters]] = ProcgenParameters
    parameters: ProcgenParameters
    small = SmallPlan(
        parameters={"mode": "easy", "backgrounds": False, "plain": True, "pixels": 32, "time_limit": 60},
        training={"env_steps": 20_000, "network": "strided", "normalize_rewards": True},
    )
    exhaustible = None
    has_editor = False

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        own = self.parameters
        self.look = Look(own.mode, own.backgrounds, own.plain, own.paint_velocity)
        self.pixels: int = own.pixels
        self.action_repeat = own.action_repeat
        self.time_limit = own.time_limit
        self.threads = own.threads
        self.observation_shape = (3, own.pixels, own.pixels)
        self._maker: LevelMaker | None = None
        self._states: OrderedDict[int, GameState] = OrderedDict()

    @abstractmethod
    def move(self, state: GameState, goal_cell: int, start_cell: int) -> None:
        """Move goal and agent in a level's first state to cells. Either cell may be ``UNMOVED``."""

    @abstractmethod
    def game_events(self, env: ProcgenEnv, completed: NDArray[np.bool_]) -> Tensor:
        """Return the events of a step, ``bool[num_envs, num_goals]``.

        Args:
            env: its ``state`` says which levels are played.
            completed: ``bool[num_envs]``, the games that reported at this step that their level is complete.
        """

    def polled_events(self, env: ProcgenEnv, index: int, place: tuple[float, float]) -> Sequence[int]:
        """Return the ``polled`` goals that episode ``index`` achieves with the agent at ``place``."""
        return ()

    def facts(self, state: GameState) -> dict[str, float]:
        """Return what the environment's ``state`` should remember of a level's unmoved first state."""
        return {}

    def make_env(self, num_envs: int, device: torch.device | str = "cpu") -> ProcgenEnv:
        return ProcgenEnv(self, num_envs, device)

    def level_states(self, seeds: Sequence[int]) -> list[GameState]:
        """Return the first state of each level as the game makes it. The states are shared: copy before an edit."""
        missing = [seed for seed in dict.fromkeys(seeds) if seed not in self._states]
        found = {seed: self._states[seed] for seed in seeds if seed in self._states}
        if missing:
            if self._maker is None:
                self._maker = LevelMaker(self.game, self.look)
            found |= zip(missing, self._maker.states(missing), strict=True)
        for seed in found:
            self._states[seed] = found[seed]
            self._states.move_to_end(seed)
        while len(self._states) > CACHED_LEVELS:
            self._states.popitem(last=False)
        return [found[seed] for seed in seeds]

    def start_states(self, levels: ProcgenLevels) -> list[GameState]:
        """Return the first state of each level, with the moved objects in place."""
        states = []
        places = zip(levels.goal_cell.tolist(), levels.start_cell.tolist(), strict=True)
        for made, (goal_cell, start_cell) in zip(self.level_states(levels.seed.tolist()), places, strict=True):
            state = made.copy()
            state.status["timeout"] = NEVER
            self.move(state, goal_cell, start_cell)
            states.append(state)
        return states

    @staticmethod
    def draw_seeds(num_levels: int, reserved: bool, generator: torch.Generator) -> Tensor:
        """Draw seeds for training or for evaluation, ``int64[num_levels]``."""
        low, high = (FIRST_RESERVED, SEEDS) if reserved else (0, FIRST_RESERVED)
        return torch.randint(low, high, (num_levels,), generator=generator, device=generator.device)

    def pick(self, cells: Sequence[int], draw: float) -> int:
        """Return the cell that ``draw``, in [0, 1), picks.

        It is ``NOWHERE``, and counts the level as skipped, if there are no cells.
        """
        if not cells:
            self.skipped += 1
            return NOWHERE
        return cells[int(draw * len(cells))]

    def valid(self, levels: ProcgenLevels) -> Tensor:
        placed = (levels.goal_cell >= UNMOVED) & (levels.start_cell >= UNMOVED)
        return placed & (levels.seed >= 0) & (levels.seed < SEEDS)

    def achievable(self, levels: ProcgenLevels) -> Tensor:
        """Return the goals that training can afford to watch."""
        offered = [goal not in self.polled for goal in range(len(self.goals))]
        return torch.tensor(offered, device=levels.device).expand(len(levels), -1)

    def optimal_return(self, levels: ProcgenLevels, goal: int, gamma: float) -> Tensor:
        raise RequestError(
            f"Task {self.id!r} knows no optimal returns: its references are scripts. "
            "Leave out mitigations that need 'planner'."
        )

    def _edit(self, levels: ProcgenLevels, restricted: bool, generator: torch.Generator) -> ProcgenLevels:
        raise RequestError(
            f"Task {self.id!r} has no level editor: the game makes its levels from a seed. "
            "Choose a mitigation that does not edit levels."
        )


class ProcgenEnv(BatchedEnv[ProcgenLevels]):
    """Episodes in ``num_envs`` games. ``state`` holds what the games do not know.

    A finished game shows the picture before its last step, because the game has no picture of the last moment.
    """

    task: ProcgenTask

    def __init__(self, task: ProcgenTask, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(task, num_envs, device)
        self.games = Games(task.game, num_envs, task.look, task.threads)
        self._shown = torch.zeros(num_envs, *task.observation_shape, dtype=torch.uint8, device=self.device)
        """The observations last returned."""
        self._ended = np.zeros(num_envs, dtype=bool)
        """Which games have started another episode themselves."""
        self._looked_at: dict[int, GameState] = {}
        """States that were drawn last."""
        self._camera: Camera | None = None

    def reset(self, levels: ProcgenLevels, where: Tensor | None = None, goals: Tensor | None = None) -> Tensor:
        rows = torch.arange(self.num_envs) if where is None else where.nonzero().squeeze(1).cpu()
        for row, state in zip(rows.tolist(), self.task.start_states(levels), strict=True):
            self.games.set(row, edited_bytes(state, self.task.game))
        self._ended[rows.numpy()] = False
        first = self._observations(self.games.observe().frames[rows.numpy()])
        self._shown = self._shown.index_copy(0, rows.to(self.device), first)
        super().reset(levels, where, goals)
        return first

    def _start(self, levels: ProcgenLevels) -> dict[str, Tensor]:
        facts = [self.task.facts(made) for made in self.task.level_states(levels.seed.tolist())]
        remembered = {name: torch.tensor([fact[name] for fact in facts]) for name in facts[0]} if facts else {}
        tensors = {**remembered, **levels.tensors()}
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def _advance(self, actions: Tensor) -> Advance:
        moves = actions.cpu().numpy()
        ended = np.zeros(self.num_envs, dtype=bool)
        completed = np.zeros(self.num_envs, dtype=bool)
        for _ in range(self.task.action_repeat):
            seen = self.games.step(moves)
            now = seen.ended & ~ended
            if now.any():
                completed |= now & self.games.completed()
                ended |= now
        self._ended = ended
        over = torch.from_numpy(ended).to(self.device)
        shown = self._observations(seen.frames)
        self._shown = torch.where(over.view(-1, 1, 1, 1), self._shown, shown) if ended.any() else shown
        events = self.task.game_events(self, completed).to(self.device)
        if self.task.polled and self._polls():
            self._poll(events, ended)
        return Advance(events, died=over)

    def _polls(self) -> bool:
        """Return whether it is time to poll the games."""
        if self.watched:
            return True
        return bool(torch.isin(self.state["goal"], torch.tensor(self.task.polled, device=self.device)).any())

    def _poll(self, events: Tensor, ended: NDArray[np.bool_]) -> None:
        every = max(self.task.poll_every // self.task.action_repeat, 1)
        due = (self.state["elapsed"] % every == every - 1).cpu().numpy() & ~ended
        for index in due.nonzero()[0].tolist():
            for goal in self.task.polled_events(self, index, self.games.place(index)):
                events[index, goal] = True

    def _observe(self, state: dict[str, Tensor]) -> Tensor:
        return self._shown

    def _observations(self, frames: NDArray[np.uint8]) -> Tensor:
        """Return ``uint8[n, 64, 64, 3]`` frames as observations, ``uint8[n, 3, pixels, pixels]``."""
        if self.task.pixels < FRAME:
            rows = (frames[:, 0::2].astype(np.uint16) + frames[:, 1::2]).reshape(len(frames), FRAME // 2, -1)
            sums = rows.copy()
            sums[..., :-3] += rows[..., 3:]  # Half of all neighbour sums are unused: NumPy is slow along short axes.
            frames = (sums // 4).astype(np.uint8).reshape(len(frames), FRAME // 2, FRAME, 3)[:, :, 0::2]
        pixels = torch.from_numpy(frames)
        if self.device.type == "cuda":  # A copy from pinned memory is asynchronous.
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels.permute(0, 3, 1, 2).contiguous()

    def game_state(self, index: int) -> GameState:
        """Return the whole state of one game."""
        return GameState.from_bytes(self.games.get(index))

    def visible_state(self, index: int) -> GameState:
        """Return the state of one game to draw. If its episode is over, it is the last state of the episode."""
        if not self._ended[index] or index not in self._looked_at:
            self._looked_at[index] = self.game_state(index)
        return self._looked_at[index]

    @property
    def camera(self) -> Camera:
        """Draws this environment's games."""
        if self._camera is None:
            self._camera = Camera(self.task.game, self.task.look)
        return self._camera

    def picture(self, index: int = 0) -> Picture:
        state = self.visible_state(index)
        return Photograph(self.cells_around(state), rgb=self.camera.photograph(state).tobytes())

    def cells_around(self, state: GameState) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """Return the cells around the agent, as a terminal picture needs them."""
        height, width = state.grid.shape
        x, y = int(state.agent["x"][0]), int(state.agent["y"][0])
        rows, columns = min(SHOWN[0], height), min(SHOWN[1], width)
        left = min(max(x - columns // 2, 0), width - columns)
        bottom = min(max(y - rows // 2, 0), height - rows)
        names = self.task.tile_names
        cells: list[list[tuple[str, ...]]] = [
            [(names.get(int(state.grid[r, c]), "blank"),) for c in range(left, left + columns)]
            for r in range(bottom + rows - 1, bottom - 1, -1)
        ]
        cells[bottom + rows - 1 - y][x - left] += ("agent",)
        return tuple(tuple(row) for row in cells)

    def state_dict(self) -> dict[str, Tensor]:
        states = [self.games.get(index) for index in range(self.num_envs)]
        room = max(map(len, states))
        padded = np.frombuffer(b"".join(state.ljust(room, b"\0") for state in states), np.uint8)
        return {
            **super().state_dict(),
            "shown": self._shown,
            "games": torch.from_numpy(padded.copy()).view(self.num_envs, room),
            "game_bytes": torch.tensor([len(state) for state in states]),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        rest = dict(state)
        games, sizes = rest.pop("games").cpu().numpy(), rest.pop("game_bytes").tolist()
        for index, (row, size) in enumerate(zip(games, sizes, strict=True)):
            data = row[:size].tobytes()
            self.games.set(index, edited_bytes(GameState.from_bytes(data), self.task.game))
        self._shown = rest.pop("shown").to(self.device)
        self._ended[:] = False
        super().load_state_dict(rest)
