from __future__ import annotations

from typing import Any

import pytest
import torch

from goalposts.benchmark.tasks.fraud import Fraud
from goalposts.benchmark.tasks.kinds.decisions import LEAST_QUEUE, DecisionLevels, DecisionTask
from goalposts.benchmark.tasks.triage import Triage

each_task = pytest.mark.parametrize("task", [Fraud(), Triage()], ids=["fraud", "triage"])
GAMMA = 0.9


def randomized(task: DecisionTask[Any], count: int = 50) -> Any:
    return task.sample_levels(count, 1.0, torch.Generator().manual_seed(0))


def test_differences_count_cases() -> None:
    cases = torch.zeros(3, 6, 4)
    other = cases.clone()
    other[1, 2, 0] = 1.0
    other[2, :, 1:3] = 1.0
    assert DecisionLevels(cases).differences(DecisionLevels(other)).tolist() == [0, 1, 6]


@each_task
def test_all_cases_but_one_can_be_edited(task: DecisionTask[Any]) -> None:
    """As many as a curriculum does at once."""
    levels = randomized(task)
    edited = task.edit_levels(levels, LEAST_QUEUE - 1, torch.Generator().manual_seed(0))
    assert float((edited.differences(levels) == LEAST_QUEUE - 1).float().mean()) > 0.9


@each_task
def test_shows_one_case_after_the_other_and_remembers_the_decisions(task: DecisionTask[Any]) -> None:
    levels = randomized(task)
    env = task.make_env(50)
    seen = [env.reset(levels)]
    assert bool((env.state["decided"] == -1).all())
    decisions = torch.randint(task.num_actions, (50, task.queue), generator=torch.Generator().manual_seed(1))
    for t in range(task.queue):
        seen.append(env.step(decisions[:, t]).observation)
        assert torch.equal(env.state["decided"][:, : t + 1], decisions[:, : t + 1])
        assert bool((env.state["decided"][:, t + 1 :] == -1).all())
    assert torch.equal(torch.stack(seen[:-1], dim=1), levels.cases)
    assert torch.equal(seen[-1], seen[-2])


@each_task
def test_optimal_return_is_that_of_trying_every_decision(task: DecisionTask[Any]) -> None:
    levels = randomized(task)
    for goal in range(len(task.goals)):
        expected = torch.zeros(50, dtype=torch.float64)
        env = task.make_env(50)
        env.reset(levels)
        for t in range(task.queue):
            before = {name: tensor.clone() for name, tensor in env.state_dict().items()}
            rewards = []
            for action in range(task.num_actions):
                env.load_state_dict(before)
                step = env.step(torch.full((50,), action))
                rewards.append(step.events[:, goal].double() - step.cost)
            expected += GAMMA**t * torch.stack(rewards).amax(dim=0)
        torch.testing.assert_close(task.optimal_return(levels, goal, GAMMA), expected)


@each_task
def test_decisive_case_is_the_first_on_which_the_goals_disagree(task: DecisionTask[Any]) -> None:
    ambiguous = task.sample_levels(50, 0.0, torch.Generator().manual_seed(0))
    assert task.decisive(ambiguous).tolist() == [task.queue] * 50
    levels = randomized(task)
    wanted = task.wanted(levels.cases)
    for i, found in enumerate(task.decisive(levels).tolist()):
        disagree = (wanted[i, :, 0] != wanted[i, :, 1]).nonzero().flatten().tolist()
        assert found == (disagree[0] if disagree else task.queue)


@each_task
def test_distinguishing_needs_unambiguous_cases_first(task: DecisionTask[Any]) -> None:
    levels = randomized(task, 400)
    decisive = task.decisive(levels)
    assert torch.equal(task.distinguishing(levels), (decisive >= task.unambiguous[0]) & (decisive < task.queue))


@each_task
def test_the_decisive_case_of_a_shift_comes_at_every_place_it_may(task: DecisionTask[Any]) -> None:
    places = task.draw_decisive(500, torch.Generator().manual_seed(0)).int().argmax(dim=1)
    low, high = task.unambiguous
    assert set(places.tolist()) == set(range(low, high + 1))
