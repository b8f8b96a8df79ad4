"""Rebuild the static page of a run from its records, and print its address."""

from __future__ import annotations

import typer

from goalposts._cli.options import FolderArgument
from goalposts._cli.printing import out

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def site(folder: FolderArgument) -> None:
    from goalposts._cli.reporting import write_pages
    from goalposts.results.reading import read_results

    write_pages(folder.absolute(), read_results(folder.absolute()))
    out.print((folder.absolute() / "site" / "index.html").as_uri(), soft_wrap=True)
