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
    from goalposts.results import publication
    from goalposts.results.reading import read_results

    results = read_results(folder.absolute())
    for path in publication.publish(results.records, root.absolute() / results.suite.id, results.suite):
        out.print(f"Wrote {path}", soft_wrap=True)
