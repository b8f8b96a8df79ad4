from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ray.rllib.core.columns import Columns
from torch import Tensor

from goalposts.benchmark.errors import NonFiniteError
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.training.rollout import Collector
from tests.toy import COST, Toy, ToyLevels, trainer, unreserved


class Counts(Mitigation):
    """Plays the levels in order and keeps what it has handed out."""

    def __init__(self) -> None:
        self.next = 0

    def sample_levels(self, num_levels: int) -> Levels:
        levels = unreserved(num_levels, self.next)
        self.next = int(levels.number[-1]) + 1
        return levels


class Restarts(Counts):
    restart_rollouts = True


class TurnsGoals(Counts):
    """Rewards goal 0, 1 or 2 by the level's number."""

    uses = frozenset({Knowledge.CANDIDATE_REWARDS, Knowledge.PROXY_GOALS})

    def goals(self, levels: Levels) -> Tensor:
        assert isinstance(levels, ToyLevels)
        return levels.number % 3


class Candidates(TurnsGoals):
    uses = frozenset({Knowledge.CANDIDATE_REWARDS})

    def goals(self, levels: Levels) -> Tensor:
        return 2 * (super().goals(levels) % 2)


def collector(mitigation: Mitigation | None = None) -> Collector:
    return trainer(mitigation or Counts()).collector


def numbers(rollout: Rollout) -> Tensor:
    """Return the number of the level that each transition says it was played on, ``int64[T, N]``."""
    assert isinstance(rollout.levels, ToyLevels)
    return rollout.levels.number[rollout.level_index]


def elapsed(rollout: Rollout) -> Tensor:
    return rollout.observations[..., 1].long()


@pytest.mark.parametrize("mitigation", [Counts, Restarts, TurnsGoals])
def test_transitions_point_at_the_level_they_were_played_on(mitigation: Callable[[], Mitigation]) -> None:
    subject = collector(mitigation())
    for _ in range(3):
        rollout = subject.collect()
        assert torch.equal(numbers(rollout), rollout.observations[..., 0].long())


@pytest.mark.parametrize("mitigation", [Counts, TurnsGoals, Candidates])
def test_rewards_are_the_events_of_the_told_goal(mitigation: Callable[[], Mitigation]) -> None:
    subject = collector(mitigation())
    for _ in range(3):
        rollout = subject.collect()
        when, step = numbers(rollout) % 6, elapsed(rollout) + 1
        happened = torch.stack([step == when, step == when + 1, (step == 2) & (when % 2 == 0)], dim=-1)
        achieved = happened.gather(2, rollout.told_goals.unsqueeze(2)).squeeze(2)
        torch.testing.assert_close(rollout.rewards, achieved.float() - COST * rollout.actions)
        assert torch.equal(rollout.told_goals, subject.hooks.goals(rollout.levels)[rollout.level_index])
        assert torch.equal(rollout.terminated, achieved)
        assert torch.equal(rollout.truncated, (step == Toy.time_limit) & ~achieved)


@pytest.mark.parametrize(
    ("mitigation", "known"),
    [(Counts, [True, False, False]), (Candidates, [True, False, True]), (TurnsGoals, [True, True, True])],
)
def test_events_of_undeclared_goals_are_hidden(mitigation: Callable[[], Mitigation], known: list[bool]) -> None:
    subject = collector(mitigation())
    assert torch.cat([subject.collect().events for _ in range(4)]).flatten(0, 1).any(dim=0).tolist() == known


def test_episodes_run_on_from_one_rollout_to_the_next() -> None:
    subject = collector()
    parts = [subject.collect() for _ in range(5)]
    seen = torch.cat([part.observations for part in parts]).long()
    done = torch.cat([part.done for part in parts])
    for t in range(len(seen) - 1):
        going_on = seen[t] + torch.tensor([0, 1])
        assert torch.equal(seen[t + 1][~done[t]], going_on[~done[t]])
        assert not bool(seen[t + 1][done[t]][:, 1].any())
    played = torch.cat([part.observations[..., 0][elapsed(part) == 0] for part in parts]).long()
    assert played.tolist() == unreserved(len(played)).number.tolist()


def test_restarted_rollouts_repeat_one_level_an_environment() -> None:
    subject = collector(Restarts())
    first, second = subject.collect(), subject.collect()
    for rollout, levels in ((first, unreserved(8)), (second, unreserved(8, int(unreserved(8).number[-1]) + 1))):
        assert torch.equal(rollout.levels.number, levels.number)
        assert torch.equal(rollout.level_index, torch.arange(8).expand(6, 8))
        assert not bool(elapsed(rollout)[0].any())
        assert bool((elapsed(rollout)[1:] == 0).any())


def value_at(subject: Collector, numbers: Tensor, elapsed: int) -> Tensor:
    observation = torch.stack([numbers, torch.full_like(numbers, elapsed)], dim=1).float()
    return subject.policy(observation, torch.zeros(len(numbers), dtype=torch.int64))[Columns.VF_PREDS]


def test_final_values_are_those_of_truncated_states() -> None:
    subject = collector()
    for _ in range(2):
        rollout = subject.collect()
        assert bool(rollout.truncated.any())
        assert not bool(rollout.final_values[~rollout.truncated].any())
        expected = value_at(subject, numbers(rollout)[rollout.truncated], Toy.time_limit)
        torch.testing.assert_close(rollout.final_values[rollout.truncated], expected)
        following = subject.collect()
        torch.testing.assert_close(rollout.last_values, following.values[0])


def test_states_after_the_last_step_of_an_episode_are_kept() -> None:
    subject = collector()
    for _ in range(2):
        rollout = subject.collect()
        assert torch.equal(rollout.final_rows.sort().values, rollout.done.flatten().nonzero().flatten())
        ended = torch.stack([numbers(rollout), elapsed(rollout) + 1], dim=-1).flatten(0, 1)
        assert torch.equal(rollout.final_observations.long(), ended[rollout.final_rows])
        assert bool((rollout.importance == 1).all())
        assert torch.equal(rollout.last_observations, subject.collect().observations[0])


def test_what_the_policy_said_is_kept() -> None:
    subject = collector()
    rollout = subject.collect()
    outputs = subject.policy(rollout.observations.flatten(0, 1), rollout.told_goals.flatten())
    torch.testing.assert_close(rollout.logits.flatten(0, 1), outputs[Columns.ACTION_DIST_INPUTS])
    torch.testing.assert_close(rollout.values.flatten(), outputs[Columns.VF_PREDS])
    log_probs = torch.distributions.Categorical(logits=rollout.logits).log_prob(rollout.actions)
    torch.testing.assert_close(rollout.log_probs, log_probs)
    assert rollout.actions.unique().tolist() == [0, 1]


def test_extra_rollouts_leave_the_episodes_alone() -> None:
    """The streams of actions part, so compare what does not depend on them: the levels and steps of the episodes."""
    subject, undisturbed = collector(), collector()
    for disturb in (True, False, True):
        if disturb:
            extra = subject.collect(unreserved(8, 5000))
            assert torch.equal(extra.levels.number, unreserved(8, 5000).number)
            assert not bool(elapsed(extra)[0].any())
        assert torch.equal(subject.collect().observations, undisturbed.collect().observations)


@pytest.mark.parametrize(("nan_at", "named"), [(0, "observations"), (2, "observations"), (4, "final_values")])
def test_an_observation_that_is_not_finite_is_named(nan_at: int, named: str) -> None:
    task = Toy()
    task.nan_at = nan_at
    subject = trainer(Counts(), task)
    subject.env_steps = 4800
    with pytest.raises(NonFiniteError, match=rf"{named}.*step .*4800") as caught:
        subject.iterate()
    assert "\n" not in str(caught.value)


def test_a_network_that_is_not_finite_is_named() -> None:
    subject = trainer(Counts())
    with torch.no_grad():
        subject.network.policy_head.bias.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=r"logits.*step"):
        subject.iterate()
