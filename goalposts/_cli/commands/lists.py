"""List the tasks, the installed mitigations or the suites."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from goalposts._cli.options import JsonOption
from goalposts._cli.printing import err, print_json, print_table

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Listing(StrEnum):
    """The lists to choose from."""

    TASKS = "tasks"
    MITIGATIONS = "mitigations"
    SUITES = "suites"


@app.command(help=__doc__)
def lists(
    what: Annotated[Listing, typer.Argument(help="tasks, mitigations or suites.")], as_json: JsonOption = False
) -> None:
    from goalposts._cli import listing

    def mitigations() -> list[dict[str, Any]]:
        return listing.mitigations(lambda problem: err.print(problem, style="yellow", soft_wrap=True))

    tables = {Listing.TASKS: listing.tasks, Listing.MITIGATIONS: mitigations, Listing.SUITES: listing.suites}
    rows = tables[what]()
    if as_json:
        print_json(rows)
        return
    values = [
        [", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in row.values()]
        for row in rows
    ]
    print_table([name.replace("_", " ") for name in (rows[0] if rows else ())], values)
