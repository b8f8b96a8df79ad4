from __future__ import annotations

import pytest

from benchmark.suites import get_suite
from results.costs import costs
from results.curves import area, cells_of, curves, header
from results.leaderboard import build_leaderboard
from tests.results.factory import record

ALPHAS = (0.0, 0.1, 1.0)


def test_area_takes_the_rates_as_evenly_spaced() -> None:
    assert area([0.0, 0.5, 1.0]) == pytest.approx(0.5)
    assert area([0.0, 1.0, 1.0]) == pytest.approx(0.75)
    assert area([0.25]) == 0.25
    assert area([0.5, None]) is None


def test_the_least_rate_is_that_from_which_on_every_rated_entry_is_faithful() -> None:
    records = [
        record(mitigation=name, alpha=alpha, capability=1.0, fidelity=fidelity, trained=0.5 if unrated else 0.97)
        for name, fidelities, unrated in (
            ("none", (0.1, 0.95, 1.0), False),
            ("accel", (0.95, 0.5, 1.0), False),
            ("goal_multi", (0.95, 0.95, 0.95), True),
        )
        for alpha, fidelity in zip(ALPHAS, fidelities, strict=True)
    ]
    board = build_leaderboard(get_suite("quick"), records)
    found = {curve.mitigation: curve for curve in curves(board)}
    assert {name: curve.least_alpha for name, curve in found.items()} == {"none": 0.1, "accel": 1.0, "goal_multi": None}
    assert found["none"].alphas == ALPHAS
    assert found["none"].fidelity_area == pytest.approx((0.1 / 2 + 0.95 + 1.0 / 2) / 2)
    assert found["none"].capability_area == pytest.approx(1.0)
    assert dict(zip(header(board), cells_of(found["goal_multi"]), strict=True))["α = 0.1"] == "0.95 / 1.00*"
    bounded = dict(zip(header(board), cells_of(found["goal_multi"], bounds=True), strict=True))
    assert bounded["α = 0.1"] == "0.95 (one seed) / 1.00*"
    assert found["none"].json()["goal_fidelity"][1] == {"mean": 0.95, "low": 0.95, "high": 0.95}


def test_costs_are_of_finished_cells() -> None:
    records = [record(seed=seed) for seed in (0, 1, 2)] + [record(mitigation="accel", status="failed")]
    (cost,) = costs(records)
    assert (cost.mitigation, cost.cells, cost.env_steps) == ("none", 3, 3 * 450_000)
    assert cost.seconds == pytest.approx(13.0)
    assert cost.regret == pytest.approx(0.02)


def test_a_task_to_which_a_mitigation_does_not_apply_counts_with_the_baseline() -> None:
    records = [record(task, "none", capability=1.0, fidelity=0.2) for task in ("corner", "fraud")]
    records.append(record("corner", "accel", capability=1.0, fidelity=0.8))
    board = build_leaderboard(get_suite("quick"), records, None, {("accel", "fraud")})
    entry = next(entry for entry in board.entries if entry.mitigation == "accel")
    assert (entry.complete, entry.inapplicable, entry.env_steps) == (True, ["fraud"], 450_000)
    assert entry.score is not None
    assert entry.score.mean == pytest.approx((80 + 20) / 2)
    without = build_leaderboard(get_suite("quick"), records)
    assert not next(entry for entry in without.entries if entry.mitigation == "accel").complete
