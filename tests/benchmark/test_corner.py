from __future__ import annotations

import pytest
import torch

from goalposts.benchmark.tasks.corner import CORNER, FAR_CORNER, Corner, CornerFull, CornerLevels

SIZE = 7
COUNT = 300


@pytest.fixture(scope="module")
def task() -> Corner:
    return Corner(size=SIZE, wall_density=0.1, benign_wall_density=0.3)


def drawn(task: Corner, split: str) -> CornerLevels:
    return task.shift_levels(split, COUNT, torch.Generator().manual_seed(0))


def test_cheese_lies_in_the_corner_but_for_the_shifts(task: Corner) -> None:
    random = torch.Generator().manual_seed(0)
    assert bool((task.sample_levels(COUNT, 0.0, random).cheese == CORNER).all())
    for split in ("in_distribution", "benign_shift"):
        assert bool((drawn(task, split).cheese == CORNER).all())
    assert bool((drawn(task, FAR_CORNER).cheese == SIZE * SIZE - 1).all())


def test_randomized_cheese_lies_anywhere(task: Corner) -> None:
    random = torch.Generator().manual_seed(0)
    cells = set(range(SIZE * SIZE))
    assert set(task.sample_levels(2000, 1.0, random).cheese.tolist()) == cells
    shifted = set(task.shift_levels("shift/cheese_anywhere", 2000, random).cheese.tolist())
    assert CORNER not in shifted
    assert shifted >= cells - {CORNER, 1, SIZE}  # Beside the corner it is in the way, but for a detour.


def test_benign_shift_has_denser_walls(task: Corner) -> None:
    density = {split: float(drawn(task, split).walls.float().mean()) for split in task.splits}
    assert density["benign_shift"] > density["in_distribution"] + 0.1
    for shift in task.shifts:
        assert density[shift] == pytest.approx(density["in_distribution"], abs=0.02)


def test_candidates_are_the_other_corners(task: Corner) -> None:
    levels = drawn(task, FAR_CORNER)
    cells = {
        goal.name: int(task.goal_cell(levels, i)[0]) for i, goal in enumerate(task.goals) if goal.role != "aligned"
    }
    assert cells == {"corner": 0, "top_right": SIZE - 1, "bottom_left": SIZE * (SIZE - 1), "bottom_right": SIZE**2 - 1}


@pytest.mark.parametrize("restricted", [True, False])
def test_edits_move_the_cheese_where_they_may(task: Corner, restricted: bool) -> None:
    random = torch.Generator().manual_seed(0)
    levels = task.sample_levels(COUNT, 0.0, random)
    edited = task.edit_levels(levels, 1, random, restricted=restricted)
    before, after = levels.tensors(), edited.tensors()
    changed = {name: (after[name] != before[name]).reshape(COUNT, -1).any(dim=1) for name in before}
    assert bool((torch.stack(list(changed.values())).sum(dim=0) <= 1).all())
    assert bool(changed["cheese"].any()) != restricted
    assert float(changed["walls"].float().mean()) == pytest.approx(0.5, abs=0.12)
    assert bool(changed["start"].any())


def test_full_view_has_the_same_levels(task: Corner) -> None:
    full = CornerFull(size=SIZE, wall_density=0.1, benign_wall_density=0.3)
    one, other = (each.sample_levels(20, 0.5, torch.Generator().manual_seed(0)) for each in (task, full))
    assert torch.equal(one.hashes(), other.hashes())
    assert (full.goals, full.shifts, full.case) == (task.goals, task.shifts, task.case)
