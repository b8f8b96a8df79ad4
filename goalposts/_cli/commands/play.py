"""Watch episodes: animated in the terminal, as plain text into a pipe, or as images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.options import GREATEST_SEED, SetOption, TaskArgument, parameters
from goalposts._cli.printing import out
from goalposts._cli.probe import refuse_silent_ends

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def play(
    task: TaskArgument,
    policy: Annotated[
        str, typer.Option(metavar="POLICY", help="aligned, proxy, random, a goal, RUN/cells/CELL, or an agent's file.")
    ] = "aligned",
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Default: the task's first shift.")] = None,
    episodes: Annotated[int, typer.Option(metavar="N", help="Number of episodes.", min=1, max=1000)] = 3,
    fps: Annotated[float, typer.Option(metavar="F", help="Frames per second.")] = 6.0,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N", help="Seed of the levels and of the policy's random choices.", min=0, max=GREATEST_SEED
        ),
    ] = 0,
    level_file: Annotated[
        Path | None,
        typer.Option("--levels", metavar="FILE", help="Use the first levels of this file instead of a split."),
    ] = None,
    gif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a GIF instead of showing the episodes.")
    ] = None,
    still: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a PNG of the first whole level with the agent's path.")
    ] = None,
    scale: Annotated[int, typer.Option(metavar="N", help="Side of a pixel of these images, 1 to 4.")] = 1,
    mitigation: Annotated[
        str | None, typer.Option(metavar="path.py:Class", help="The agent's mitigation, if it is not registered.")
    ] = None,
    settings: SetOption = None,
) -> None:
    from goalposts._cli import playing

    refuse_silent_ends(task, *filter(None, (mitigation,)))
    playing.show_episodes(
        task,
        policy,
        console=out,
        split=split,
        parameters=parameters(settings),
        mitigation=mitigation,
        seed=seed,
        level_file=level_file,
        episodes=episodes,
        fps=fps,
        gif=gif,
        still=still,
        scale=scale,
    )
