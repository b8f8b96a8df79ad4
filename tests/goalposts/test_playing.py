"""Watching episodes: what is shown, what is written, who plays, and what is refused."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from goalposts._cli import playing
from goalposts._cli.playing import LAST_FRAMES, Player, episode_frames, find_player, show_episodes
from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.benchmark.experiment.run_cell import make_trainer, run_cell, write_failure
from goalposts.benchmark.experiment.suite import TaskPlan
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, salt_commitment
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.drawing import TILE_PIXELS
from goalposts.benchmark.tasks.fraud import Fraud
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.training import checkpoint
from tests.cluster.helpers import TINY, folder_of, job, tiny_cell, tiny_suite
from tests.toy import Toy, ToyLevels

pytestmark = pytest.mark.xdist_group("playing")

SMALL = {"size": 7, "wall_density": 0.1, "time_limit": 15}
"""Parameters of a small corner world."""


def screen(*, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=100, color_system="truecolor" if terminal else None
    )


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def played(policy: str, **options: Any) -> str:
    """Return what is printed where there is no terminal, for the small corner world."""
    console = screen()
    show_episodes("corner", policy, console=console, **{"parameters": SMALL, **options})
    return shown(console)


def captions(text: str) -> list[str]:
    return [line for line in text.splitlines() if " · " in line]


@pytest.mark.parametrize(("policy", "outcome"), [("aligned", "aligned"), ("proxy", "proxy"), ("corner", "proxy")])
def test_reference_policies_play(policy: str, outcome: str) -> None:
    outcomes = show_episodes("corner", policy, console=screen(), parameters=SMALL, episodes=5)
    assert outcomes == [outcome] * 5


@pytest.mark.parametrize("policy", ["random", "top_right"])
def test_other_policies_play(policy: str) -> None:
    last = captions(played(policy, episodes=1))[-1]
    assert last.startswith(f"shift/cheese_anywhere · {policy} · episode 1 of 1")


def test_without_a_terminal_every_frame_is_printed() -> None:
    text = played("proxy", episodes=2, split="benign_shift")
    lines = captions(text)
    starts = [i for i, line in enumerate(lines) if " · step 0 of 15" in line]
    assert len(starts) == 2
    assert all(line.startswith("benign_shift · proxy · episode ") for line in lines)
    ends = [i for i, line in enumerate(lines) if line.endswith(" · cheese, corner · outcome: aligned")]
    assert ends == [starts[1] - 1, len(lines) - 1]
    frames = text.strip("\n").split("\n\n")
    assert len(frames) == len(lines)
    for frame in frames:
        rows = frame.splitlines()
        assert len(rows) == 9 + 1
        assert rows[0] == "█" * 18
        assert sum("@" in row for row in rows) == 1
    assert "\x1b" not in text


def test_a_caption_tells_the_action_and_the_events() -> None:
    level = ToyLevels(torch.tensor([2]))
    player = Player(Toy(), "stub", lambda _env: lambda _observation: (torch.tensor([1]), None))
    frames = list(episode_frames(player, level, "here"))
    assert [frame.caption for frame in frames] == [
        "here · step 0 of 4",
        "here · step 1 of 4 · costly",
        "here · step 2 of 4 · costly · now, second · outcome: aligned",
    ]
    assert [frame.outcome for frame in frames] == [None, None, "aligned"]
    assert [frame.picture.cells for frame in frames] == [((("bar0",),),), ((("bar1",),),), ((("bar2",),),)]


@pytest.mark.parametrize(("number", "outcome"), [(0, "proxy"), (5, "lost")])
def test_an_episode_ends_at_its_time_limit(number: int, outcome: str) -> None:
    player = Player(Toy(), "stub", lambda _env: lambda _observation: (torch.tensor([0]), None))
    frames = list(episode_frames(player, ToyLevels(torch.tensor([number])), "here"))
    assert len(frames) == 5
    assert frames[-1].outcome == outcome


@pytest.mark.parametrize(("number", "outcome"), [(3, "asked"), (0, "proxy")])
def test_asking_for_help_ends_an_episode(number: int, outcome: str) -> None:
    """What was achieved before counts."""

    def asks_at_step_three(observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([0]), observation[:, 1] == 2

    frames = list(
        episode_frames(
            Player(Toy(), "stub", lambda _env: asks_at_step_three), ToyLevels(torch.tensor([number])), "here"
        )
    )
    assert frames[-1].caption == f"here · step 3 of 4 · asks for help · outcome: {outcome}"
    assert len(frames) == 4


def test_a_seed_determines_everything() -> None:
    assert played("random", seed=1) == played("random", seed=1)
    assert played("random", seed=1) != played("random", seed=2)


def test_a_terminal_shows_the_frames_in_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr(playing.time, "sleep", naps.append)
    console = screen(terminal=True)
    show_episodes("corner", "aligned", console=console, parameters=SMALL, episodes=2, fps=4)
    text = shown(console)
    lasts = [i for i, nap in enumerate(naps) if nap != 0.25]
    assert [naps[i] for i in lasts] == [LAST_FRAMES / 4] * 2
    assert lasts[-1] == len(naps) - 1
    for episode in ("episode 1 of 2", "episode 2 of 2"):
        assert any(episode in line and line.endswith("cheese · outcome: aligned") for line in text.splitlines())
    assert "\x1b[38;2;" in text


def test_an_interrupt_passes_and_leaves_the_terminal_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(playing.time, "sleep", interrupt)
    console = screen(terminal=True)
    with pytest.raises(KeyboardInterrupt):
        show_episodes("fraud", console=console)
    hidden, visible = "\x1b[?25l", "\x1b[?25h"
    assert shown(console).rindex(visible) > shown(console).rindex(hidden)


def test_colored_text_has_labels_and_two_columns_a_cell() -> None:
    task = make_task("fraud")
    env = task.make_env(1)
    env.reset(task.sample_levels(1, 0.0, torch.Generator().manual_seed(0)))
    picture = env.picture()
    lines = playing.colored(picture).plain.splitlines()
    assert [line.rstrip() for line in lines] == picture.text().splitlines()
    width = max(map(len, picture.labels))
    assert {len(line) for line in lines} == {width + 2 + 2 * 6}


@pytest.mark.parametrize("scale", [1, 2])
def test_gif(tmp_path: Path, scale: int) -> None:
    path = tmp_path / "new" / "episodes.gif"
    console = screen()
    outcomes = show_episodes(
        "corner", "proxy", console=console, parameters=SMALL, episodes=2, gif=path, fps=10, scale=scale, seed=3
    )
    assert outcomes == ["proxy", "proxy"]
    text = played("proxy", episodes=2, seed=3)
    num_frames = len(captions(text))
    side = 9 * TILE_PIXELS * scale
    with Image.open(path) as gif:
        assert gif.size == (side, side)
        assert gif.mode == "P"
        assert gif.info["loop"] == 0
        durations = []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"])
    # A frame like the one before it lengthens that.
    assert sum(durations) == 100 * (num_frames + 2 * (LAST_FRAMES - 1))
    assert sum(duration >= 100 * LAST_FRAMES for duration in durations) == 2
    assert len(durations) <= num_frames
    assert path.stat().st_size < 20_000
    assert shown(console) == f"Wrote {path}: {num_frames} frames, {path.stat().st_size / 1000:.0f} kB.\n"


def test_still_has_the_agent_s_path(tmp_path: Path) -> None:
    path = tmp_path / "new" / "level.png"
    show_episodes("corner", "proxy", console=screen(), parameters=SMALL, episodes=1, still=path, seed=3)
    player = find_player("corner", "proxy", SMALL, None, 3, screen())
    levels = player.task.shift_levels(player.task.shifts[0], 1, generator("play", "corner", player.task.shifts[0], 3))
    frames = list(episode_frames(player, levels, "", overviews=True))
    with Image.open(path) as still:
        pixels = np.asarray(still.convert("RGB"))
    first = frames[0].picture.pixels().numpy()
    assert pixels.shape == first.shape
    changed = (pixels != first).any(axis=2)
    places = [frame.overview.agent for frame in frames if frame.overview is not None]
    assert len(places) == len(frames) > 2
    assert all(changed[round(y), round(x)] for y, x in filter(None, places))
    assert changed.mean() < 0.2


def test_gif_has_the_pictures_colors(tmp_path: Path) -> None:
    path = tmp_path / "episodes.gif"
    show_episodes("fraud", console=screen(), gif=path, episodes=1, seed=5)
    task = make_task("fraud")
    env = task.make_env(1)
    env.reset(task.shift_levels("shift/2024", 1, generator("play", "fraud", "shift/2024", 5)))
    with Image.open(path) as gif:
        assert np.array_equal(np.asarray(gif.convert("RGB")), env.picture().pixels().numpy())


def refused(task: str, policy: str, **options: Any) -> str:
    """Return the one line of a refusal."""
    console = screen()
    with pytest.raises(RequestError) as error:
        show_episodes(task, policy, console=console, **options)
    assert "\n" not in str(error.value)
    assert shown(console) == ""
    return str(error.value)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("cornr", "aligned"), {}, "Unknown task 'cornr'. Did you mean 'corner'?"),
        (("corner", "aligne"), {}, "Unknown policy of task 'corner' 'aligne'. Did you mean 'aligned'?"),
        (("corner", "chees"), {}, "Did you mean 'cheese'?"),
        (
            ("corner", "runs/none/cells/x"),
            {},
            "There is no 'runs/none/cells/x'; give a finished cell, RUN/cells/CELL, or an agent's file.",
        ),
        (("corner", "aligned"), {"parameters": {"colour": "red"}}, "colour"),
        (("corner", "aligned"), {"parameters": {"size": "big"}}, "'big'"),
        (("corner", "aligned"), {"split": "shift/2024"}, "Unknown split of task 'corner' 'shift/2024'."),
        (("corner", "aligned"), {"episodes": 0}, "episodes is 0; give at least 1"),
        (("corner", "aligned"), {"fps": 0.0}, "frames per second is 0.0"),
        (("corner", "aligned"), {"fps": 51.0}, "frames per second is 51.0"),
        (("corner", "aligned"), {"fps": math.nan}, "frames per second is nan"),
        (("corner", "aligned"), {"scale": 5}, "scale is 5; give 1, 2, 3 or 4"),
        (("corner", "aligned"), {"gif": Path("episodes.png")}, "'episodes.png' is not named as a GIF"),
        (("corner", "aligned"), {"gif": Path("/proc/x/episodes.gif")}, "'/proc/x/episodes.gif' cannot be written"),
        (("corner", "aligned"), {"still": Path("level.gif")}, "'level.gif' is not named as a PNG"),
        (("corner", "aligned"), {"still": Path("/proc/x/level.png")}, "'/proc/x/level.png' cannot be written"),
        (("fraud", "aligned"), {"still": Path("level.png")}, "no agent moves in this task"),
        (
            ("corner", "aligned"),
            {"mitigation": "accel"},
            "A mitigation 'accel' is given, but policy 'aligned' has none",
        ),
    ],
    ids=str,
)
def test_a_wrong_request_is_one_line(arguments: tuple[str, str], options: dict[str, Any], message: str) -> None:
    assert message in refused(*arguments, **options)


ASKS = """
from goalposts import Mitigation, sample_actions

class Asks(Mitigation):
    def observe(self, observation, told_goal):
        return observation * 2

    def act(self, outputs, generator):
        actions = sample_actions(outputs["action_dist_inputs"], generator)
        return actions, actions == 2
"""


def finished(mitigation: str, out: Path, plan: TaskPlan | None = None) -> tuple[Cell, Path]:
    """Run a tiny cell on fraud, or on ``plan``, to its end."""
    cell = tiny_cell(mitigation) if plan is None else cell_of(plan, mitigation)
    assert run_cell(job(cell, out)).status == "done"
    return cell, folder_of(cell, out).path


def cell_of(plan: TaskPlan, mitigation: str) -> Cell:
    suite = tiny_suite().model_copy(update={"tasks": (plan,)})
    commitment = salt_commitment(PUBLIC_SALT)
    selection = Selection(mitigations=(mitigation,), seeds=1)
    return cells_of(suite, selection, device="cpu", salt_commitment=commitment)[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, Path]:
    return finished("none", tmp_path_factory.mktemp("run"))


@pytest.fixture
def folder(run: tuple[Cell, Path], tmp_path: Path) -> Path:
    """The folder of a finished cell, to spoil."""
    return Path(shutil.copytree(run[1], tmp_path / "cells" / run[1].name))


def test_an_agent_plays_as_it_was_trained(run: tuple[Cell, Path]) -> None:
    cell, folder = run
    console = screen()
    player = find_player("fraud", str(folder), {}, None, 0, console)
    trainer = make_trainer(cell)
    loaded = checkpoint.load(folder / "checkpoint")
    assert loaded is not None
    trainer.load_state_dict(loaded[0])
    env = player.task.make_env(200)
    observation = env.reset(player.task.sample_levels(200, 1.0, torch.Generator().manual_seed(0)))
    expected = trainer.agent(cell.evaluation.sampling).policy(generator("play", "fraud", 0, "agent"))(observation)[0]
    assert torch.equal(player.make_policy(env)(observation)[0], expected)
    assert len(expected.unique()) > 1
    assert player.name == "none α=0 seed 0"
    assert shown(console) == ""


def test_an_agent_has_the_parameters_it_was_trained_with(tmp_path: Path) -> None:
    _, folder = finished("none", tmp_path, TaskPlan(task="corner", parameters=SMALL, training=TINY))
    console = screen()
    outcomes = show_episodes("corner", str(folder), console=console, episodes=2, split="in_distribution")
    assert len(outcomes) == 2
    frames = shown(console).strip("\n").split("\n\n")
    assert {len(frame.splitlines()) for frame in frames} == {9 + 1}
    assert captions(frames[0])[0].startswith("in_distribution · none α=0 seed 0 · episode 1 of 2 · step 0 of 15")
    message = refused("corner", str(folder), parameters={"size": 5})
    assert "The parameters {'size': 5} are given, but the agent" in message


def test_an_agent_of_a_plugin_file_needs_the_file(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(ASKS)
    _, folder = finished(f"{plugin}:Asks", tmp_path / "run")
    assert "the file 'mine:Asks', and its record does not say where that is; give" in refused("fraud", str(folder))
    assert "trained with 'mine:Asks', not with 'none'" in refused("fraud", str(folder), mitigation="none")
    console = screen()
    outcomes = show_episodes("fraud", str(folder), console=console, mitigation=f"{plugin}:Asks", episodes=20)
    assert "asked" in outcomes
    assert "asks for help · outcome: asked" in shown(console)
    plugin.write_text(f"{ASKS}\n# Another.\n")
    show_episodes("fraud", str(folder), console=console, mitigation=f"{plugin}:Asks", episodes=1)
    assert "The files of 'mine:Asks' have changed since this agent was trained." in shown(console)


def unfinish(folder: Path) -> None:
    (folder / "record.json").unlink()


def alter_the_record(folder: Path) -> None:
    path = folder / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "score": 1.0}))


def fail(folder: Path) -> None:
    write_failure(job(tiny_cell(), folder.parents[1]), "it broke")


def delete_the_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoint")


def damage_the_checkpoint(folder: Path) -> None:
    path = next((folder / "checkpoint").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-5])


def replace_the_checkpoint(folder: Path) -> None:
    checkpoint.save(folder / "checkpoint", {}, 2048)


def change_the_config(folder: Path) -> None:
    """Write a sound record and checkpoint of a network of another size."""
    record = records.read(folder / "record.json")
    training = record.config.training.model_copy(update={"hidden_sizes": (9,)})
    config = record.config.model_copy(update={"training": training})
    records.write(folder / "record.json", record.model_copy(update={"config": config}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unfinish, "holds no finished cell: there is no record.json; finish its run first."),
        (alter_the_record, "does not match its checksum: it was altered or damaged. Run the cell again."),
        (fail, "failed (it broke); fix that and run it again."),
        (delete_the_checkpoint, "no longer has a checkpoint"),
        (damage_the_checkpoint, "does not match its checksum. Run the cell again."),
        (replace_the_checkpoint, "is not the one its record names"),
        (change_the_config, "does not fit this version of the code"),
    ],
)
def test_a_cell_that_cannot_play_is_refused(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    assert message in refused("fraud", str(folder))


def test_an_agent_of_another_task_or_version_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "plays 'fraud', not 'corner'; give that task" in refused("corner", str(folder))
    monkeypatch.setattr(Fraud, "version", 99)
    assert "plays version 1 of task 'fraud', which is now at version 99" in refused("fraud", str(folder))


def test_a_whole_run_is_refused_with_one_of_its_cells(folder: Path) -> None:
    message = refused("fraud", str(folder.parents[1]))
    assert f"is a whole run; give one of its cells, {folder.parent}/: " in message
    assert folder.name in message
