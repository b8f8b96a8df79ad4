"""How often the goal moves, and that nothing else does."""

from __future__ import annotations

import pytest
import torch

from goalposts.benchmark.tasks.corner import CORNER, CornerLevels
from goalposts.benchmark.tasks.registry import make_task
from goalposts.mitigations.goal_position_randomization import GoalPositionRandomization
from tests.small import TASKS
from tests.toy import context


def drawn(rate: float, count: int = 4000) -> tuple[CornerLevels, CornerLevels]:
    """Return what the mitigation draws, and what the training distribution has at the same places of its stream."""
    task = make_task("corner", size=7, wall_density=0.1)
    mitigation = GoalPositionRandomization(rate)
    mitigation.setup(context(task, *GoalPositionRandomization.uses))
    levels = mitigation.sample_levels(count)
    usual = context(task).sample_levels(count)
    assert isinstance(levels, CornerLevels)
    assert isinstance(usual, CornerLevels)
    assert bool(task.valid(levels).all())
    assert not bool(levels.reserved().any())
    return levels, usual


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_the_goal_moves_alone_at_its_rate(rate: float) -> None:
    levels, usual = drawn(rate)
    assert torch.equal(levels.walls, usual.walls)
    assert torch.equal(levels.start, usual.start)
    assert bool((usual.cheese == CORNER).all())
    # One in some 44 open cells is the corner again.
    assert float((levels.cheese != CORNER).float().mean()) == pytest.approx(rate * (1 - 1 / 44), abs=0.012)
    cells = levels.cheese[levels.cheese != CORNER].unique()
    assert len(cells) == (48 if rate else 0)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_is_a_probability(rate: float) -> None:
    with pytest.raises(ValueError, match="rate is"):
        GoalPositionRandomization(rate)


def test_it_applies_where_training_fixes_the_place_of_the_goal() -> None:
    applies = {name for name, task in TASKS.items() if task.has_goal_position}
    assert applies == {"coinrun", "convoy", "corner", "corner_full", "dish", "dish_full", "maze_corner"}
    assert GoalPositionRandomization.inapplicable(make_task("corner")) is None
    assert GoalPositionRandomization.inapplicable(make_task("fraud")) == "no fixed goal position"
