"""Procgen's games in parallel: stepped together, and each set to any state.

This is the only module that uses the wheel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from goalposts.benchmark.errors import MissingPackageError
from goalposts.benchmark.tasks.procgen.state import GameState, agent_place, edited_bytes

GENERATOR_NUMBERS = 625
"""Numbers in the text of a generator's state, including its position if the library writes one."""
FRAME = 64
"""Pixels along a frame's side."""
PHOTOGRAPH = 512
"""Pixels along a photograph's side."""
RESET = -1
"""The action that ends an episode."""
STATE_BYTES = 1 << 17
"""Bytes reserved for one state. The largest game's state has 40,000."""
MODES = ("easy", "hard")
SIMPLEST = {"backgrounds": 0, "monochrome_assets": 1}
"""Options that only affect how a level is drawn, set to the fastest drawing."""


@dataclasses.dataclass(frozen=True)
class Look:
    """The look and difficulty of a game."""

    mode: str = "hard"
    """``easy`` or ``hard``."""
    backgrounds: bool = True
    plain: bool = False
    """One colour for each kind of thing, and one theme."""
    paint_velocity: bool = False
    """Show the agent's velocity in the picture's corner."""


class Seen(NamedTuple):
    """What all games show after a step."""

    frames: NDArray[np.uint8]
    """``uint8[count, 64, 64, 3]``. For a game that ended, the first frame of its next episode."""
    rewards: NDArray[np.float32]
    """``float32[count]``"""
    ended: NDArray[np.bool_]
    """``bool[count]``: an episode ended at this step."""


def _wheel() -> Any:
    try:
        # gym, which procgen needs, prints advice to use gymnasium, and it leaves a file open.
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from procgen import ProcgenGym3Env
    except ImportError as error:
        raise MissingPackageError(
            f"The Procgen tasks need the package procgen-mirror 0.10.7, which cannot be imported ({error}); it has "
            "wheels for Python 3.11 and 3.12 on Linux, macOS and Windows. The other tasks work without it."
        ) from error
    return ProcgenGym3Env


class Games:
    """``count`` games of one kind.

    Args:
        game: Procgen's name of the game.
        count: number of games.
        look: difficulty and appearance.
        threads: threads that step the games. 0 steps them in the caller's thread.
        large: also draw each frame for people.
    """

    def __init__(self, game: str, count: int, look: Look, threads: int = 0, large: bool = False) -> None:
        self.game = game
        self.count = count
        self._games = _wheel()(
            num=count,
            env_name=game,
            start_level=0,
            num_levels=0,
            rand_seed=0,
            num_threads=threads,
            render_mode="rgb_array" if large else None,
            distribution_mode=look.mode,
            use_backgrounds=look.backgrounds,
            use_monochrome_assets=look.plain,
            restrict_themes=look.plain,
            paint_vel_info=look.paint_velocity,
        )
        # If the garbage collector frees the wheel's buffers as part of a cycle, their order causes a crash. So close it
        # explicitly. The closing function is looked up now: looking it up takes a lock, which the interrupted code may
        # hold.
        _ = self._games._c_lib.libenv_close
        weakref.finalize(self, self._games.close).atexit = False
        self._buffer = self._games._ffi.new(f"char[{STATE_BYTES}]")

    def step(self, actions: NDArray[np.integer[Any]]) -> Seen:
        """Apply ``int[count]`` actions. A game whose episode ends starts another one at once."""
        self._games.act(actions)
        return self.observe()

    def observe(self) -> Seen:
        """Return what all games show now."""
        rewards, frames, first = self._games.observe()
        return Seen(frames["rgb"], rewards, first)

    def completed(self) -> NDArray[np.bool_]:
        """Return which games had completed their level when their last episode ended, ``bool[count]``."""
        return np.array([info["prev_level_complete"] for info in self._games.get_info()], dtype=bool)

    def photographs(self) -> list[NDArray[np.uint8]]:
        """Return what large games show now, each ``uint8[512, 512, 3]``."""
        return [info["rgb"] for info in self._games.get_info()]

    def get(self, index: int) -> bytes:
        """Return the state of one game."""
        size = self._games.call_c_func("get_state", index, self._buffer, STATE_BYTES)
        return bytes(self._games._ffi.buffer(self._buffer, size))

    def place(self, index: int) -> tuple[float, float]:
        """Return the place of one game's agent, in cells."""
        return agent_place(self.get(index))

    def set(self, index: int, state: bytes) -> None:
        """Set one game to a state. Bytes that do not parse end the process."""
        self._games.call_c_func("set_state", index, state, len(state))


class Camera:
    """Draws states of a game for people: large and with all textures, even if the agent sees a plain game."""

    def __init__(self, game: str, look: Look) -> None:
        self._games = Games(game, 1, dataclasses.replace(look, plain=False, paint_velocity=False), large=True)

    def photograph(self, state: GameState, center: tuple[float, float] | None = None) -> NDArray[np.uint8]:
        """Return a picture of a state, ``uint8[512, 512, 3]``.

        Args:
            state: the state to draw.
            center: x and y of the picture's middle, in cells, for games whose view follows the agent. By default it is
                the agent.
        """
        drawn = state.copy()
        drawn.options["monochrome_assets"] = drawn.options["paint_velocity"] = 0
        if center is not None:  # The view follows the last agent, so add an invisible one.
            drawn.entities = np.concatenate([drawn.entities, drawn.agent])
            drawn.entities["x"][-1], drawn.entities["y"][-1] = center
            drawn.entities["alpha"][-1] = 0.0
        self._games.set(0, edited_bytes(drawn, self._games.game))
        self._games.observe()
        return self._games.photographs()[0]


class LevelMaker:
    """Makes the first state of any level, with games that no agent plays.

    Reading and writing a state takes the time of several steps, mostly for the texts of its three generators. So the
    template of a level has no such texts, cells or entities, and is drawn as simply as possible. The game makes
    everything from the level's seed. The states made here have no generator texts either, since nothing random happens
    while a level is played.
    """

    def __init__(self, game: str, look: Look, count: int = 16) -> None:
        self._games = Games(game, count, look)
        first = GameState.from_bytes(self._games.get(0))
        self._drawing = {name: int(first.options[name][0]) for name in SIMPLEST}
        template = first.copy()
        template.entities = template.entities[:1]
        template.grid = template.grid[:1, :1]
        for name, value in SIMPLEST.items():
            template.options[name] = value
        # Zeros are read fastest. Two generators keep them: nothing is drawn from them, as the seed is given.
        zeros = b" ".join([b"0"] * GENERATOR_NUMBERS)
        template.level_generator, template.asset_generator = (1, zeros), (first.asset_generator[0], zeros)
        for index in range(count):
            self._games.set(index, template.to_bytes())
        template = _without_texts(template)
        self._options = template.options
        self._before, self._after = template.to_bytes().split(template.options.tobytes())

    def states(self, seeds: Sequence[int]) -> list[GameState]:
        """Return the first state of the level of each seed, each in [0, 2³¹ − 2]."""
        made: list[GameState] = []
        for begin in range(0, len(seeds), self._games.count):
            chunk = seeds[begin : begin + self._games.count]
            for i, seed in enumerate(chunk):
                self._options["level_seed_low"], self._options["level_seed_high"] = seed, seed + 1
                self._games.set(i, self._before + self._options.tobytes() + self._after)
            self._games.step(np.full(self._games.count, RESET))
            for i in range(len(chunk)):
                state = _without_texts(GameState.from_bytes(self._games.get(i)).copy())
                for name, value in self._drawing.items():
                    state.options[name] = value
                state.scene["step_random"] = 0  # Left over from the template, and drawn again before use.
                made.append(state)
        return made


def _without_texts(state: GameState) -> GameState:
    """Remove the texts of the generators. A game that is set to the state keeps its own."""
    for name in ("level_generator", "generator", "asset_generator"):
        setattr(state, name, (getattr(state, name)[0], b""))
    return state
