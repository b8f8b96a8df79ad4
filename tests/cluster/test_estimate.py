from __future__ import annotations

import pytest

from goalposts.benchmark.experiment.matrix import Selection, cells_of
from goalposts.benchmark.experiment.suite import get_suite
from goalposts.cluster import estimate as estimates


def test_the_estimate_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"corner": 1000.0, "fraud": 4000.0}
    monkeypatch.setattr(estimates, "measured_rate", lambda cell: rates[cell.key.task])
    monkeypatch.setattr(estimates.os, "sched_getaffinity", lambda _pid: set(range(4)), raising=False)
    suite = get_suite("quick")
    cells = cells_of(suite, Selection(seeds=1, mitigations=("none",)), device="cpu", salt_commitment="x")
    found = estimates.estimate(cells, 0.0)
    steps = {plan.task: plan.training.env_steps for plan in suite.tasks}
    assert found.rates == rates
    assert found.env_steps == sum(steps.values())
    assert found.side_by_side == 4
    assert found.wall_seconds == pytest.approx((steps["corner"] / 1000 + steps["fraud"] / 4000) / 2)


def test_a_rate_is_measured() -> None:
    (cell,) = cells_of(
        get_suite("smoke"),
        Selection(tasks=("fraud",), seeds=1, mitigations=("none",)),
        device="cpu",
        salt_commitment="x",
    )
    assert estimates.measured_rate(cell) > 100
