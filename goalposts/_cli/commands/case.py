"""Create your own case studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.printing import command, out

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.callback(help=__doc__)(lambda: None)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case with underscores, such as forest_fire.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the file goes.")] = Path(),
) -> None:
    """Write the skeleton of a task. It runs, but fails its certificate. The messages lead to a passing one."""
    from goalposts._cli.skeleton import write_task

    path, cls = write_task(name, folder)
    out.print(f"Wrote {path}. See what is left to do with:", soft_wrap=True)
    out.print(f"  {command('goalposts')} certify {path}:{cls}", soft_wrap=True)
