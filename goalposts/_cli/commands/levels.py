"""Write a file of levels, to play or evaluate on exactly these."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.options import GREATEST_SEED, SetOption, TaskArgument, parameters
from goalposts._cli.printing import out
from goalposts._cli.probe import refuse_silent_ends
from goalposts.benchmark.errors import RequestError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def levels(
    task: TaskArgument,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The safetensors file to write.")],
    split: Annotated[str, typer.Option(metavar="SPLIT", help="An evaluation split, or train.")] = "in_distribution",
    alpha: Annotated[float, typer.Option(metavar="A", help="Disambiguation rate of split train.")] = 0.0,
    count: Annotated[int, typer.Option("--count", metavar="N", help="Number of levels.", min=1, max=1_000_000)] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the levels.", min=0, max=GREATEST_SEED)] = 0,
    settings: SetOption = None,
) -> None:
    from goalposts.benchmark.randomness import generator
    from goalposts.benchmark.tasks.gymnasium_env import draw_levels
    from goalposts.benchmark.tasks.registry import make_task

    if path.is_dir():  # The empty path is a folder, too.
        raise RequestError(f"{str(path)!r} is a folder; name the file to write.")
    refuse_silent_ends(task)
    made = make_task(task, **parameters(settings))
    drawn = draw_levels(made, split, alpha, count, generator("level file", made.id, split, seed))
    drawn.save(path, task=made.id, version=made.version)
    out.print(f"Wrote {count} levels of {made.id} ({split}) to {path}.", soft_wrap=True)
