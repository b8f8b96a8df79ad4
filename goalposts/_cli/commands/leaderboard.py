"""Rank the mitigations of a run by its records, and print the leaderboard."""

from __future__ import annotations

import typer

from goalposts._cli.options import FolderArgument, JsonOption
from goalposts._cli.printing import out, print_json

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def leaderboard(folder: FolderArgument, as_json: JsonOption = False) -> None:
    from goalposts.results.reading import read_results
    from goalposts.results.table import print_leaderboard

    results = read_results(folder.absolute())
    board = results.leaderboard()
    if as_json:
        print_json(board.model_dump(mode="json"))
    else:
        print_leaderboard(out, board, results.records)
