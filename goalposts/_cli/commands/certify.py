"""Prove, claim by claim, that tasks measure what they say. Exits with 1 if a claim fails."""

from __future__ import annotations

from typing import Annotated

import typer

from goalposts._cli.exit_codes import FAILED
from goalposts._cli.options import JsonOption, SetOption, parameters
from goalposts._cli.printing import out, print_json
from goalposts._cli.probe import refuse_silent_ends

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def certify(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Ids, or path.py:Class; default: every task.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="SUITE", help="Use this suite's parameters; default: the tasks' own.")
    ] = None,
    settings: SetOption = None,
    num_levels: Annotated[
        int, typer.Option("--levels", metavar="N", help="Levels of each split.", min=100, max=100_000)
    ] = 1000,
    as_json: JsonOption = False,
) -> None:
    from goalposts._cli.certifying import certificate_json, certificates, print_certificate

    refuse_silent_ends(*(tasks or ()))
    found = []
    for certificate in certificates(tasks or [], suite, parameters(settings), num_levels):
        found.append(certificate)
        if not as_json:
            print_certificate(out, certificate)
    if as_json:
        print_json([certificate_json(one) for one in found])
    if not all(certificate.holds for certificate in found):
        raise typer.Exit(FAILED)
