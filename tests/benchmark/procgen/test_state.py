"""The parser of game states: a round trip of many, and what it refuses."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from goalposts.benchmark.errors import CorruptFileError
from goalposts.benchmark.tasks.procgen.games import Games, Look
from goalposts.benchmark.tasks.procgen.state import LAYOUT, GameState, agent_place, edited_bytes

GAMES = ("coinrun", "maze", "heist")
STATES = 320
LOOKS = (Look("easy", backgrounds=False, plain=True), Look("hard"))


def states(game: str, look: Look = LOOKS[0], count: int = STATES) -> list[bytes]:
    games = Games(game, 16, look)
    random = np.random.default_rng(0)
    found: list[bytes] = []
    while len(found) < count:
        for _ in range(7):
            games.step(random.integers(-1, 9, 16))
        found += [games.get(index) for index in range(16)]
    return found


@pytest.mark.parametrize("look", LOOKS, ids=["easy", "hard"])
@pytest.mark.parametrize("game", GAMES)
def test_parsing_and_writing_gives_the_same_bytes(game: str, look: Look) -> None:
    seen = states(game, look)
    assert len(set(seen)) > STATES / 2
    for data in seen:
        state = GameState.from_bytes(data)
        assert state.to_bytes() == data
        assert state.game == game
        assert state.status["level_seed"][0] >= 0
        assert (state.agent["x"][0], state.agent["y"][0]) == agent_place(data)


def test_an_edit_is_read_back_by_the_game() -> None:
    games = Games("coinrun", 1, LOOKS[0])
    state = GameState.from_bytes(games.get(0)).copy()
    state.agent["x"] = 3.25
    state.status["timeout"] = 77
    games.set(0, edited_bytes(state, "coinrun"))
    again = GameState.from_bytes(games.get(0))
    assert (float(again.agent["x"][0]), int(again.status["timeout"][0])) == (3.25, 77)


def test_an_empty_text_leaves_the_generator_as_it_was() -> None:
    games = Games("coinrun", 2, LOOKS[0])
    first = GameState.from_bytes(games.get(0))
    kept = GameState.from_bytes(games.get(1)).generator
    first.generator = (1, b"")
    games.set(1, edited_bytes(first, "coinrun"))
    assert GameState.from_bytes(games.get(1)).generator == kept != GameState.from_bytes(games.get(0)).generator


@pytest.mark.parametrize("cut", [0, 3, 100, 7_000, 20_000, -4, -1])
def test_a_truncated_state_is_refused(cut: int) -> None:
    data = states("coinrun", count=16)[0]
    with pytest.raises(CorruptFileError, match="game state"):
        GameState.from_bytes(data[:cut])


def test_a_state_of_another_version_is_refused() -> None:
    data = states("coinrun", count=16)[0]
    with pytest.raises(CorruptFileError, match=r"version 7, this Goalposts reads 0; install procgen-mirror"):
        GameState.from_bytes(struct.pack("<i", 7) + data[4:])


def test_bytes_left_over_are_refused() -> None:
    data = states("maze", count=16)[0]
    with pytest.raises(CorruptFileError, match="mark"):
        GameState.from_bytes(data + b"\0\0\0\0")


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("game", "it is of 'coinrun'"),
        ("grid", "its grid is"),
        ("nowhere", "lies nowhere"),
        ("outside", "outside of its grid"),
        ("agent", "no agent"),
    ],
)
def test_an_edit_that_would_end_the_game_is_refused(problem: str, message: str) -> None:
    state = GameState.from_bytes(states("coinrun", count=16)[0]).copy()
    if problem == "grid":
        state.grid = state.grid[:, :-1]
    elif problem == "nowhere":
        state.entities["y"][-1] = np.nan
    elif problem == "outside":
        state.agent["x"] = -0.5
    elif problem == "agent":
        state.entities = state.entities[:0]
    with pytest.raises(CorruptFileError, match=message):
        edited_bytes(state, "maze" if problem == "game" else "coinrun")


def test_the_table_names_every_section() -> None:
    assert [name for name, _kind in LAYOUT] == list(GameState.__dataclass_fields__)
