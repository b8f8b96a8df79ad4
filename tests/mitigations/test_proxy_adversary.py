from __future__ import annotations

import dataclasses

import pytest
import torch

from goalposts.benchmark.errors import HookError
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.tasks.corner import CornerLevels
from goalposts.benchmark.tasks.registry import make_task
from goalposts.mitigations.proxy_adversary import ProxyAdversary
from tests.toy import Toy, ToyLevels, context, rollout, trainer

SIZE = 8


def begun(task: Toy | None = None, **hyperparameters: float) -> ProxyAdversary:
    mitigation = ProxyAdversary(**hyperparameters)  # type: ignore[arg-type]
    mitigation.setup(context(task or Toy(), *ProxyAdversary.uses, num_envs=SIZE))
    return mitigation


def events(*columns: tuple[list[int], list[int]]) -> torch.Tensor:
    """Return ``bool[6, N, 3]`` from the steps at which each level's aligned goal and its proxy were achieved."""
    result = torch.zeros(6, len(columns), 3, dtype=torch.bool)
    for level, goals in enumerate(columns):
        for goal, steps in enumerate(goals):
            result[steps, level, goal] = True
    return result


def scores(happened: torch.Tensor, done: torch.Tensor, task: Toy | None = None) -> list[float]:
    mitigation = begun(task)
    mitigation.after_rollout(rollout(6, happened.shape[1], events=happened, terminated=done))
    found: list[float] = mitigation.buffer.scores.tolist()
    return found


def test_score_is_the_proxy_s_return_minus_the_goal_s() -> None:
    happened = events(([2], []), ([], [3]), ([2], [0]), ([1], [1]), ([], []))
    done = happened[..., 0].clone()
    done[5] = True
    # With γ .9 over the episodes that end at the goal or with the rollout; after an end the next episode counts too.
    gamma = 0.9
    expected = [(-(gamma**2)) / 2, gamma**3, (1 - gamma**2) / 2, 0.0, 0.0]
    assert scores(happened, done) == pytest.approx(expected)


def test_a_terminal_proxy_is_earned_once_an_episode() -> None:
    happened = events(([], [1, 2, 4]))
    done = torch.zeros(6, 1, dtype=torch.bool)
    done[[3, 5]] = True
    # Two episodes: the proxy at step 2 of the first, then again there for nothing; and at step 1 of the second.
    assert scores(happened, done) == pytest.approx([(0.9 + 1.0) / 2])


def test_a_proxy_that_ends_no_episode_is_earned_each_time() -> None:
    class Lasting(Toy):
        goals = (Toy.goals[0], dataclasses.replace(Toy.goals[1], terminal=False), Toy.goals[2])

    done = torch.zeros(6, 1, dtype=torch.bool)
    done[5] = True
    assert scores(events(([], [0, 2])), done, Lasting()) == pytest.approx([1 + 0.81])


def test_the_proxy_that_earns_most_counts() -> None:
    class TwoProxies(Toy):
        goals = (Toy.goals[0], Toy.goals[1], dataclasses.replace(Toy.goals[2], role="proxy"))

    happened = torch.zeros(6, 2, 3, dtype=torch.bool)
    happened[3, 0, 1] = happened[1, 0, 2] = happened[2, 1, 1] = True
    done = torch.zeros(6, 2, dtype=torch.bool)
    done[5] = True
    assert scores(happened, done, TwoProxies()) == pytest.approx([0.9, 0.81])


def test_a_rollout_has_new_levels_then_replayed_ones_then_their_children() -> None:
    mitigation = begun()
    first = mitigation.sample_levels(SIZE)
    mitigation.after_rollout(rollout(num_envs=SIZE, levels=first))
    levels = mitigation.sample_levels(SIZE)
    assert isinstance(levels, ToyLevels)
    assert isinstance(first, ToyLevels)
    new, parents, children = levels.number.split([4, 2, 2])
    assert set(parents.tolist()) <= set(first.number.tolist())
    assert torch.equal(children, parents + 5000)
    assert bool((new < 1000).all())


@pytest.mark.parametrize(("replay_share", "kinds"), [(0.0, (8, 0)), (0.5, (0, 4))])
def test_replay_share_endpoints(replay_share: float, kinds: tuple[int, int]) -> None:
    mitigation = begun(replay_share=replay_share)
    mitigation.after_rollout(rollout(num_envs=SIZE, levels=mitigation.sample_levels(SIZE)))
    levels = mitigation.sample_levels(SIZE)
    assert isinstance(levels, ToyLevels)
    assert int((levels.number >= 5000).sum()) == kinds[1]
    assert len(levels) == kinds[0] + 2 * kinds[1] == SIZE


def test_all_levels_are_trained_on_and_count_as_steps() -> None:
    subject = trainer(ProxyAdversary(replay_share=0.5))
    assert [subject.iterate()["trained_share"] for _ in range(3)] == [1.0] * 3
    assert subject.env_steps == 3 * subject.config.steps_per_rollout


def test_it_finds_levels_that_mislead_an_agent_that_walks_to_the_corner() -> None:
    """At rate 0 no level has the cheese elsewhere; edits find some, and the buffer's best are all of that kind."""
    task = make_task("corner", size=5, time_limit=14)
    mitigation = ProxyAdversary(buffer_size=64, num_edits=3)
    given = context(task, *ProxyAdversary.uses, num_envs=64)
    mitigation.setup(given)
    env = task.make_env(64)
    for _ in range(12):
        levels = mitigation.sample_levels(64)
        env.reset(levels)
        walk = task.planner_policy(1, env)
        happened, done = torch.zeros(14, 64, len(task.goals), dtype=torch.bool), torch.zeros(14, 64, dtype=torch.bool)
        over = torch.zeros(64, dtype=torch.bool)
        for t in range(14):
            step = env.step(walk(torch.zeros(64, 1)))
            happened[t] = step.events & ~over.unsqueeze(1)
            done[t] = (step.terminated | step.truncated) & ~over
            over |= done[t]
        mitigation.after_rollout(rollout(14, 64, levels=levels, events=happened, terminated=done))
    best = mitigation.buffer.scores.argsort(descending=True)[:20]
    assert isinstance(mitigation.buffer.levels, CornerLevels)
    assert bool((mitigation.buffer.levels.cheese[best] != 0).all())
    assert bool((mitigation.buffer.scores[best] > 0.5).all())


def test_the_context_says_which_proxies_end_an_episode() -> None:
    assert context(Toy(), Knowledge.PROXY_GOALS).terminal_proxies == (True,)
    assert context(make_task("fraud"), Knowledge.PROXY_GOALS).terminal_proxies == (False,)


def test_impossible_sizes_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"replay_share is 0\.6; give 0 to 0\.5"):
        ProxyAdversary(replay_share=0.6)
    with pytest.raises(HookError, match=r"setup.*buffer_size is 7.*at least 8"):
        trainer(ProxyAdversary(buffer_size=7))
