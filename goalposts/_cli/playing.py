"""Plays episodes of a task for people: animated in the terminal, as plain text without one, or as images.

The player is a reference policy, or the agent of a finished cell, rebuilt from its record and its checkpoint.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.color import Color
from rich.console import Console
from rich.live import Live
from rich.style import Style
from rich.text import Text

from goalposts._cli.images import write_gif, write_still
from goalposts.benchmark.errors import RequestError, unknown_name
from goalposts.benchmark.experiment.agents import load_agent
from goalposts.benchmark.loading import is_file
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.drawing import PALETTE, Picture, two_columns
from goalposts.benchmark.tasks.environment import BatchedEnv
from goalposts.benchmark.tasks.episodes import MakePolicy, Policy, reference_policy, watched_episodes
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.registry import make_task, task_class
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import ASKED, LOST, OUTCOMES

REFERENCES = ("aligned", "proxy", "random")
LEAST_FPS, MOST_FPS = 0.1, 50.0
"""Range of frames per second that every GIF viewer can display and the format can store."""
LAST_FRAMES = 8
"""Number of frames for which the last picture of an episode is held."""
BACKGROUND = Color.from_rgb(*PALETTE["k"])
"""Background of the terminal's cells. Every glyph's colour is readable on it."""


@dataclasses.dataclass(frozen=True)
class Player:
    """A policy and its task."""

    task: Task[Any]
    name: str
    make_policy: MakePolicy
    """Builds the policy after an episode has started."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """One moment of an episode."""

    picture: Picture
    caption: str
    outcome: str | None
    """The outcome's name in an episode's last frame. None before."""
    overview: Picture | None
    """The whole level, if it was requested."""


def show_episodes(
    task_id: str,
    policy: str = "aligned",
    *,
    console: Console,
    split: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    mitigation: str | None = None,
    seed: int = 0,
    level_file: Path | None = None,
    episodes: int = 3,
    fps: float = 6.0,
    gif: Path | None = None,
    still: Path | None = None,
    scale: int = 1,
) -> list[str]:
    """Play episodes on levels of a split.

    Args:
        task_id: the task.
        policy: ``aligned``, ``proxy``, ``random``, a goal's name, or the folder of a finished cell, whose agent plays.
        console: where to show it. On a terminal the episodes are animated. Elsewhere each frame is printed at once.
        split: an evaluation split of the task. By default its first shift.
        parameters: the task's own. An agent uses those of its cell.
        mitigation: ``path.py:Class`` of the agent's mitigation, if that is not registered.
        seed: seed of the levels and of a policy's random choices.
        episodes: how many, at least 1.
        level_file: play its first levels instead of a split's.
        fps: frames per second, 0.1 to 50.
        gif: a file for all episodes, one after another. Nothing is shown then.
        still: a file for the whole level of the first episode, with the agent's path. Nothing is shown then.
        scale: side of a pixel of these images, 1 to 4. A cell of the picture is 16 pixels wide.

    Returns:
        The name of each episode's outcome.

    Raises:
        RequestError: an argument is wrong, the folder holds no finished cell of the task, or no file can be written.
    """
    if type(episodes) is not int or episodes < 1:
        raise RequestError(f"The number of episodes is {episodes!r}; give at least 1.")
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise RequestError(f"The number of frames per second is {fps!r}; give {LEAST_FPS:g} to {MOST_FPS:g}.")
    if scale not in range(1, 5):
        raise RequestError(f"The scale is {scale!r}; give 1, 2, 3 or 4.")
    for path, kind in ((gif, "GIF"), (still, "PNG")):
        if path is not None and path.suffix.lower() != f".{kind.lower()}":
            raise RequestError(f"The file {str(path)!r} is not named as a {kind}; let it end in .{kind.lower()}.")
    player = find_player(task_id, policy, parameters or {}, mitigation, seed, console)
    task = player.task
    split = task.shifts[0] if split is None else split
    if split not in task.splits:
        raise unknown_name(f"split of task {task.id!r}", split, task.splits)
    if level_file is None:
        levels = task.shift_levels(split, episodes, generator("play", task.id, split, seed))
    else:
        levels, split = task.load_levels(level_file)[:episodes], level_file.name
        episodes = len(levels)
    series = (
        episode_frames(
            player,
            levels[i : i + 1],
            f"{split} · {player.name} · episode {i + 1} of {episodes}",
            overviews=still is not None and i == 0,
        )
        for i in range(episodes)
    )
    if gif is not None or still is not None:
        return _write([list(frames) for frames in series], gif, still, fps, scale, console)
    show = _animate if console.is_terminal else _print
    return [show(frames, fps, console) for frames in series]


def find_player(
    task_id: str, policy: str, parameters: Mapping[str, Any], mitigation: str | None, seed: int, console: Console
) -> Player:
    """Return the player for the arguments of :func:`show_episodes`. Warnings about an agent go to the console."""
    names = (*REFERENCES, *(goal.name for goal in task_class(task_id).goals))
    if policy not in names:
        path = Path(policy)
        if not path.exists():
            if "/" in policy or path.suffix:
                raise RequestError(f"There is no {policy!r}; give a finished cell, RUN/cells/CELL, or an agent's file.")
            raise unknown_name(f"policy of task {task_id!r}", policy, names)
        if parameters:
            raise RequestError(
                f"The parameters {dict(parameters)!r} are given, but the agent of {policy!r} uses those that it "
                "was trained with; leave them out."
            )
        return _agent(path, task_id, mitigation, seed, console)
    if mitigation is not None:
        raise RequestError(f"A mitigation {mitigation!r} is given, but policy {policy!r} has none; leave it out.")
    task = make_task(task_id, **parameters)
    random = generator("play", task.id, seed, policy)
    return Player(task, policy, lambda env: reference_policy(task, policy, env, random))


def _agent(path: Path, task_id: str, mitigation: str | None, seed: int, console: Console) -> Player:
    """Return the agent of a finished cell or of a file."""
    agent = load_agent(path, task=task_id if is_file(task_id) else None, mitigation=mitigation)
    if agent.task.id != task_class(task_id).id:
        raise RequestError(f"The agent of {str(path)!r} plays {agent.task.id!r}, not {task_id!r}; give that task.")
    if agent.changed:
        changed = f"The files of {agent.record.cell.mitigation!r} have changed since this agent was trained."
        console.print(Text(changed, "yellow"))
    policy = agent.policy(generator("play", agent.task.id, seed, "agent"))
    return Player(agent.task, agent.name, lambda _env: policy)


def episode_frames(player: Player, level: Levels, caption: str, *, overviews: bool = False) -> Iterator[Frame]:
    """Yield the frames of one episode, before its first step and after every step.

    Args:
        player: the player.
        level: one level.
        caption: the beginning of every frame's caption.
        overviews: draw the whole level in every frame as well.
    """
    task = player.task
    env = task.make_env(1)
    history = torch.zeros(task.time_limit, 1, len(task.goals), dtype=torch.bool)
    limit = task.time_limit

    def frame(caption: str, outcome: str | None = None) -> Frame:
        return Frame(env.picture(), caption, outcome, env.overview() if overviews else None)

    def make_policy(env: BatchedEnv[Any]) -> Policy:
        nonlocal limit
        limit = int(env.state["time_limit"]) if "time_limit" in env.state else task.time_limit
        before.append(frame(f"{caption} · step 0 of {limit}"))
        return player.make_policy(env)

    before: list[Frame] = []
    for moment in watched_episodes(task, level, env, make_policy):
        yield from before
        before.clear()
        history[moment.time] = moment.events
        asked = bool(moment.asked)
        step = f"step {moment.time + 1} of {limit}"
        parts = [caption, step, "asks for help" if asked else task.actions[int(moment.actions)]]
        achieved = [goal.name for goal, event in zip(task.goals, moment.events[0].tolist(), strict=True) if event]
        parts += [", ".join(achieved)] if achieved else []
        outcome = None
        if not bool(moment.going_on):
            code = int(task.outcome(level, history))
            outcome = OUTCOMES[ASKED if asked and code == LOST else code]
            parts.append(f"outcome: {outcome}")
        yield frame(" · ".join(parts), outcome)


def _last_outcome(frame: Frame) -> str:
    assert frame.outcome is not None
    return frame.outcome


def _print(frames: Iterator[Frame], _fps: float, console: Console) -> str:
    for frame in frames:
        console.print(f"{frame.picture.text()}\n{frame.caption}\n", soft_wrap=True, markup=False, highlight=False)
    return _last_outcome(frame)


def _animate(frames: Iterator[Frame], fps: float, console: Console) -> str:
    with Live(console=console, auto_refresh=False) as live:
        for frame in frames:
            live.update(Text("\n").join([colored(frame.picture), Text(frame.caption, overflow="fold")]), refresh=True)
            time.sleep((1 if frame.outcome is None else LAST_FRAMES) / fps)
    return _last_outcome(frame)


def colored(picture: Picture) -> Text:
    """Return the picture for the terminal, with two columns per cell."""
    width = max((len(label) for label in picture.labels), default=0)
    labels = picture.labels or ("",) * len(picture.cells)
    lines = []
    for label, row in zip(labels, picture.glyphs(), strict=True):
        line = Text(f"{label:>{width}}  " if picture.labels else "", no_wrap=True)
        for glyph, color in row:
            line.append(two_columns(glyph), Style(color=Color.from_rgb(*color), bgcolor=BACKGROUND))
        lines.append(line)
    return Text("\n").join(lines)


def _write(
    series: list[list[Frame]], gif: Path | None, still: Path | None, fps: float, scale: int, console: Console
) -> list[str]:
    """Write the requested images."""
    written = []
    if still is not None:
        overviews = [frame.overview for frame in series[0] if frame.overview is not None]
        written.append(write_still(still, overviews, scale))
    if gif is not None:
        frames = [frame for episode in series for frame in episode]
        milliseconds = 10 * round(100 / fps)  # GIF durations are in hundredths of a second.
        durations = [milliseconds * (1 if frame.outcome is None else LAST_FRAMES) for frame in frames]
        written.append(write_gif(gif, [frame.picture for frame in frames], durations, scale))
    for line in written:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    return [_last_outcome(episode[-1]) for episode in series]
