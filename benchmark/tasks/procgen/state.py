"""The serialized state of a Procgen game: its layout in one table, parsed into arrays and written back.

Procgen (Cobbe et al. 2020) can write a game's whole state as bytes and read it back. A goal is moved by editing them.
Bytes that do not parse end the process inside the game's own code, so nothing goes back unchecked.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import CorruptFileError

VERSION = 0
"""Of the serialization of the wheel procgen-mirror 0.10.7."""
END = -889271554
"""The mark that every state ends with."""


def _fields(integers: str = "", *, floats: str = "") -> list[tuple[str, str]]:
    """Return the dtype of named 4-byte fields; a name that ``floats`` lists too is a float."""
    real = set(floats.split())
    return [(name, "<f4" if name in real else "<i4") for name in integers.split()]


OPTIONS = np.dtype(
    _fields(
        "paint_velocity generated_assets monochrome_assets restrict_themes backgrounds center_agent debug_mode "
        "distribution_mode sequential_levels easy_jump plain_assets physics_mode grid_step level_seed_low "
        "level_seed_high game_type game_index"
    )
)
STATUS = np.dtype(
    _fields(
        "reward done level_complete action timeout level_seed prev_level_seed episodes_remaining episode_done "
        "last_reward_timer last_reward default_action asset_seed time waiting grid_size",
        floats="reward last_reward",
    )
)
ENTITY = np.dtype(
    _fields(
        "x y vx vy rx ry type image_type image_theme render_z will_erase collides collision_margin rotation vrot "
        "reflected fire_time spawn_time life_time expire_time absolute friction smart_step avoids_collisions "
        "auto_erase alpha health theta grow_rate alpha_decay climber_spawn_x",
        floats="x y vx vy rx ry collision_margin rotation vrot friction alpha health theta grow_rate alpha_decay "
        "climber_spawn_x",
    )
)
SCENE = np.dtype(
    _fields(
        "procgen_background background_index bg_tile_ratio bg_pct_x char_dim last_move_action move_action "
        "special_action mixrate maxspeed max_jump action_vx action_vy action_vrot center_x center_y "
        "random_agent_start velocity_info step_random",
        floats="bg_tile_ratio bg_pct_x char_dim mixrate maxspeed max_jump action_vx action_vy action_vrot center_x "
        "center_y",
    )
)
VIEW = np.dtype(
    _fields(
        "main_width main_height out_of_bounds unit view_dim x_offset y_offset visibility min_visibility",
        floats="unit view_dim x_offset y_offset visibility min_visibility",
    )
)
LAYOUT: tuple[tuple[str, Any], ...] = (
    ("version", "integer"),
    ("game", "text"),
    ("options", OPTIONS),
    ("level_generator", "generator"),
    ("generator", "generator"),
    ("status", STATUS),
    ("entities", "entities"),
    ("scene", SCENE),
    ("asset_generator", "generator"),
    ("view", VIEW),
    ("grid", "grid"),
    ("tail", "rest"),
)
"""The sections of a state, in order: names as in :class:`GameState`, and how each is written.

Numbers are little-endian and 4 bytes long. A *text* is its length and its bytes; a *generator* says whether it is
seeded and is a text; *entities* and the *grid* are counted; the *rest* is the game's own, and ends with ``END``.
"""
AGENT = 0
"""The row of the agent among the entities."""


@dataclasses.dataclass
class GameState:
    """A parsed state: its arrays are to be read, those of a :meth:`copy` also to be written to."""

    version: int
    game: str
    options: NDArray[Any]
    """One row of ``OPTIONS``."""
    level_generator: tuple[int, bytes]
    """Whether the generator of level seeds is seeded, and the text of its state.

    An empty text leaves the generator that it is read into as it was.
    """
    generator: tuple[int, bytes]
    """The same of the generator that makes the level and moves what is in it."""
    status: NDArray[Any]
    """One row of ``STATUS``."""
    entities: NDArray[Any]
    """Rows of ``ENTITY``; the first is the agent."""
    scene: NDArray[Any]
    """One row of ``SCENE``."""
    asset_generator: tuple[int, bytes]
    view: NDArray[Any]
    """One row of ``VIEW``."""
    grid: NDArray[np.int32]
    """``int32[height, width]``: what lies in each cell, by the game's own codes; row 0 is the lowest."""
    tail: bytes
    """The game's own fields and the end mark."""

    @property
    def agent(self) -> NDArray[Any]:
        """The agent's row of ``entities``."""
        row: NDArray[Any] = self.entities[AGENT : AGENT + 1]
        return row

    @classmethod
    def from_bytes(cls, data: bytes) -> GameState:
        """Parse a state.

        Raises:
            CorruptFileError: it is of another version of Procgen, truncated, or has bytes left over.
        """
        reader = _Reader(data)
        try:
            version = reader.integer()
            if version != VERSION:
                raise CorruptFileError(
                    f"The game state has serialization version {version}, this Goalposts reads {VERSION}; "
                    "install procgen-mirror 0.10.7."
                )
            values = [reader.section(kind) for _name, kind in LAYOUT[1:]]
        except (struct.error, ValueError, UnicodeDecodeError) as error:
            raise CorruptFileError(f"The game state of {len(data)} bytes cannot be parsed: {error}.") from error
        state = cls(version, *values)
        if len(state.tail) < 4 or struct.unpack_from("<i", state.tail, len(state.tail) - 4)[0] != END:
            raise CorruptFileError(f"The game state of {len(data)} bytes does not end with its mark; it is truncated.")
        if not len(state.entities):
            raise CorruptFileError(f"The game state of {state.game!r} holds no agent.")
        return state

    def copy(self) -> GameState:
        """Return a copy whose arrays may be written to."""
        arrays = ("options", "status", "entities", "scene", "view", "grid")
        return dataclasses.replace(self, **{name: getattr(self, name).copy() for name in arrays})

    def to_bytes(self) -> bytes:
        """Write the state; parsing and writing gives the same bytes."""
        return b"".join(_written(getattr(self, name), kind) for name, kind in LAYOUT)


def edited_bytes(state: GameState, game: str) -> bytes:
    """Return an edited state as bytes that ``game`` can read without harm.

    Raises:
        CorruptFileError: the edit left something that would end the process: another game or version, a grid that does
            not fit, an agent outside of it, or numbers that are not finite.
    """
    height, width = state.grid.shape
    problem = None
    if (state.version, state.game) != (VERSION, game):
        problem = f"it is of {state.game!r}, version {state.version}"
    elif (int(state.view["main_width"][0]), int(state.view["main_height"][0])) != (width, height):
        problem = f"its grid is {width}×{height}, its world is not"
    elif not len(state.entities):
        problem = "it holds no agent"
    else:
        x, y = float(state.agent["x"][0]), float(state.agent["y"][0])
        places = np.stack([state.entities["x"], state.entities["y"]])
        if not np.isfinite(places).all():
            problem = "an entity lies nowhere"
        elif not (0 <= x < width and 0 <= y < height):
            problem = f"the agent lies at {x:g}, {y:g}, outside of its grid"
    if problem is not None:
        raise CorruptFileError(f"An edited state of {game!r} would end the game: {problem}.")
    return state.to_bytes()


def agent_place(data: bytes) -> tuple[float, float]:
    """Return where the agent is, in cells, without parsing the rest of a state."""
    reader = _Reader(data)
    reader.integer()
    for name, kind in LAYOUT[1:]:
        if name == "entities":
            break
        reader.skip(kind)
    x, y = struct.unpack_from("<ff", data, reader.at + 4)
    return x, y


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def integer(self) -> int:
        value: int = struct.unpack_from("<i", self.data, self.at)[0]
        self.at += 4
        return value

    def text(self) -> bytes:
        length = self.integer()
        text = self.data[self.at : self.at + length]
        if length < 0 or len(text) < length:
            raise ValueError(f"a text of {length} bytes at byte {self.at}")
        self.at += length
        return text

    def rows(self, dtype: Any, count: int) -> NDArray[Any]:
        if count < 0:
            raise ValueError(f"{count} rows at byte {self.at}")
        rows = np.frombuffer(self.data, dtype, count, self.at)
        self.at += rows.nbytes
        return rows

    def skip(self, kind: Any) -> None:
        """Pass over a section that stands before the entities."""
        if kind in ("text", "generator"):
            self.at += 4 if kind == "generator" else 0
            self.at += 4 + struct.unpack_from("<i", self.data, self.at)[0]
        else:
            self.at += kind.itemsize

    def section(self, kind: Any) -> Any:
        if kind == "text":
            return self.text().decode("ascii")
        if kind == "generator":
            return self.integer(), self.text()
        if kind == "entities":
            return self.rows(ENTITY, self.integer())
        if kind == "grid":
            width, height, count = self.integer(), self.integer(), self.integer()
            if count != width * height:
                raise ValueError(f"a grid of {width}×{height} with {count} cells")
            return self.rows("<i4", count).reshape(height, width)
        if kind == "rest":
            return self.data[self.at :]
        return self.rows(kind, 1)


def _written(value: Any, kind: Any) -> bytes:
    if kind == "integer":
        return struct.pack("<i", value)
    if kind == "text":
        return struct.pack("<i", len(value)) + bytes(value.encode("ascii"))
    if kind == "generator":
        seeded, text = value
        return struct.pack("<ii", seeded, len(text)) + bytes(text)
    if kind == "entities":
        return struct.pack("<i", len(value)) + bytes(value.tobytes())
    if kind == "grid":
        height, width = value.shape
        return struct.pack("<iii", width, height, value.size) + bytes(value.tobytes())
    if kind == "rest":
        return bytes(value)
    return bytes(value.tobytes())
