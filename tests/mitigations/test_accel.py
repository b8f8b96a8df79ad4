from __future__ import annotations

import itertools

import pytest
import torch

from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.tasks.registry import make_task
from goalposts.mitigations.accel import Accel, AccelOracle, AccelRestricted
from tests.mitigations.curricula import NUM_ENVS, phases, play
from tests.toy import Toy, ToyLevels, context, rollout, trainer


def test_every_replay_is_followed_by_edits() -> None:
    found = phases(play(Accel(buffer_size=40), 300))
    assert found[:3] == ["new"] * 3  # The buffer must hold half of 40 before the first replay: three times 8.
    for before, after in itertools.pairwise(found):
        assert (after == "edit") == (before == "replay")
    free = [after for before, after in itertools.pairwise(found[2:]) if before != "replay"]
    assert free.count("replay") / len(free) == pytest.approx(0.8, abs=0.06)


def test_children_are_edits_of_the_levels_replayed_just_before() -> None:
    played = play(Accel(buffer_size=40), 40)
    for parents, children in itertools.pairwise(played):
        if parents.phase == "replay":
            assert [number % 1000 for number in children.numbers] == [number % 1000 for number in parents.numbers]
            assert all(child > parent for child, parent in zip(children.numbers, parents.numbers, strict=True))


def test_children_enter_the_buffer() -> None:
    mitigation = Accel(buffer_size=1000, fill_share=0.016)
    played = play(mitigation, 10)
    assert isinstance(mitigation.buffer.levels, ToyLevels)
    kept = set(mitigation.buffer.levels.number.tolist())
    children = [set(each.numbers) for each in played if each.phase == "edit"]
    assert children
    assert all(numbers <= kept for numbers in children)


@pytest.mark.parametrize("num_edits", [1, 3])
@pytest.mark.parametrize("cls", [Accel, AccelRestricted])
def test_every_replayed_level_has_a_child_that_differs_in_num_edits(cls: type[Accel], num_edits: int) -> None:
    task = make_task("corner", size=7)
    mitigation = cls(buffer_size=64, fill_share=0.0, replay_probability=1.0, num_edits=num_edits)
    mitigation.setup(context(task, *cls.uses, num_envs=64))
    batches = []
    for i in range(3):
        levels = mitigation.sample_levels(64)
        batches.append(levels)
        mitigation.after_rollout(rollout(num_envs=64, seed=i, levels=levels))
    assert mitigation.phase == "edit"
    assert (batches[2].differences(batches[1]) == num_edits).all()


@pytest.mark.parametrize(("cls", "moved"), [(Accel, True), (AccelOracle, True), (AccelRestricted, False)])
def test_restricted_edits_leave_the_goal_where_it_is(cls: type[Accel], moved: bool) -> None:
    task = make_task("corner", size=7)
    mitigation = cls(buffer_size=64, fill_share=0.0, replay_probability=1.0)
    mitigation.setup(context(task, *cls.uses, num_envs=64))
    for i in range(3):
        levels = mitigation.sample_levels(64)
        mitigation.after_rollout(rollout(num_envs=64, seed=i, levels=levels))
    assert mitigation.phase == "edit"
    assert bool(levels.tensors()["cheese"].any()) == moved


def test_what_each_declares() -> None:
    edits = {Knowledge.LEVEL_EDITOR}
    assert edits == AccelRestricted.uses
    assert edits | {Knowledge.LEVEL_GENERATOR} == Accel.uses
    assert edits | {Knowledge.LEVEL_GENERATOR, Knowledge.PLANNER} == AccelOracle.uses


def test_resumes_between_a_replay_and_its_edits() -> None:
    def begun() -> tuple[Accel, list[int]]:
        mitigation = Accel(buffer_size=16, replay_probability=1.0)
        subject = trainer(mitigation, Toy())
        subject.iterate()
        subject.iterate()
        assert mitigation.phase == "replay"
        return mitigation, subject.hooks.state_dict()

    first, state = begun()
    twin = Accel(buffer_size=16, replay_probability=1.0)
    twin.setup(context(Toy(), *Accel.uses, num_envs=NUM_ENVS))
    twin.load_state_dict(state)
    expected = first.replayed_levels()
    assert torch.equal(twin.replayed_levels().hashes(), expected.hashes())
    children = twin.sample_levels(NUM_ENVS)
    assert twin.phase == "edit"
    assert isinstance(children, ToyLevels)
    assert isinstance(expected, ToyLevels)
    assert torch.equal(children.number % 1000, expected.number % 1000)
