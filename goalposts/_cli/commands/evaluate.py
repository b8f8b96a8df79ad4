"""Evaluate an agent, or a policy trained elsewhere, like the agents of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.exit_codes import FAILED
from goalposts._cli.options import JsonOption, SetOption, TaskArgument, parameters
from goalposts._cli.printing import err, out, print_json
from goalposts._cli.probe import refuse_silent_ends
from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.loading import is_file

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def evaluate(
    task: TaskArgument,
    policy: Annotated[
        str | None, typer.Option(metavar="MODULE:CALLABLE", help="A function from an array of observations to actions.")
    ] = None,
    agent_path: Annotated[
        str | None,
        typer.Option("--agent", metavar="FILE", help="A file of 'goalposts agent export', or a folder RUN/cells/CELL."),
    ] = None,
    suite: Annotated[str | None, typer.Option(metavar="SUITE", help="Use this suite's parameters and levels.")] = None,
    level_file: Annotated[
        Path | None, typer.Option("--levels", metavar="FILE", help="Use these levels instead of the splits.")
    ] = None,
    mitigation: Annotated[
        str | None, typer.Option(metavar="path.py:Class", help="The agent's mitigation, if it is not registered.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    if (policy is None) == (agent_path is None):
        raise RequestError("Give either --policy module:callable or --agent FILE.")
    from goalposts._cli.evaluating import print_evaluation
    from goalposts.benchmark.experiment import evaluation
    from goalposts.benchmark.experiment.agents import load_agent
    from goalposts.benchmark.loading import load_from_module

    refuse_silent_ends(*filter(None, (task, policy, mitigation)))
    if agent_path is not None:
        agent = load_agent(agent_path, task=task if is_file(task) else None, mitigation=mitigation)
        if agent.changed:
            err.print(f"The files of {agent.record.cell.mitigation!r} have changed since this agent was trained.")
        found = evaluation.evaluate(
            agent, task, suite=suite, parameters=parameters(settings), levels=level_file, name=agent.name
        )
    else:
        assert policy is not None
        function = load_from_module(policy, "Policy")
        if not callable(function):
            raise RequestError(f"Policy {policy!r} is a {type(function).__name__}; give a function.")
        found = evaluation.evaluate(
            function, task, suite=suite, parameters=parameters(settings), levels=level_file, name=policy
        )
    if as_json:
        print_json(found.json())
    else:
        print_evaluation(out, found)
    if found.equals_record is False:
        raise typer.Exit(FAILED)
