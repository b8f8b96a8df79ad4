from __future__ import annotations

import pytest
import torch

from goalposts.benchmark.errors import UndeclaredKnowledgeError
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.tasks.corner import CornerLevels
from goalposts.benchmark.tasks.registry import make_task
from goalposts.mitigations.regret import Returns, episode_returns, max_latest, oracle, positive_value_loss
from tests.toy import Toy, context, rollout

ANY = Returns(torch.zeros(3), torch.zeros(3))


def test_returns_are_discounted_from_the_second_step_on() -> None:
    rewards = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    done = torch.tensor([[True, False], [False, False], [True, True]])
    mean, best = episode_returns(rewards, done, 0.9)
    assert mean.tolist() == pytest.approx([(1.0 + 0.0) / 2, 0.81])
    assert best.tolist() == pytest.approx([1.0, 0.81])


def test_an_episode_begins_anew_with_its_own_discount() -> None:
    rewards = torch.tensor([[0.0], [1.0], [-1.0], [0.0], [2.0]])
    done = torch.tensor([[False], [True], [False], [False], [True]])
    mean, best = episode_returns(rewards, done, 0.5)
    assert mean.item() == pytest.approx((0.5 + (-1.0 + 2.0 * 0.25)) / 2)
    assert best.item() == pytest.approx(0.5)


def test_an_episode_cut_off_counts_only_where_none_was_completed() -> None:
    rewards = torch.tensor([[1.0, 0.5], [8.0, 1.0], [8.0, 0.0]])
    done = torch.tensor([[True, False], [False, False], [False, False]])
    mean, best = episode_returns(rewards, done, 0.5)
    assert mean.tolist() == [1.0, 0.5 + 0.5]
    assert best.tolist() == [1.0, 0.5 + 0.5]


def test_positive_value_loss() -> None:
    advantages = torch.tensor([[1.0, -1.0, 0.0], [3.0, -2.0, 0.5], [-4.0, -3.0, -0.5], [0.0, -1.0, 2.0]])
    scores = positive_value_loss(context(Toy()), rollout(4, 3, advantages=advantages), ANY)
    assert scores.tolist() == pytest.approx([1.0, 0.0, 0.625])


def test_max_latest() -> None:
    returns = Returns(mean=torch.tensor([0.25, 0.5]), best=torch.tensor([1.0, 0.5]))
    assert max_latest(context(Toy()), rollout(num_envs=2), returns).tolist() == [0.75, 0.0]


def test_oracle_needs_the_planner() -> None:
    with pytest.raises(UndeclaredKnowledgeError):
        oracle(context(Toy()), rollout(num_envs=3), ANY)


def corridor(distance: int) -> CornerLevels:
    """Return an open level of ``corner`` at 7 cells a side whose cheese lies ``distance`` right of the start."""
    walls = torch.zeros(1, 7, 7, dtype=torch.bool)
    return CornerLevels(walls, torch.tensor([21]), torch.tensor([21 + distance]))


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_oracle_regret_of_who_fails_is_the_discount_of_the_last_step_but_one(distance: int) -> None:
    given = context(make_task("corner", size=7), Knowledge.PLANNER)
    levels = corridor(distance)
    failed = episode_returns(torch.zeros(6, 1), torch.zeros(6, 1, dtype=torch.bool), given.training.gamma)
    batch = rollout(6, 1, levels=levels)
    assert oracle(given, batch, failed).item() == pytest.approx(0.9 ** (distance - 1))


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_oracle_regret_of_who_takes_the_shortest_path_is_zero(distance: int) -> None:
    task = make_task("corner", size=7)
    given = context(task, Knowledge.PLANNER)
    env = task.make_env(1)
    env.reset(corridor(distance))
    steps = [env.step(torch.tensor([task.actions.index("right")])) for _ in range(distance)]
    rewards = torch.stack([step.events[:, 0].float() for step in steps])
    returns = episode_returns(rewards, torch.stack([step.terminated for step in steps]), given.training.gamma)
    assert oracle(given, rollout(levels=corridor(distance)), returns).item() == pytest.approx(0.0, abs=1e-6)
