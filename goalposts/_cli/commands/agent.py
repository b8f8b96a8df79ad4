"""Agents as files to keep, release and evaluate again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.printing import command, out

app = typer.Typer(help=__doc__, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _agent() -> None:
    """Keep 'export' as a subcommand, though it is the only one."""


@app.command()
def export(
    cell: Annotated[Path, typer.Argument(metavar="CELL", help="The folder of a finished cell, RUN/cells/CELL.")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, such as agent.safetensors.")],
) -> None:
    """Write a trained agent as one safetensors file, with all data to rebuild and identify it."""
    from goalposts.benchmark.experiment.agents import export_agent

    record = export_agent(cell, path)
    out.print(f"Wrote {path}: {path.stat().st_size / 1000:.0f} kB. Evaluate it with:", soft_wrap=True)
    task = record.cell.task if record.config.task.sha256 is None else "path.py:Class"
    out.print(f"  {command('goalposts')} evaluate {task} --agent {path}", soft_wrap=True)
