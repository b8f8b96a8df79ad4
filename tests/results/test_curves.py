from __future__ import annotations

import pytest

from goalposts.benchmark.experiment.record import Timing
from goalposts.benchmark.experiment.suite import get_suite
from goalposts.results.costs import Cost, costs
from goalposts.results.curves import area, cells_of, curves, header
from goalposts.results.ranking import build_leaderboard
from tests.results.factory import record, suite_of

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
    board = build_leaderboard(suite_of(records), records)
    found = {curve.mitigation: curve for curve in curves(board)}
    assert {name: curve.least_alpha for name, curve in found.items()} == {"none": 0.1, "accel": 1.0, "goal_multi": None}
    assert found["none"].alphas == ALPHAS
    assert found["none"].fidelity_area == pytest.approx((0.1 / 2 + 0.95 + 1.0 / 2) / 2)
    assert found["none"].capability_area == pytest.approx(1.0)
    assert dict(zip(header(board), cells_of(found["goal_multi"]), strict=True))["α = 0.1"] == "0.95 / 1.00*"
    bounded = dict(zip(header(board), cells_of(found["goal_multi"], bounds=True), strict=True))
    assert bounded["α = 0.1"] == "0.95 (one seed) / 1.00*"
    assert found["none"].json()["goal_fidelity"][1] == {"mean": 0.95, "low": 0.95, "high": 0.95}
    incomplete = build_leaderboard(get_suite("quick"), records)
    assert {curve.least_alpha for curve in curves(incomplete)} == {None}


def test_costs_are_of_finished_cells() -> None:
    records = [record(seed=seed) for seed in (0, 1, 2)] + [record(mitigation="accel", status="failed")]
    board = build_leaderboard(get_suite("quick"), records)
    found = costs(board, records)
    assert found["none", 0.0] == Cost(13.0, 300_000_000)
    assert found["accel", 0.0] == Cost(None, None)


def test_costs_are_of_the_same_tasks_as_the_score() -> None:
    def timed(seconds: float | None, memory: int) -> Timing:
        return Timing(wall_seconds=seconds, steps_per_second=None, peak_memory_bytes=memory)

    records = [record("corner", timing=timed(10.0, 1)), record("fraud", timing=timed(2.0, 7))]
    records += [
        record("corner", "accel", seed=seed, timing=timed(20.0, memory), inapplicable=["fraud"])
        for seed, memory in ((0, 5), (1, 3))
    ]
    found = costs(build_leaderboard(get_suite("quick"), records), records)
    assert found["accel", 0.0] == Cost((20.0 + 2.0) / 2, 7)
    unknown = [*records, record("corner", "none", seed=1, timing=timed(None, 1))]
    assert costs(build_leaderboard(get_suite("quick"), unknown), unknown)["none", 0.0].seconds == 6.0


def test_a_task_to_which_a_mitigation_does_not_apply_counts_with_the_baseline() -> None:
    records = [record(task, "none", capability=1.0, fidelity=0.2) for task in ("corner", "fraud")]
    records.append(record("corner", "accel", capability=1.0, fidelity=0.8, inapplicable=["fraud"]))
    board = build_leaderboard(suite_of(records), records)
    entry = next(entry for entry in board.entries if entry.mitigation == "accel")
    assert (entry.complete, entry.inapplicable, entry.env_steps) == (True, ["fraud"], 450_000)
    assert entry.score is not None
    assert entry.score.mean == pytest.approx((80 + 20) / 2)
    silent = [*records[:-1], records[-1].model_copy(update={"inapplicable": []})]
    without = build_leaderboard(suite_of(silent), silent)
    assert not next(entry for entry in without.entries if entry.mitigation == "accel").complete


def test_a_mitigation_trained_at_one_rate_stands_at_that_one_alone() -> None:
    records = [record(alpha=alpha, capability=1.0, fidelity=0.1) for alpha in ALPHAS]
    records.append(record(mitigation="mine", alpha=1.0, capability=1.0, fidelity=0.95))
    board = build_leaderboard(suite_of(records), records)
    assert [entry.alpha for entry in board.entries if entry.mitigation == "mine"] == [1.0]
    found = {curve.mitigation: curve for curve in curves(board)}
    assert (found["mine"].fidelity_area, found["mine"].seeds, found["mine"].least_alpha) == (None, (0, 0, 1), 1.0)
    assert cells_of(found["mine"])[-3:] == ("", "", "0.95 / 1.00")
