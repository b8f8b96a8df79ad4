"""What this repository publishes: every record is valid, and every leaderboard is the one that its records make."""

from __future__ import annotations

from pathlib import Path

import pytest

from goalposts.benchmark.experiment.suite import get_suite
from goalposts.results.leaderboard import read_leaderboard
from goalposts.results.publication import read_published
from goalposts.results.ranking import build_leaderboard

PUBLISHED = Path(__file__).parents[2] / "results" / "published"


@pytest.mark.parametrize("name", sorted(path.name for path in PUBLISHED.iterdir() if path.is_dir()))
def test_the_published_leaderboard_is_that_of_its_records(name: str) -> None:
    suite = get_suite(name)
    built = build_leaderboard(suite, read_published(PUBLISHED / name, suite))
    assert built == read_leaderboard(PUBLISHED / name / "leaderboard.json")
