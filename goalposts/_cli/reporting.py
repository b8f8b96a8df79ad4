"""Writes the leaderboard and the page for a folder of results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from goalposts.benchmark.catalogue import task_cards
from goalposts.results.leaderboard import Leaderboard, write_leaderboard
from goalposts.results.reading import Results
from goalposts.results.site import write_site, write_story_svg


def write_pages(folder: Path, results: Results) -> Leaderboard:
    """Write ``leaderboard.json`` and ``site/`` into a folder, and return the leaderboard.

    Raises:
        RequestError: there is no record to rank, or a file cannot be written.
    """
    board = results.leaderboard()
    write_leaderboard(folder, board)
    cases = {name: dataclasses.asdict(card.case) for name, card in task_cards().items()}
    page = write_site(folder, board, results.suite, cases, results.records)
    write_story_svg(page.with_name("capability_fidelity.svg"), board)
    return board
