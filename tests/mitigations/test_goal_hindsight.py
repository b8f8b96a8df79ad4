"""Relabelling: which episodes, to what, and how what follows from it is rewritten and weighed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.vocabulary import Goal
from goalposts.mitigations.goal_hindsight import GoalHindsight, episode_numbers
from tests.toy import Toy, context, rollout, trainer


class Open(Toy):
    """The toy whose candidate goal does not end an episode."""

    goals = (*Toy.goals[:2], Goal("second", "candidate", terminal=False))


def begun(task: Toy, share: float = 1 - 1e-9, seed: int = 0) -> GoalHindsight:
    """Return a mitigation that relabels whatever it can."""
    mitigation = GoalHindsight(share)
    mitigation.setup(context(task, *GoalHindsight.uses, seed=seed))
    return mitigation


def column(*values: Any) -> Tensor:
    return torch.tensor(values).unsqueeze(1)


def played(told: int, aligned: list[int], candidate: list[int], **changes: Any) -> Rollout:
    """Return six steps of one environment, with the steps at which goal 0 and goal 2 happened; a step costs 1/8."""
    events = torch.zeros(6, 1, 3, dtype=torch.bool)
    events[aligned, 0, 0] = True
    events[candidate, 0, 2] = True
    made = {
        "told_goals": torch.full((6, 1), told),
        "events": events,
        "rewards": events[..., told].float() - 0.125,
        **changes,
    }
    return rollout(6, 1, **made)


def flat(tensor: Tensor) -> list[Any]:
    found: list[Any] = tensor.flatten().tolist()
    return found


def test_episodes_are_numbered_by_their_ends() -> None:
    done = torch.tensor([[False, True], [True, False], [False, True], [False, False]])
    assert episode_numbers(done).tolist() == [[0, 1], [0, 3], [2, 3], [2, 5]]


def test_a_relabelled_episode_ends_where_its_new_goal_does() -> None:
    # Told goal 0, which it reaches at step 3; on its way it came by goal 2 at step 1. Then another episode.
    batch = played(0, [3], [1, 2], terminated=column(False, False, False, True, False, False))
    mitigation = begun(Toy())
    result = mitigation.relabel(batch)
    assert flat(result.told_goals) == [2, 2, 0, 0, 0, 0]
    assert flat(result.rewards) == [-0.125, 0.875, -0.125, 0.875, -0.125, -0.125]
    assert flat(result.terminated) == [False, True, False, True, False, False]
    assert not bool(result.truncated.any())
    result.importance = column(0.5, 3.0, 1.0, 1.0, 1.0, 1.0)
    assert flat(mitigation.sample_weights(result)) == [0.5, 1.0, 0.0, 0.0, 1.0, 1.0]


def test_an_episode_that_only_its_old_goal_ended_is_cut_short() -> None:
    # Goal 2 does not end an episode: it counts twice, and where goal 0 ended it, it would have gone on.
    batch = played(0, [3], [1, 2], terminated=column(False, False, False, True, False, False))
    mitigation = begun(Open())
    result = mitigation.relabel(batch)
    assert flat(result.told_goals) == [2, 2, 2, 2, 0, 0]
    assert flat(result.rewards) == [-0.125, 0.875, 0.875, -0.125, -0.125, -0.125]
    assert not bool(result.terminated.any())
    assert flat(result.truncated) == [False, False, False, True, False, False]
    assert flat(mitigation.sample_weights(result)) == [1.0] * 6


def test_death_and_the_time_limit_stay_what_they_were() -> None:
    death = begun(Open()).relabel(played(0, [], [1], terminated=column(False, False, True, False, False, False)))
    assert flat(death.terminated) == [False, False, True, False, False, False]
    limit = begun(Open()).relabel(played(0, [], [1], truncated=column(False, False, True, False, False, False)))
    assert flat(limit.truncated) == [False, False, True, False, False, False]
    assert flat(limit.told_goals) == [2, 2, 2, 0, 0, 0]


def test_both_goals_at_one_step_end_the_episode_for_either() -> None:
    batch = played(0, [2], [2], terminated=column(False, False, True, False, False, False))
    result = begun(Toy()).relabel(batch)
    assert flat(result.told_goals) == [2, 2, 2, 0, 0, 0]
    assert flat(result.terminated) == [False, False, True, False, False, False]
    assert flat(result.rewards)[:3] == [-0.125, -0.125, 0.875]


def test_what_achieved_nothing_else_stays_as_it_was() -> None:
    batch = played(2, [], [1, 4], terminated=column(False, True, False, False, True, False))
    before = dataclasses.replace(batch)
    mitigation = begun(Toy(), share=0.5)
    result = mitigation.relabel(batch)
    for name in ("told_goals", "rewards", "terminated", "truncated"):
        assert torch.equal(getattr(result, name), getattr(before, name))
    assert flat(mitigation.sample_weights(result)) == [1.0] * 6


def test_kept_episodes_stand_for_the_relabelled_ones() -> None:
    """Of 4000 episodes told goal 0, the first half achieved goal 2 alone, the others goal 0: a quarter is relabelled
    at a share of one half, and the total weight of both halves of goal 0 is as it was."""
    events = torch.zeros(2, 4000, 3, dtype=torch.bool)
    events[1, :2000, 2] = True
    events[1, 2000:, 0] = True
    ended = torch.tensor([[False], [True]]).expand(2, 4000)
    batch = rollout(
        2, 4000, events=events, rewards=events[..., 0].float(), terminated=ended & events[..., 0],
        truncated=ended & ~events[..., 0],
    )  # fmt: skip
    mitigation = begun(Toy(), share=0.5)
    result = mitigation.relabel(batch)
    weights = mitigation.sample_weights(result)
    told_new = result.told_goals == 2
    assert int(told_new.sum()) == pytest.approx(2000, abs=200)
    assert not bool(told_new[:, 2000:].any())
    assert flat(weights[told_new].unique()) == [1.0]
    assert flat(weights[:, :2000][~told_new[:, :2000]].unique()) == [2.0]
    assert flat(weights[:, 2000:].unique()) == [1.0]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_must_leave_something(share: float) -> None:
    with pytest.raises(ValueError, match="share is"):
        GoalHindsight(share)


def test_the_learner_sees_the_new_goal_and_the_ratio_of_the_two() -> None:
    class Keeps(GoalHindsight):
        before: Rollout
        after: Rollout

        def relabel(self, rollout: Rollout) -> Rollout:
            self.before = dataclasses.replace(rollout)
            return super().relabel(rollout)

        def after_rollout(self, rollout: Rollout) -> None:
            self.after = rollout

    mitigation = Keeps(0.9)
    subject = trainer(mitigation, make_task("keys_and_chests", size=5), num_envs=64, num_steps=64, hidden_sizes=(16,))
    with torch.no_grad():
        subject.network.policy_head.weight.mul_(100)  # So that the policy minds what it is told.
    module = {name: tensor.clone() for name, tensor in subject.network.state_dict().items()}
    subject.iterate()
    before, after = mitigation.before, mitigation.after
    changed = after.told_goals != before.told_goals
    assert 0.02 < float(changed.float().mean()) < 0.9
    subject.network.load_state_dict(module)
    outputs = subject.collector.policy(after.observations.flatten(0, 1), after.told_goals.flatten())
    log_probs = torch.log_softmax(outputs["action_dist_inputs"], dim=1).gather(1, after.actions.flatten().unsqueeze(1))
    torch.testing.assert_close(after.log_probs.flatten(), log_probs.squeeze(1))
    ratio = (after.log_probs - before.log_probs).exp()
    torch.testing.assert_close(after.importance[changed], ratio[changed])
    assert bool((after.importance[~changed] == 1).all())
    assert float((ratio[changed] - 1).abs().max()) > 0.05
    # Values of states that no transition holds are those for the goal told now.
    ends = {row: i for i, row in enumerate(after.final_rows.tolist())}
    rows = after.truncated.flatten().nonzero().flatten().tolist()
    told = after.told_goals.flatten()[rows]
    seen = after.final_observations[[ends[row] for row in rows]]
    values = subject.collector.policy(seen, told)["vf_preds"]
    torch.testing.assert_close(after.final_values.flatten()[rows], values)
    assert not bool(after.final_values[~after.truncated].any())
    values = subject.collector.policy(after.last_observations, after.told_goals[-1])["vf_preds"]
    torch.testing.assert_close(after.last_values, values)
