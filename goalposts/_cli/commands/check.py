"""Check a mitigation against the plugin contract, in less than a minute. Exits with 1 if it does not conform."""

from __future__ import annotations

from typing import Annotated

import typer

from goalposts._cli.exit_codes import FAILED
from goalposts._cli.options import JsonOption
from goalposts._cli.printing import err, out, print_json

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def check(
    reference: Annotated[
        str, typer.Argument(metavar="PLUGIN", help="A registered name from 'list mitigations', or path.py:Class.")
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="T", help="Only this task, or path.py:Class; may be repeated."),
    ] = None,
    hook_seconds: Annotated[
        float, typer.Option(metavar="S", help="Longest time for one call of a hook.", min=0.1, max=3600)
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    from goalposts._cli import checking

    with err.status(f"Checking {reference}…"):
        report = checking.check(reference, tasks or (), hook_seconds)
    error = checking.failure(report)
    if error is not None:
        raise error
    if as_json:
        print_json(report.json())
    else:
        checking.print_report(out, report)
    if not report.conforms:
        raise typer.Exit(FAILED)
