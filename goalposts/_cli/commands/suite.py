"""Suites as files. The released ones are a starting point for your own."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help=__doc__, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _suite() -> None:
    """Keep 'show' as a subcommand, though it is the only one."""


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A released suite, or the path of a .toml file.")],
) -> None:
    """Print a suite as a file that 'goalposts run FILE.toml' takes."""
    from goalposts.benchmark.experiment.suite import get_suite, suite_toml

    print(suite_toml(get_suite(name)), end="")  # noqa: T201 (not to be wrapped)
