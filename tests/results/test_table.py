from __future__ import annotations

import io

import pytest
from rich.console import Console

from goalposts.results.ranking import build_leaderboard
from goalposts.results.table import print_leaderboard
from tests.results.factory import SUITE, record, story, suite_of


@pytest.mark.parametrize("terminal", [True, False])
def test_table_fits_80_columns_and_keeps_names_whole(terminal: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=terminal, color_system=None)
    print_leaderboard(console, build_leaderboard(SUITE, story()), story())
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (first,) = [line.split() for line in lines if "domain_randomization" in line]
    assert first == ["1", "domain_randomization", "95.5", "95", "to", "96", "0.99", "0.96", "0.020", "0/3"]
    assert any("nothing (blind)" in line for line in lines)
    assert any("2.7 M, 13 s, 0.3 GB" in line for line in lines)
    assert any("indicative" in line for line in lines)


def test_table_says_what_failed_and_takes_no_markup_from_names() -> None:
    output = io.StringIO()
    records = [record(), record(mitigation="[red]x", status="failed"), record(mitigation="random", trained=0.1)]
    print_leaderboard(Console(file=output, width=100), build_leaderboard(suite_of(records), records), records)
    text = output.getvalue()
    assert "[red]x" in text
    assert "(incomplete)" in text
    assert "Failed: [red]x at rate 0 on corner, seed 0: NonFiniteError" in text
    assert "random*" in text
