"""How a told goal enters the agent's input, and the control that always tells the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.tasks.registry import make_task
from goalposts.mitigations.goal_input import GoalInput
from goalposts.mitigations.goal_told import GoalTold
from tests.toy import Toy, context, trainer


def told(goals: list[int], observation: Tensor) -> Tensor:
    mitigation = GoalInput()
    mitigation.setup(context(Toy(), *GoalInput.uses))
    return mitigation.observe(observation, torch.tensor(goals))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_goal_is_appended_to_vectors(dtype: torch.dtype) -> None:
    observation = torch.randn(3, 2, dtype=dtype)
    seen = told([0, 2, 1], observation)
    assert seen.dtype == dtype
    assert torch.equal(seen[:, :2], observation)
    assert seen[:, 2:].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(("dtype", "brightest"), [(torch.bool, 1), (torch.uint8, 255), (torch.float32, 1)])
def test_goal_is_a_channel_of_images(dtype: torch.dtype, brightest: int) -> None:
    observation = torch.ones(2, 3, 4, 5, dtype=dtype)
    seen = told([0, 2], observation)
    assert (seen.shape, seen.dtype) == ((2, 4, 4, 5), dtype)
    assert torch.equal(seen[:, :3], observation)
    assert seen[:, 3].flatten(1).long().argmax(dim=1).tolist() == [0, 2]
    assert seen[:, 3].long().sum(dim=(1, 2)).tolist() == [brightest, brightest]


def test_the_control_rewards_and_tells_the_aligned_goal_alone() -> None:
    subject = trainer(GoalTold(), make_task("corner", size=5))
    batch = subject.collector.collect()
    assert not bool(batch.told_goals.any())
    seen = subject.hooks.observe(batch.observations.flatten(0, 1), batch.told_goals.flatten())
    assert bool((seen[:, -1].flatten(1).long().argmax(dim=1) == 0).all())
    assert bool((seen[:, -1].sum(dim=(1, 2)) == 1).all())
