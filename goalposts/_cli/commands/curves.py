"""Print goal fidelity and capability by disambiguation rate, and the rate from which the goal is learned."""

from __future__ import annotations

import typer

from goalposts._cli.options import FolderArgument, JsonOption, MarkdownOption
from goalposts._cli.printing import out, print_json, print_table

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def curves(folder: FolderArgument, as_markdown: MarkdownOption = False, as_json: JsonOption = False) -> None:
    from goalposts.results import curves as module
    from goalposts.results.rates import markdown_table
    from goalposts.results.reading import read_results

    board = read_results(folder.absolute()).leaderboard()
    found = module.curves(board)
    if as_json:
        print_json([curve.json() for curve in found])
    elif as_markdown:
        print(markdown_table(module.header(board), (module.cells_of(curve, bounds=True) for curve in found)))  # noqa: T201 (not to be wrapped)
    else:
        rates = module.header(board)[len(module.HEADER) :]
        stacked = ([text.replace(" / ", "\n") for text in module.cells_of(curve)] for curve in found)
        print_table(("mitigation", "least\nα", "area\n(fid.)", "area\n(cap.)", *rates), stacked)
        out.print(
            "Each rate shows fidelity, and capability below it. * Too few seeds learned the training task. Least α: "
            "the lowest rate from which on fidelity is at least .9 and enough seeds learned the task. Areas take the "
            "rates as evenly spaced."
        )
