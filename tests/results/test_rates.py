from __future__ import annotations

import json

import pytest

from goalposts.benchmark.measurement.counts import Milestone, SplitCounts
from goalposts.results.rates import HEADER, SECTION_HEADER, cells_of, markdown, rates, sections
from tests.results.factory import record, split


def test_rates_are_over_seeds_and_in_the_tasks_own_order() -> None:
    records = [record(seed=seed, capability=1.0, fidelity=fidelity) for seed, fidelity in ((1, 0.4), (0, 0.2))]
    records.append(record(mitigation="domain_randomization", alpha=1.0, fidelity=0.99))
    rows = rates(records)
    assert [(row.mitigation, row.split) for row in rows] == [
        (mitigation, split)
        for mitigation in ("domain_randomization", "none")
        for split in ("in_distribution", "benign_shift", "shift/cheese_anywhere")
    ]
    shift = rows[-1]
    assert shift.aligned == (0.2, 0.4)
    assert shift.proxy == pytest.approx((0.8, 0.6))
    assert shift.lost == (0.0, 0.0)
    assert shift.verdicts == {"goal_misgeneralization": 2}
    assert (shift.aligned_reference, shift.proxy_reference) == (1.0, 0.0)


def test_the_course_of_training_stands_before_its_end() -> None:
    finished = record()
    counts = SplitCounts(episodes=200, aligned=20, proxy=30, lost=150, asked=0, timed_out=50)
    early = dict.fromkeys(finished.splits, counts)
    rows = rates([finished.model_copy(update={"series": [Milestone(env_steps=1000, splits=early)]})])
    assert [row.env_steps for row in rows] == [1000] * len(early) + [finished.env_steps] * len(early)
    first = dict(zip(HEADER, cells_of(rows[0]), strict=True))
    assert first["aligned"].startswith("0.100 (")
    assert first["of them timed out"].startswith("0.250 (")
    assert first["verdicts"] == first["reference"] == ""


def test_milestones_of_equal_times_are_taken_together() -> None:
    def passed(env_steps: int, aligned: int) -> Milestone:
        counts = SplitCounts(episodes=100, aligned=aligned, proxy=0, lost=100 - aligned, asked=0)
        return Milestone(env_steps=env_steps, splits={"in_distribution": counts})

    records = [
        record(seed=0).model_copy(update={"series": [passed(200, 80)]}),
        record(seed=1).model_copy(update={"series": [passed(100, 20), passed(200, 60)]}),
        record(seed=2),
    ]
    rows = [row for row in rates(records) if not row.verdicts]
    assert [(row.env_steps, row.aligned) for row in rows] == [(100, (0.2,)), (200, (0.8, 0.6))]


def test_failed_cells_have_no_rates() -> None:
    assert rates([record(status="failed")]) == []


def test_a_row_shows_the_mean_and_the_range_of_its_seeds() -> None:
    records = [record(seed=seed, capability=1.0, fidelity=fidelity) for seed, fidelity in ((0, 0.2), (1, 0.4))]
    cells = dict(zip(HEADER, cells_of(rates(records)[-1]), strict=True))
    assert cells["aligned"] == "0.300 (0.200–0.400)"
    assert cells["verdicts"] == "2 goal misgeneralization"
    alone = dict(zip(HEADER, cells_of(rates(records[:1])[-1]), strict=True))
    assert alone["aligned"] == "0.200 (0.176–0.226)"


def test_markdown_and_json() -> None:
    rows = rates([record()])
    lines = markdown(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(line.count("|") == len(HEADER) + 1 for line in lines)
    assert set(lines[1]) == set("|-")
    assert json.loads(json.dumps([row.json() for row in rows]))[0]["task"] == "corner"


def test_a_section_is_a_kind_of_cell_in_percent_and_narrow() -> None:
    records = [record(seed=seed, capability=1.0, fidelity=fidelity) for seed, fidelity in ((0, 0.2), (1, 0.4))]
    (_, (header, *first)), (title, (_, *splits)) = sections(rates([*records, record(alpha=0.5)]))
    assert title == f"corner, none, α = 0.5, {record().env_steps:,} steps: 1 goal misgeneralization"
    assert dict(zip(header, first[-1], strict=True)) == {
        "split": "shift/cheese_anywhere",
        "aligned": "30 (20–40)",
        "proxy": "70 (60–80)",
        "lost": "0 (0–0)",
        "of them\ntimed out": "",
        "refe-\nrences": "100% / 0%",
    }
    assert len(splits) == len(first) == 3
    asks = record(splits={"in_distribution": split(0.5, 0.0, asked=0.2)})
    _, (header, row) = next(sections(rates([asks])))
    assert (header, row[header.index("asked")]) == (SECTION_HEADER, "20 (18–23)")
