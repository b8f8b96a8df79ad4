"""Print how often a run's agents ended aligned, with the proxy or lost, on every split of every task."""

from __future__ import annotations

import typer

from goalposts._cli.options import FolderArgument, JsonOption, MarkdownOption
from goalposts._cli.printing import out, print_json, print_table

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def rates(folder: FolderArgument, as_markdown: MarkdownOption = False, as_json: JsonOption = False) -> None:
    from goalposts.results import rates as module
    from goalposts.results.reading import read_results

    rows = module.rates(read_results(folder.absolute()).records)
    if as_json:
        print_json([row.json() for row in rows])
    elif as_markdown:
        print(module.markdown(rows))  # noqa: T201 (not to be wrapped)
    elif not rows:
        out.print("No cell has finished yet.")
    else:
        for title, (header, *splits) in module.sections(rows):
            out.print(title, style="bold")
            print_table(header, splits)
            out.print()
        out.print("Percent of episodes: mean and range of the seeds; of one seed, the 95% interval of its episodes.")
        out.print("References: how often the reference policies for the goal and for the proxy end aligned.")
