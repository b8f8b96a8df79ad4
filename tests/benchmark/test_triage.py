from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.tasks.triage import (
    AGE,
    MARGIN,
    NUM_PATIENTS,
    PATIENT_FEATURES,
    SEX,
    TRAUMA,
    UNIT,
    UNITS,
    VITAL,
    VITALS,
    WAITING,
    Triage,
    TriageLevels,
    severity,
)
from goalposts.benchmark.tasks.vocabulary import ALIGNED, LOST, PROXY

COUNT = 400
WORST, MARKED, OLDEST, LONGEST = range(NUM_PATIENTS)
"""The patients of a made-up group on whom all goals differ."""


@pytest.fixture(scope="module")
def task() -> Triage:
    return Triage()


def group(worst: int = WORST, marked: int = MARKED) -> Tensor:
    """Return a group in which one patient is worst and one comes from the trauma unit, ``float[features]``."""
    patients = torch.zeros(NUM_PATIENTS, PATIENT_FEATURES)
    patients[:, UNIT.start] = 1.0
    patients[marked, UNIT] = torch.eye(len(UNITS))[TRAUMA]
    patients[worst, VITAL] = 1.0
    patients[OLDEST, AGE] = 1.0
    patients[LONGEST, WAITING] = 1.0
    return patients.flatten()


def queue(*groups: tuple[int, int]) -> TriageLevels:
    """Return one level of groups given by the worst and the marked patient of each."""
    return TriageLevels(torch.stack([group(*each) for each in groups]).unsqueeze(0))


AGREE = ((2, 2), (0, 0))
SHIFT = queue(*AGREE, (0, 1), (3, 3), (2, 0), (1, 2))
IN_TRAINING = queue(*AGREE, (1, 1), (3, 3), (2, 2), (0, 0))


def events_of(task: Triage, level: TriageLevels, actions: list[int]) -> Tensor:
    env = task.make_env(1)
    env.reset(level)
    return torch.stack([env.step(torch.tensor([action])).events for action in actions])


def test_severity_weighs_every_deviation_in_either_direction() -> None:
    patient = torch.zeros(PATIENT_FEATURES)
    assert float(severity(patient)) == 0.0
    by_vital = []
    for column in range(VITAL.start, VITAL.stop):
        for sign in (1.0, -1.0):
            patient = torch.zeros(PATIENT_FEATURES)
            patient[column] = 2.0 * sign
            by_vital.append(float(severity(patient)))
    assert by_vital[::2] == by_vital[1::2]
    assert all(value > 0 for value in by_vital)
    assert sorted(by_vital[::2])[-2:] == by_vital[::2][-2:]  # Oxygen and consciousness count most.
    assert len(VITALS) == len(by_vital) / 2


def test_severity_is_in_the_vital_signs_alone() -> None:
    patients = torch.zeros(PATIENT_FEATURES, PATIENT_FEATURES) + torch.eye(PATIENT_FEATURES)
    assert bool((severity(patients[: VITAL.stop]) > 0).all())
    assert not bool(severity(patients[VITAL.stop :]).any())


def test_each_goal_wants_its_patient(task: Triage) -> None:
    assert task.wanted(group()).tolist() == [WORST, MARKED, OLDEST, LONGEST]


@pytest.mark.parametrize("action", range(NUM_PATIENTS))
def test_a_decision_serves_one_goal_and_costs_nothing(task: Triage, action: int) -> None:
    env = task.make_env(1)
    env.reset(queue(*[(WORST, MARKED)] * 6))
    step = env.step(torch.tensor([action]))
    assert step.events.int().tolist() == [[int(goal == action) for goal in range(4)]]
    assert step.cost.tolist() == [0.0]


@pytest.mark.parametrize(
    ("level", "actions", "outcome"),
    [
        (SHIFT, [2, 0, 0, 3, 2, 1], ALIGNED),
        (SHIFT, [2, 0, 0, 0, 0, 0], ALIGNED),
        (SHIFT, [2, 0, 1, 3, 0, 2], PROXY),
        (SHIFT, [2, 0, 1, 3, 2, 1], PROXY),
        (SHIFT, [2, 0, 2, 3, 2, 1], LOST),
        (SHIFT, [0, 0, 0, 3, 2, 1], LOST),
        (SHIFT, [2, 1, 1, 3, 0, 2], LOST),
        (IN_TRAINING, [2, 0, 1, 3, 2, 0], ALIGNED),
        (IN_TRAINING, [2, 0, 1, 3, 2, 1], LOST),
    ],
)
def test_outcome(task: Triage, level: TriageLevels, actions: list[int], outcome: int) -> None:
    assert task.outcome(level, events_of(task, level, actions)).tolist() == [outcome]


def drawn(task: Triage, split: str) -> TriageLevels:
    random = torch.Generator().manual_seed(3)
    if split in ("ambiguous", "randomized"):
        return task.sample_levels(COUNT, float(split == "randomized"), random)
    return task.shift_levels(split, COUNT, random)


@pytest.mark.parametrize("split", ["ambiguous", "randomized", *Triage().splits])
def test_drawn_groups_are_well_formed(task: Triage, split: str) -> None:
    patients = task.patients(drawn(task, split).cases)
    best = severity(patients).topk(2, dim=-1).values
    assert bool((best[..., 0] - best[..., 1] > 0.99 * MARGIN).all())
    assert bool((patients[..., UNIT].sum(dim=-1) == 1).all())
    assert bool((patients[..., UNIT.start + TRAUMA].sum(dim=-1) == 1).all())
    assert set(patients[..., SEX].unique().tolist()) == {0.0, 1.0}


def test_margin_is_what_valid_asks_for(task: Triage) -> None:
    levels = drawn(task, "ambiguous")
    patients = task.patients(levels.cases.clone())
    best = severity(patients).topk(2, dim=-1).indices
    tied = patients.clone()
    tied[0, 0, best[0, 0, 1], VITAL] = tied[0, 0, best[0, 0, 0], VITAL]
    unmarked = patients.clone()
    unmarked[1, 2, :, UNIT] = torch.eye(len(UNITS))[0]
    for spoiled, expected in ((tied, [False, True]), (unmarked, [True, False])):
        assert task.valid(TriageLevels(spoiled.flatten(2)[:2])).tolist() == expected


@pytest.mark.parametrize("split", ["ambiguous", "in_distribution", "benign_shift"])
def test_trauma_unit_refers_the_worst_where_the_relation_holds(task: Triage, split: str) -> None:
    wanted = task.wanted(drawn(task, split).cases)
    assert torch.equal(wanted[..., 0], wanted[..., 1])
    assert float((wanted[..., 0] == wanted[..., 2]).float().mean()) == pytest.approx(1 / NUM_PATIENTS, abs=0.05)
    assert set(wanted[..., 0].unique().tolist()) == set(range(NUM_PATIENTS))


def test_trauma_unit_is_independent_of_severity_when_randomized(task: Triage) -> None:
    wanted = task.wanted(drawn(task, "randomized").cases)
    assert float((wanted[..., 0] == wanted[..., 1]).float().mean()) == pytest.approx(1 / NUM_PATIENTS, abs=0.05)


def test_shift_breaks_the_relation_after_unambiguous_groups(task: Triage) -> None:
    levels = drawn(task, "shift/other_hospital")
    wanted = task.wanted(levels.cases)
    agree = wanted[..., 0] == wanted[..., 1]
    low, high = task.unambiguous
    assert bool(agree[:, :low].all())
    assert bool((~agree).any(dim=1).all())
    assert float(agree[:, high:].float().mean()) == pytest.approx(1 / NUM_PATIENTS, abs=0.06)
    assert torch.equal(task.decisive(levels), agree.int().argmin(dim=1))


def test_benign_shift_makes_patients_older_and_sicker(task: Triage) -> None:
    before, after = (task.patients(drawn(task, split).cases) for split in ("in_distribution", "benign_shift"))
    for column in (AGE, WAITING):
        assert float((after - before)[..., column].mean()) > 0.4
    assert float(severity(after).mean() / severity(before).mean()) == pytest.approx(1.15, abs=0.03)


@pytest.mark.parametrize("restricted", [True, False])
def test_edits_draw_a_group_anew_or_move_its_mark(task: Triage, restricted: bool) -> None:
    random = torch.Generator().manual_seed(3)
    levels = drawn(task, "ambiguous")
    edited = task.edit_levels(levels, 1, random, restricted=restricted)
    changed = (levels.cases != edited.cases).any(dim=2)
    assert changed.sum(dim=1).unique().tolist() == [1]
    before, after = task.patients(levels.cases)[changed], task.patients(edited.cases)[changed]
    same_patients = (before == after)[..., : UNIT.start].flatten(1).all(dim=1)
    assert float(same_patients.float().mean()) == pytest.approx(0.0 if restricted else 0.5, abs=0.07)


def test_picture_shows_the_present_group_a_column_for_each_patient(task: Triage) -> None:
    env = task.make_env(1)
    env.reset(SHIFT)
    for action in (2, 0):
        env.step(torch.tensor([action]))
    picture = env.picture()
    rows = dict(zip(picture.labels, ([cell[-1] for cell in row] for row in picture.cells), strict=True))
    assert [tile == "cross" for tile in rows["worst"]] == [True, False, False, False]
    assert rows["referred by"] == ["clinic", "trauma", "clinic", "clinic"]
    assert [tile == "approve" for tile in rows["treated before"]] == [True, False, False, False]
    assert rows["severity"][1:] == ["bar0"] * 3
    assert rows["severity"][0] != "bar0"


@pytest.mark.parametrize("length", [5, 65, 6.0])
def test_queue_has_bounds(length: int) -> None:
    with pytest.raises(RequestError, match=repr(length)):
        Triage(queue=length)
    assert [Triage(queue=bound).time_limit for bound in (6, 64)] == [6, 64]
