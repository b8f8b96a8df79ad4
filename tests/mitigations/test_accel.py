from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from benchmark.errors import HookError
from benchmark.mitigation import Knowledge
from mitigations.accel import Accel, positive_value_loss
from tests.toy import Toy, ToyLevels, context, rollout, trainer

NUM_ENVS = 8


def test_positive_value_loss() -> None:
    advantages = torch.tensor([[1.0, -1.0, 0.0], [3.0, -2.0, 0.5], [-4.0, -3.0, -0.5], [0.0, -1.0, 2.0]])
    scores = positive_value_loss(rollout(4, 3, advantages=advantages))
    assert scores.tolist() == pytest.approx([1.0, 0.0, 0.625])


class Wide(Toy):
    """A toy in which no level is drawn twice: each has some millions, and an edit adds some."""

    def _draw(self, num_levels: int, randomized: bool, generator: torch.Generator) -> ToyLevels:
        return self._add_millions(super()._draw(num_levels, randomized, generator), generator)

    def _edit(self, levels: ToyLevels, restricted: bool, generator: torch.Generator) -> ToyLevels:
        return self._add_millions(super()._edit(levels, restricted, generator), generator)

    def _add_millions(self, levels: ToyLevels, generator: torch.Generator) -> ToyLevels:
        return ToyLevels(levels.number + 10**6 * torch.randint(1, 10**6, (len(levels),), generator=generator))


@dataclasses.dataclass
class Iteration:
    """What one iteration played, and what became of it."""

    phase: str
    numbers: list[int]
    """Of the toy levels."""
    scores: list[float]
    weights: Tensor


def play(mitigation: Accel, iterations: int) -> list[Iteration]:
    """Call the hooks as training does, on made-up rollouts of the toy's levels."""
    mitigation.setup(context(Wide(), *Accel.uses, num_envs=NUM_ENVS))
    played = []
    for i in range(iterations):
        levels = mitigation.sample_levels(NUM_ENVS)
        assert isinstance(levels, ToyLevels)
        batch = rollout(num_envs=NUM_ENVS, seed=i, levels=levels)
        mitigation.after_rollout(batch)
        weights = mitigation.sample_weights(batch)
        played.append(Iteration(mitigation.phase, levels.number.tolist(), positive_value_loss(batch).tolist(), weights))
    return played


def phases(played: list[Iteration]) -> list[str]:
    return [each.phase for each in played]


def held(mitigation: Accel) -> dict[int, float]:
    """Return the score of every level in the buffer by its number."""
    assert isinstance(mitigation.buffer.levels, ToyLevels)
    return dict(zip(mitigation.buffer.levels.number.tolist(), mitigation.buffer.scores.tolist(), strict=True))


def test_phases() -> None:
    found = phases(play(Accel(buffer_size=40), 300))
    assert found[:3] == ["new"] * 3  # The buffer must hold half of 40 before the first replay: three times 8.
    for before, after in itertools.pairwise(found):
        assert (after == "edit") == (before == "replay")
    free = [after for before, after in itertools.pairwise(found[2:]) if before != "replay"]
    assert free.count("replay") / len(free) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(("replay_probability", "expected"), [(1.0, {"replay", "edit"}), (0.0, {"new"})])
def test_replay_probability_endpoints(replay_probability: float, expected: set[str]) -> None:
    played = play(Accel(buffer_size=40, replay_probability=replay_probability), 20)
    assert set(phases(played[3:])) == expected


@pytest.mark.parametrize(("fill_share", "new"), [(0.0, 1), (0.5, 3), (1.0, 5)])
def test_fill_share_endpoints(fill_share: float, new: int) -> None:
    played = play(Accel(buffer_size=40, fill_share=fill_share, replay_probability=1.0), 8)
    assert phases(played).index("replay") == new


def test_only_replay_has_weight() -> None:
    for each in play(Accel(buffer_size=40), 30):
        assert each.weights.shape == (4, NUM_ENVS)
        assert each.weights.unique().tolist() == [float(each.phase == "replay")]


def test_only_replay_trains() -> None:
    mitigation = Accel(buffer_size=16, replay_probability=1.0)
    subject = trainer(mitigation)
    for phase in ("new", "replay", "edit", "replay"):
        before = [parameter.clone() for parameter in subject.module.parameters()]
        metrics = subject.iterate()
        assert mitigation.phase == phase
        same = all(torch.equal(one, other) for one, other in zip(before, subject.module.parameters(), strict=True))
        assert same == (phase != "replay") == ("loss" not in metrics)


def test_children_are_edits_of_the_levels_replayed_just_before() -> None:
    played = play(Accel(buffer_size=40), 40)
    for parents, children in itertools.pairwise(played):
        if parents.phase == "replay":
            assert [number % 1000 for number in children.numbers] == [number % 1000 for number in parents.numbers]
            assert all(child > parent for child, parent in zip(children.numbers, parents.numbers, strict=True))


def test_new_and_edited_levels_enter_and_scores_are_those_of_the_last_play() -> None:
    mitigation = Accel(buffer_size=1000, fill_share=0.016)
    seen: dict[int, float] = {}
    for each in play(mitigation, 30):
        if each.phase == "replay":
            assert set(each.numbers) <= set(seen)
        seen |= dict(zip(each.numbers, each.scores, strict=True))
    assert held(mitigation) == seen
    assert len(seen) > 100


def test_buffer_keeps_the_best_within_its_capacity() -> None:
    mitigation = Accel(buffer_size=40, replay_probability=0.0)
    played = play(mitigation, 30)
    scores = sorted((score for each in played for score in each.scores), reverse=True)
    assert sorted(held(mitigation).values(), reverse=True) == scores[:40]


def test_edits_are_unrestricted() -> None:
    class Tells(Toy):
        restricted: bool | None = None

        def _edit(self, levels: ToyLevels, restricted: bool, generator: torch.Generator) -> ToyLevels:
            self.restricted = restricted
            return super()._edit(levels, restricted, generator)

    task = Tells()
    mitigation = Accel(buffer_size=8, replay_probability=1.0)
    subject = trainer(mitigation, task)
    for _ in range(3):
        subject.iterate()
    assert mitigation.phase == "edit"
    assert task.restricted is False
    assert {Knowledge.LEVEL_EDITOR, Knowledge.LEVEL_GENERATOR} == Accel.uses


def test_a_buffer_smaller_than_a_rollout_is_refused_by_name() -> None:
    with pytest.raises(HookError, match=r"setup.*buffer_size is 7.*at least 8"):
        trainer(Accel(buffer_size=7))
    trainer(Accel(buffer_size=8))
