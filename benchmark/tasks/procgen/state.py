"""The serialized state of a Procgen game: its layout in one table, parsed into arrays and written back.

Procgen (Cobbe et al. 2020) can write a game's whole state as bytes and read it back. Editing these bytes moves a goal.
Bytes that do not parse end the process inside the game's own code, so nothing is written back unchecked.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from goalposts.benchmark.errors import CorruptFileError

VERSION = 0
"""Version of the serialization in the wheel procgen-mirror 0.10.7."""
END = -889271554
"""The mark that every state ends with."""


def _fields(integers: str = "", *, floats: str = "") -> list[tuple[str, str]]:
    """Return the dtype of named 4-byte fields. A name that is also in ``floats`` is a float."""
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
INTEGER = struct.Struct("<i")
PAIR = struct.Struct("<ii")
TRIPLE = struct.Struct("<iii")


class _Reader:
    """Reads the sections of a state in sequence."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def integer(self) -> int:
        value: int = INTEGER.unpack_from(self.data, self.at)[0]
        self.at += 4
        return value

    def text(self) -> bytes:
        length = self.integer()
        text = self.data[self.at : self.at + length]
        if length < 0 or len(text) < length:
            raise ValueError(f"a text of {length} bytes at byte {self.at}")
        self.at += length
        return text

    def generator(self) -> tuple[int, bytes]:
        return self.integer(), self.text()

    def rows(self, dtype: Any, count: int) -> NDArray[Any]:
        if count < 0:
            raise ValueError(f"{count} rows at byte {self.at}")
        rows = np.frombuffer(self.data, dtype, count, self.at)
        self.at += rows.nbytes
        return rows

    def grid(self) -> NDArray[Any]:
        width, height, count = TRIPLE.unpack_from(self.data, self.at)
        self.at += TRIPLE.size
        if count != width * height:
            raise ValueError(f"a grid of {width}×{height} with {count} cells")
        return self.rows(CELL, count).reshape(height, width)

    def rest(self) -> bytes:
        return self.data[self.at :]


class Kind(NamedTuple):
    """How a section is read and written."""

    read: Callable[[_Reader], Any]
    write: Callable[[Any], bytes]


def _row(dtype: np.dtype[Any]) -> Kind:
    """Return the kind of a section that is one row of named fields."""
    return Kind(lambda reader: reader.rows(dtype, 1), np.ndarray.tobytes)


CELL = np.dtype("<i4")
NUMBER = Kind(_Reader.integer, INTEGER.pack)
TEXT = Kind(lambda reader: reader.text().decode("ascii"), lambda text: INTEGER.pack(len(text)) + text.encode("ascii"))
GENERATOR = Kind(_Reader.generator, lambda value: PAIR.pack(value[0], len(value[1])) + value[1])
ENTITIES = Kind(
    lambda reader: reader.rows(ENTITY, reader.integer()), lambda rows: INTEGER.pack(len(rows)) + rows.tobytes()
)
GRID = Kind(_Reader.grid, lambda grid: TRIPLE.pack(*grid.shape[::-1], grid.size) + grid.tobytes())
REST = Kind(_Reader.rest, bytes)
LAYOUT: tuple[tuple[str, Kind], ...] = (
    ("version", NUMBER),
    ("game", TEXT),
    ("options", _row(OPTIONS)),
    ("level_generator", GENERATOR),
    ("generator", GENERATOR),
    ("status", _row(STATUS)),
    ("entities", ENTITIES),
    ("scene", _row(SCENE)),
    ("asset_generator", GENERATOR),
    ("view", _row(VIEW)),
    ("grid", GRID),
    ("tail", REST),
)
"""The sections of a state, in order: their names in :class:`GameState`, and their formats.

Numbers are little-endian and 4 bytes long. A *text* is its length and its bytes. A *generator* is a flag that says
whether it is seeded, and a text. *entities* and the *grid* start with a count. The *rest* is the game's own, and ends
with ``END``."""
AGENT = 0
"""The row of the agent among the entities."""


@dataclasses.dataclass
class GameState:
    """A parsed state. Its arrays are read-only. Those of a :meth:`copy` are writable."""

    version: int
    game: str
    options: NDArray[Any]
    """One row of ``OPTIONS``."""
    level_generator: tuple[int, bytes]
    """Whether the generator of level seeds is seeded, and the text of its state.

    An empty text leaves the generator that reads it unchanged."""
    generator: tuple[int, bytes]
    """The same for the generator that makes the level and moves its objects."""
    status: NDArray[Any]
    """One row of ``STATUS``."""
    entities: NDArray[Any]
    """Rows of ``ENTITY``. The first is the agent."""
    scene: NDArray[Any]
    """One row of ``SCENE``."""
    asset_generator: tuple[int, bytes]
    view: NDArray[Any]
    """One row of ``VIEW``."""
    grid: NDArray[np.int32]
    """``int32[height, width]``: the content of each cell, in the game's own codes. Row 0 is the lowest."""
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
            CorruptFileError: it is from another version of Procgen, truncated, or has bytes left over.
        """
        reader = _Reader(data)
        try:
            version = reader.integer()
            if version != VERSION:
                raise CorruptFileError(
                    f"The game state has serialization version {version}, this Goalposts reads {VERSION}; "
                    "install procgen-mirror 0.10.7."
                )
            values = [kind.read(reader) for _name, kind in LAYOUT[1:]]
        except (struct.error, ValueError, UnicodeDecodeError) as error:
            raise CorruptFileError(f"The game state of {len(data)} bytes cannot be parsed: {error}.") from error
        state = cls(version, *values)
        if len(state.tail) < 4 or struct.unpack_from("<i", state.tail, len(state.tail) - 4)[0] != END:
            raise CorruptFileError(f"The game state of {len(data)} bytes does not end with its mark; it is truncated.")
        if not len(state.entities):
            raise CorruptFileError(f"The game state of {state.game!r} holds no agent.")
        return state

    def copy(self) -> GameState:
        """Return a copy with writable arrays."""
        return GameState(
            self.version,
            self.game,
            _copied(self.options),
            self.level_generator,
            self.generator,
            _copied(self.status),
            _copied(self.entities),
            _copied(self.scene),
            self.asset_generator,
            _copied(self.view),
            self.grid.copy(),
            self.tail,
        )

    def to_bytes(self) -> bytes:
        """Write the state. Parsing and writing gives the same bytes."""
        return b"".join([kind.write(getattr(self, name)) for name, kind in LAYOUT])


def _copied(rows: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of rows of named fields. NumPy's own copy goes field by field and takes five times as long."""
    return np.frombuffer(bytearray(rows.tobytes()), rows.dtype)


def edited_bytes(state: GameState, game: str) -> bytes:
    """Return an edited state as bytes that ``game`` can read safely.

    Raises:
        CorruptFileError: the edited state would end the process: another game or version, a grid that does not fit, an
            agent outside of it, or numbers that are not finite.
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
        if not (np.isfinite(state.entities["x"]).all() and np.isfinite(state.entities["y"]).all()):
            problem = "an entity lies nowhere"
        elif not (0 <= x < width and 0 <= y < height):
            problem = f"the agent lies at {x:g}, {y:g}, outside of its grid"
    if problem is not None:
        raise CorruptFileError(f"An edited state of {game!r} would end the game: {problem}.")
    return state.to_bytes()


def agent_place(data: bytes) -> tuple[float, float]:
    """Return the agent's place, in cells, without parsing the rest."""
    reader = _Reader(data)
    for name, kind in LAYOUT:
        if name == "entities":
            break
        kind.read(reader)
    x, y = struct.unpack_from("<ff", data, reader.at + 4)
    return x, y
