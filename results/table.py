"""The leaderboard as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from goalposts.benchmark.experiment.record import Record
from goalposts.results import wording
from goalposts.results.costs import Cost, costs
from goalposts.results.leaderboard import MIN_SEEDS, MISSING, Entry, Leaderboard

_UNRATED, _BORROWS = "*", "†"


def print_leaderboard(console: Console, leaderboard: Leaderboard, records: Iterable[Record]) -> None:
    """Print the ranking, one table for each disambiguation rate, and the meaning of its marks."""
    paid = costs(leaderboard, records)
    for alpha in leaderboard.alphas:
        rate = f", disambiguation rate {alpha:g}" if len(leaderboard.alphas) > 1 else ""
        table = Table(
            title=f"Leaderboard of {leaderboard.suite}{rate}",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("Rank", justify="right", no_wrap=True)
        table.add_column("Mitigation,\nknowledge and cost", overflow="fold")
        table.add_column("Score", justify="right", no_wrap=True)
        table.add_column("95%", no_wrap=True)
        table.add_column("Goal\nfidelity", justify="right", no_wrap=True)
        table.add_column("Capa-\nbility", justify="right", no_wrap=True)
        table.add_column("Regret", justify="right", no_wrap=True)
        table.add_column("Wrong\ngoal", justify="right", no_wrap=True)
        for entry in leaderboard.entries:
            if entry.alpha == alpha:
                table.add_row(*_cells(entry, paid[entry.mitigation, alpha]))
        console.print(table)
    for note in _notes(leaderboard):
        console.print(Text(note, style="dim"))


def _cells(entry: Entry, cost: Cost) -> list[Text]:
    # Text objects, because a name such as "[red]" would be read as markup.
    name = Text(f"{entry.mitigation}{_mark(entry)}")
    paid = ", ".join(filter(None, (wording.steps(entry.env_steps), wording.cost(cost))))
    name.append(f"\n{wording.knowledge(entry)}\n{paid}", style="dim")
    figures = [
        wording.score(entry.score.mean if entry.score else None),
        wording.bounds(entry.score, 0, entry.seeds) if entry.score else "",
        wording.fidelity(entry),
        wording.fraction(entry.capability.mean if entry.capability else None),
        wording.regret(entry.regret),
        wording.wrong(entry),
    ]
    return [Text(wording.rank(entry)), name, *map(Text, figures)]


def _mark(entry: Entry) -> str:
    if not entry.complete:
        return " (incomplete)"
    return _BORROWS * bool(entry.inapplicable) + _UNRATED * (not entry.rated)


def _notes(leaderboard: Leaderboard) -> list[str]:
    notes = [
        "Rank: 95% interval when seeds are resampled; overlap means no clear order.",
        "Score: 0 = a perfect proxy-seeker, 100 = a perfect goal-seeker.",
        "Wrong goal: misgeneralizing seeds, of those that learned a task. Regret: in distribution.",
        "Cost: training steps of all cells; seconds and peak memory of one cell.",
    ]
    if leaderboard.indicative:
        notes.append(f"Intervals are indicative: fewer than {MIN_SEEDS} seeds.")
    if any(_UNRATED in _mark(entry) for entry in leaderboard.entries):
        notes.append(
            "* unrated: too few seeds learned a training task. Those that did not count as score 0 at most, and "
            "the entry ranks below all rated ones."
        )
    borrowed = {entry.mitigation: entry.inapplicable for entry in leaderboard.entries if entry.inapplicable}
    notes += [
        f"† {name} does not apply to {', '.join(tasks)} and counts there with the scores of {leaderboard.baseline}."
        for name, tasks in borrowed.items()
    ]
    notes += [
        f"{'Missing' if cell.error == MISSING else 'Failed'}: {entry.mitigation} at rate {entry.alpha:g} on "
        f"{cell.task}, seed {cell.seed}: {cell.error}"
        for entry in leaderboard.entries
        for cell in entry.failed
    ]
    return notes
