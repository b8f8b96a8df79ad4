"""Games side by side: levels chosen by seed, and the same from any state, process and number of threads."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.tasks.procgen import games as module
from goalposts.benchmark.tasks.procgen.games import Games, LevelMaker, Look
from goalposts.benchmark.tasks.procgen.state import GameState

EASY = Look("easy", backgrounds=False, plain=True)
SEEDS = [0, 5, 123_456, (1 << 31) - 2]


@pytest.mark.parametrize("game", ["coinrun", "maze", "heist"])
def test_a_level_depends_on_its_seed_alone(game: str) -> None:
    one = LevelMaker(game, EASY, count=2).states(SEEDS)
    other = LevelMaker(game, EASY, count=4)
    other.states([99, 98, 97])
    again = other.states(SEEDS[::-1])[::-1]
    assert [state.to_bytes() for state in one] == [state.to_bytes() for state in again]
    assert [int(state.status["level_seed"][0]) for state in one] == SEEDS
    assert len({state.grid.tobytes() + state.entities.tobytes() for state in one}) == len(SEEDS)


@pytest.mark.parametrize("look", [EASY, Look("hard", paint_velocity=True)], ids=["plain", "full"])
@pytest.mark.parametrize("game", ["coinrun", "maze", "heist"])
def test_a_made_level_is_the_one_that_the_game_makes_itself(game: str, look: Look) -> None:
    games = Games(game, len(SEEDS), look)
    for i, seed in enumerate(SEEDS):
        state = GameState.from_bytes(games.get(i)).copy()
        state.options["level_seed_low"], state.options["level_seed_high"] = seed, seed + 1
        games.set(i, state.to_bytes())
    frames = games.step(np.full(len(SEEDS), -1)).frames.copy()
    own = [GameState.from_bytes(games.get(i)) for i in range(len(SEEDS))]
    made = LevelMaker(game, look).states(SEEDS)
    for i, state in enumerate(made):
        games.set(i, state.to_bytes())
    assert np.array_equal(games.observe().frames, frames)
    for theirs, ours in zip(own, made, strict=True):
        for name in ("entities", "view", "grid"):
            assert getattr(theirs, name).tobytes() == getattr(ours, name).tobytes(), name
        assert theirs.tail == ours.tail


@pytest.mark.parametrize("game", ["coinrun", "maze", "heist"])
def test_nothing_random_happens_while_a_level_is_played(game: str) -> None:
    """So a game may play a level with a generator left over from another."""
    states = LevelMaker(game, EASY).states(list(range(16)))
    one, other = Games(game, 16, EASY), Games(game, 16, EASY)
    for _ in range(3):
        other.step(np.full(16, -1))
    for i, state in enumerate(states):
        one.set(i, state.to_bytes())
        other.set(i, state.to_bytes())
    assert GameState.from_bytes(one.get(0)).generator != GameState.from_bytes(other.get(0)).generator
    random = np.random.default_rng(1)
    playing = np.ones(16, dtype=bool)
    for _ in range(100):
        actions = random.integers(0, 9, 16)
        left, right = one.step(actions), other.step(actions)
        assert np.array_equal(left.ended[playing], right.ended[playing])
        playing &= ~left.ended
        assert np.array_equal(left.frames[playing], right.frames[playing])
    for i in playing.nonzero()[0].tolist():
        left_state, right_state = (GameState.from_bytes(games.get(i)) for games in (one, other))
        assert left_state.entities.tobytes() == right_state.entities.tobytes()


def test_a_state_goes_on_alike_in_games_of_another_past() -> None:
    state = LevelMaker("coinrun", EASY).states([11])[0].to_bytes()
    fresh, used = Games("coinrun", 1, EASY), Games("coinrun", 3, EASY)
    random = np.random.default_rng(1)
    for _ in range(50):
        used.step(random.integers(0, 9, 3))
    fresh.set(0, state)
    used.set(2, state)
    assert np.array_equal(fresh.observe().frames[0], used.observe().frames[2])
    for _ in range(200):
        actions = random.integers(0, 9, 3)
        one, other = fresh.step(actions[2:]), used.step(actions)
        assert np.array_equal(one.frames[0], other.frames[2])
        assert (one.rewards[0], one.ended[0]) == (other.rewards[2], other.ended[2])


PROGRAM = """
import hashlib, sys
import torch
from goalposts.benchmark.tasks.coinrun import CoinRun
task = CoinRun(mode="easy", threads=int(sys.argv[1]), time_limit=40)
levels = task.sample_levels(8, 0.5, torch.Generator().manual_seed(3))
env = task.make_env(8)
env.watched = True
seen = [env.reset(levels)]
random = torch.Generator().manual_seed(4)
for _ in range(40):
    step = env.step(torch.randint(9, (8,), generator=random))
    seen += [step.observation, step.events, step.terminated]
print(hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in seen)).hexdigest())
"""


def test_equal_seeds_show_the_same_across_processes_and_threads() -> None:
    digests = {
        subprocess.run([sys.executable, "-c", PROGRAM, threads], capture_output=True, text=True, check=True).stdout
        for threads in ("0", "1", "3")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == len(hashlib.sha256().hexdigest())


def test_a_missing_wheel_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "procgen", None)
    with pytest.raises(RequestError, match=r"procgen-mirror 0\.10\.7.*The other tasks work without it"):
        module.Games("coinrun", 1, EASY)


def test_games_close_while_their_library_is_locked() -> None:
    """The garbage collector may close games amidst anything, also while the same thread makes others."""
    games = Games("coinrun", 1, Look())
    with games._games._ffi._lock:
        closing = threading.Thread(target=games._games.close, daemon=True)
        closing.start()
        closing.join(timeout=60)
        assert not closing.is_alive()
