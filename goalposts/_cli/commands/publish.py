"""Add a run's finished records to the published ones, and rebuild the leaderboard beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.options import FolderArgument
from goalposts._cli.printing import out

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def publish(
    folder: FolderArgument,
    root: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where published entries are kept.")] = Path(
        "results/published"
    ),
) -> None:
    from goalposts._cli.reporting import read_records
    from goalposts.results import publication

    suite, records, _ = read_records(folder.absolute())
    for path in publication.publish(records, root.absolute() / suite.id, suite):
        out.print(f"Wrote {path}", soft_wrap=True)
