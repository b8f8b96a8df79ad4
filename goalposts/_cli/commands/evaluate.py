"""Evaluate a policy that was trained elsewhere, as our own are evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.options import JsonOption, SetOption, TaskArgument, parameters
from goalposts._cli.printing import out, print_json
from goalposts._cli.probe import refuse_silent_ends

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def evaluate(
    task: TaskArgument,
    policy: Annotated[
        str, typer.Option(metavar="MODULE:CALLABLE", help="A function from an array of observations to actions.")
    ],
    suite: Annotated[
        str | None, typer.Option(metavar="SUITE", help="With this suite's parameters, on its levels.")
    ] = None,
    level_file: Annotated[
        Path | None, typer.Option("--levels", metavar="FILE", help="On these levels instead of the splits.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    from goalposts._cli.evaluating import evaluate_policy, print_evaluation

    refuse_silent_ends(task, policy)
    evaluation = evaluate_policy(task, policy, suite, parameters(settings), level_file)
    if as_json:
        print_json(evaluation.json())
    else:
        print_evaluation(out, evaluation)
