from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.tasks.registry import make_task
from goalposts.mitigations.goal_multi import GoalMulti
from tests.small import TENSOR_TASKS
from tests.toy import Toy, ToyLevels, context, trainer


def test_draws_every_achievable_goal_of_the_aligned_and_the_candidates() -> None:
    task = Toy()
    mitigation = GoalMulti()
    mitigation.setup(context(task, *GoalMulti.uses))
    even, odd = ToyLevels(torch.full((3000,), 2)), ToyLevels(torch.full((3000,), 3))
    assert not bool(task.achievable(odd)[:, 2].any())
    counts = mitigation.goals(even).bincount(minlength=3) / 3000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.0, 0.5]), atol=0.04, rtol=0)
    assert not bool(mitigation.goals(odd).any())


@pytest.mark.parametrize("task_id", TENSOR_TASKS)
def test_goals_of_registered_tasks_are_achievable(task_id: str) -> None:
    task = make_task(task_id)
    mitigation = GoalMulti()
    mitigation.setup(context(task, *GoalMulti.uses))
    levels = task.sample_levels(500, 1.0, torch.Generator().manual_seed(0))
    goals = mitigation.goals(levels)
    assert bool(task.achievable(levels).gather(1, goals.unsqueeze(1)).all())
    assert set(goals.tolist()) == {0, *task.candidates}


def test_evaluation_tells_the_aligned_goal() -> None:
    class Listens(GoalMulti):
        heard: Tensor

        def observe(self, observation: Tensor, told_goal: Tensor | None) -> Tensor:
            assert told_goal is not None
            self.heard = told_goal
            return super().observe(observation, told_goal)

    mitigation = Listens()
    subject = trainer(mitigation)
    subject.collector.collect()
    subject.agent("sampled").policy(torch.Generator())(torch.zeros(5, 2))
    assert mitigation.heard.tolist() == [0] * 5


def test_rollouts_tell_what_they_reward() -> None:
    subject = trainer(GoalMulti())
    batch = subject.collector.collect()
    assert set(batch.told_goals.unique().tolist()) == {0, 2}
    achieved = batch.events.gather(2, batch.told_goals.unsqueeze(2)).squeeze(2)
    assert torch.equal(batch.terminated, achieved)
