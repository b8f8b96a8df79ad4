"""Create your own mitigations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.printing import command, out

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.callback(help=__doc__)(lambda: None)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case with underscores, such as small_logits.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the package goes.")] = Path(),
) -> None:
    """Write an installable package with a small mitigation, its entry point and a test that passes."""
    from goalposts._cli.skeleton import write_plugin

    path, _ = write_plugin(name, folder)
    python = command("python")
    out.print(f"Wrote {path}. Install it, check it against the contract, and run its test with:", soft_wrap=True)
    out.print(f'  {python} -m pip install -e "{path}[dev]"', soft_wrap=True)
    out.print(f"  {command('goalposts')} check {name}", soft_wrap=True)
    out.print(f"  {python} -m pytest {path}", soft_wrap=True)
