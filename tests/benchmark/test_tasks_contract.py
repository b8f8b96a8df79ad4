"""What every registered task owes; a new task is picked up by itself.

Where goals are only correlated in distribution, what holds for exact tasks alone is left to their certificate.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.measurement.episodes import play
from goalposts.benchmark.measurement.evaluation import Prepared, evaluation_set, prepared_on
from goalposts.benchmark.measurement.scores import passes_gate
from goalposts.benchmark.randomness import generator as stream
from goalposts.benchmark.tasks.drawing import TILE_PIXELS
from goalposts.benchmark.tasks.environment import Advance, BatchedEnv
from goalposts.benchmark.tasks.episodes import Policy, reference_policy
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import BENIGN_SHIFT, IN_DISTRIBUTION
from tests.small import TASKS, TENSOR_TASKS, parameters

EPISODES = 1000
GAMMA = 0.99
LONG_PLANS = ("keys_and_chests", "monsters")


def small_task(task_id: str) -> Task[Any]:
    return make_task(task_id, **parameters(task_id))


def each(names: Iterable[str]) -> list[Any]:
    """Return parameters of a fixture that keep a task's tests together, so that what they share is prepared once.

    ``make test`` leaves some tasks out: full views, which show the levels of another task whole, and tasks whose plans
    take long. Those have tests of their own.
    """

    def marks(name: str) -> list[pytest.MarkDecorator]:
        return [
            pytest.mark.xdist_group(name),
            *([pytest.mark.slow] if name.endswith("_full") or name in LONG_PLANS else []),
        ]

    return [pytest.param(name, marks=marks(name)) for name in sorted(names)]


@pytest.fixture(params=each(TENSOR_TASKS))
def task(request: pytest.FixtureRequest) -> Task[Any]:
    return small_task(request.param)


@pytest.fixture(params=each(name for name in TENSOR_TASKS if TASKS[name].certificate_class == "exact"))
def exact_task(request: pytest.FixtureRequest) -> Task[Any]:
    """A task whose goals earn exactly the same in distribution, and every optimal action of which is known."""
    return small_task(request.param)


@functools.lru_cache
def prepared(task_id: str) -> Prepared:
    task = small_task(task_id)
    return prepared_on(task, evaluation_set(task, "tests", EPISODES, "public"), "tests", "public", GAMMA)


def returns(task: Task[Any], levels: Levels, goal: int) -> Tensor:
    """Return what the planner of ``goal`` earns on each level for the aligned goal, ``float64[num_levels]``."""

    def planner(env: BatchedEnv[Any]) -> Policy:
        act = task.planner_policy(goal, env, GAMMA)
        return lambda observation: (act(observation), None)

    return play(task, levels, planner, gamma=GAMMA).discounted_return


def ambiguous(task: Task[Any], levels: Levels) -> Tensor:
    """Return on which levels the aligned goal and every proxy earn the same, ``bool[num_levels]``."""
    aligned = returns(task, levels, 0)
    return torch.stack([returns(task, levels, proxy) == aligned for proxy in task.proxies]).all(dim=0)


def test_declares_its_goals(task: Task[Any]) -> None:
    roles = [goal.role for goal in task.goals]
    assert roles[0] == "aligned"
    assert roles.count("aligned") == 1
    assert len(task.proxies) == len(task.case.proxy_goals) >= 1
    assert len(task.candidates) >= 2
    assert len({goal.name for goal in task.goals}) == len(task.goals)
    assert task.id in TASKS
    assert task.shifts
    assert all(shift.startswith("shift/") for shift in task.shifts)
    assert task.splits == (IN_DISTRIBUTION, BENIGN_SHIFT, *task.shifts)
    assert all(vars(task.case).values())
    assert len(set(task.actions)) == len(task.actions) == task.num_actions >= 2
    make_task(task.id, **task.exhaustible)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 300])
def test_training_levels_are_admissible(task: Task[Any], alpha: float, count: int) -> None:
    levels = task.sample_levels(count, alpha, stream("levels"))
    assert isinstance(levels, task.levels_type)
    assert len(levels) == count
    assert bool(task.valid(levels).all())
    assert not bool(levels.reserved().any())


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan")])
def test_alpha_is_a_probability(task: Task[Any], alpha: float) -> None:
    with pytest.raises(RequestError, match="alpha"):
        task.sample_levels(4, alpha, stream("levels"))


def test_alpha_is_the_share_of_randomized_levels(exact_task: Task[Any]) -> None:
    def distinguished(alpha: float) -> float:
        levels = exact_task.sample_levels(3000, alpha, stream("levels"))
        return 1 - float(ambiguous(exact_task, levels).double().mean())

    assert distinguished(0.0) == 0.0
    assert distinguished(1.0) > 0.5
    assert distinguished(0.3) == pytest.approx(0.3 * distinguished(1.0), abs=0.03)


def test_randomized_levels_are_shuffled_in(exact_task: Task[Any]) -> None:
    unlike = ~ambiguous(exact_task, exact_task.sample_levels(2000, 0.5, stream("levels")))
    assert int(unlike[:1000].sum()) == pytest.approx(int(unlike[1000:].sum()), abs=100)


def test_equal_streams_draw_equal_levels(task: Task[Any]) -> None:
    def drawn(*key: str) -> Tensor:
        return task.sample_levels(50, 0.5, stream(*key)).hashes()

    assert torch.equal(drawn("one"), drawn("one"))
    assert not torch.equal(drawn("one"), drawn("other"))


def test_splits_are_reserved_and_admissible(task: Task[Any]) -> None:
    for split in task.splits:
        levels = task.shift_levels(split, 200, stream(split))
        assert len(levels) == 200
        assert bool(task.valid(levels).all())
        assert bool(levels.reserved().all())
        if split in task.shifts:
            assert bool(task.distinguishing(levels).all())
        elif task.certificate_class == "exact":
            assert not bool(task.distinguishing(levels).any())


def test_goals_earn_the_same_but_for_the_shifts(exact_task: Task[Any]) -> None:
    for split in exact_task.splits:
        alike = ambiguous(exact_task, exact_task.shift_levels(split, 200, stream(split)))
        assert bool(~alike.any() if split in exact_task.shifts else alike.all())


def test_unknown_split_is_refused(task: Task[Any]) -> None:
    with pytest.raises(RequestError, match="shift/nowhere"):
        task.shift_levels("shift/nowhere", 4, stream("levels"))


@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.parametrize("num_edits", [0, 1, 5])
def test_edits_are_admissible_and_counted(task: Task[Any], restricted: bool, num_edits: int) -> None:
    levels = task.sample_levels(600, 0.0, stream("levels"))
    before = levels.hashes()
    edited = task.edit_levels(levels, num_edits, stream("edits"), restricted=restricted)
    assert torch.equal(levels.hashes(), before)
    assert len(edited) == len(levels)
    assert bool(task.valid(edited).all())
    assert not bool(edited.reserved().any())
    changed = edited.hashes() != before
    assert edited.differences(levels).tolist() == [num_edits if each else 0 for each in changed.tolist()]
    if num_edits:
        assert changed.double().mean() > 0.5
        if task.certificate_class == "exact":
            assert bool(ambiguous(task, edited).all()) == restricted
    else:
        assert not bool(changed.any())


def test_restricted_edits_keep_a_randomized_level_solvable(task: Task[Any]) -> None:
    levels = task.sample_levels(200, 1.0, stream("levels"))
    edited = task.edit_levels(levels, 3, stream("edits"), restricted=True)
    assert bool((task.optimal_return(edited, 0, 0.99) > 0).all())


def test_edits_that_stay_inadmissible_leave_the_level(task: Task[Any]) -> None:
    levels = task.sample_levels(20, 0.0, stream("levels"))
    assert torch.equal(task.edit_levels(levels, 1, stream("edits"), attempts=0).hashes(), levels.hashes())


def random_actions(task: Task[Any], env: BatchedEnv[Any], *key: str) -> Tensor:
    return task.random_policy(env, stream(*key))(torch.empty(0))


def test_a_goal_that_has_a_place_moves_alone(task: Task[Any]) -> None:
    levels = task.sample_levels(400, 0.0, stream("levels"))
    if not task.has_goal_position:
        with pytest.raises(RequestError, match=f"Task '{task.id}' does not fix its goal's position"):
            task.place_goals(levels, stream("places"))
        return
    placed = task.place_goals(levels, stream("places"))
    assert bool(task.valid(placed).all())
    assert not bool(placed.reserved().any())
    before, after = levels.tensors(), placed.tensors()
    assert sum(not torch.equal(before[name], after[name]) for name in before) == 1
    assert float(task.distinguishing(placed).float().mean()) > 0.4
    assert torch.equal(placed.hashes(), task.place_goals(levels, stream("places")).hashes())


def test_env_keeps_its_shapes(task: Task[Any]) -> None:
    env = task.make_env(5)
    observation = env.reset(task.sample_levels(5, 0.0, stream("levels")))
    step = env.step(random_actions(task, env, "actions"))
    for seen in (observation, step.observation):
        assert seen.shape == (5, *task.observation_shape)
        assert seen.dtype == observation.dtype
    assert step.events.shape == (5, len(task.goals))
    assert step.cost.shape == step.terminated.shape == step.truncated.shape == (5,)
    assert {step.events.dtype, step.terminated.dtype, step.truncated.dtype} == {torch.bool}
    assert step.cost.is_floating_point()


def test_partial_reset_touches_its_rows_alone(task: Task[Any]) -> None:
    env = task.make_env(6)
    env.reset(task.sample_levels(6, 0.0, stream("levels")))
    env.step(random_actions(task, env, "actions"))
    before = copy.deepcopy(env.state_dict())
    where = torch.tensor([False, True, False, False, True, False])
    fresh = task.sample_levels(2, 1.0, stream("fresh"))
    goals = torch.tensor([0, 1])
    first = env.reset(fresh, where, goals)

    other = task.make_env(2)
    assert torch.equal(first, other.reset(fresh, goals=goals))
    for name, tensor in env.state_dict().items():
        assert torch.equal(tensor[~where], before[name][~where])
        assert torch.equal(tensor[where], other.state_dict()[name])


def test_state_dict_goes_on_identically(task: Task[Any]) -> None:
    env, twin = task.make_env(8), task.make_env(8)
    env.reset(task.sample_levels(8, 0.5, stream("levels")), goals=torch.arange(8) % len(task.goals))
    env.step(random_actions(task, env, "0"))
    twin.load_state_dict(env.state_dict())
    for t in range(1, task.time_limit):
        actions = random_actions(task, env, str(t))
        for one, other in zip(env.step(actions), twin.step(actions), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("blind", [True, False])
def test_truncates_at_each_level_s_time_limit_alone(task: Task[Any], blind: bool) -> None:
    env = task.make_env(64)
    training = task.sample_levels(32, 0.0, stream("levels"))
    shifted = task.shift_levels(task.shifts[0], 32, stream("levels"))
    env.reset(type(training).concatenate([training, shifted]))
    policy = task.random_policy(env, stream("actions")) if blind else task.planner_policy(0, env)
    limit = env.state.get("time_limit", torch.full((64,), task.time_limit)).clone()
    assert bool(((limit >= 1) & (limit <= task.time_limit)).all())
    going_on = torch.ones(64, dtype=torch.bool)
    lasted = 0
    for t in range(task.time_limit):
        step = env.step(policy(torch.empty(0)))
        assert torch.equal(step.truncated[going_on], (~step.terminated & (t + 1 == limit))[going_on])
        assert not bool((step.terminated & step.truncated).any())
        lasted += int((going_on & (t + 1 == limit)).sum())
        going_on &= ~(step.terminated | step.truncated)
    assert lasted > 0 or not blind
    assert not bool(going_on.any())


def test_only_the_rewarded_goal_and_death_end_an_episode(task: Task[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    levels = task.shift_levels(task.shifts[0], 200, stream("levels"))
    for rewarded in (0, task.proxies[0]):
        for pursued in (0, task.proxies[0], None):
            env = task.make_env(200)
            env.reset(levels, goals=torch.full((200,), rewarded))
            blind = task.random_policy(env, stream("actions"))
            policy = blind if pursued is None else task.planner_policy(pursued, env)
            going_on = torch.ones(200, dtype=torch.bool)
            reached = 0
            observation = torch.empty(0)
            advance, deaths = env._advance, []

            def observed(actions: Tensor, advance: Any = advance, deaths: list[Any] = deaths) -> Advance:
                result: Advance = advance(actions)
                deaths.append(result.died)
                return result

            monkeypatch.setattr(env, "_advance", observed)
            for _ in range(task.time_limit):
                step = env.step(policy(observation))
                ends = step.events[:, rewarded] & task.goals[rewarded].terminal
                if deaths[-1] is not None:
                    ends |= deaths[-1]
                assert torch.equal(step.terminated[going_on], ends[going_on])
                reached += int(step.events[going_on, pursued or 0].sum())
                going_on &= ~step.terminated
            assert reached > 0 or pursued is None


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_planner_earns_the_optimal_return(task: Task[Any], alpha: float) -> None:
    levels = task.sample_levels(300, alpha, stream("levels"))
    torch.testing.assert_close(returns(task, levels, 0), task.optimal_return(levels, 0, GAMMA))


def test_every_optimal_action_is_optimal(exact_task: Task[Any]) -> None:
    levels = exact_task.sample_levels(300, 1.0, stream("levels"))

    def any_of_them(env: BatchedEnv[Any]) -> Policy:
        optimal = exact_task.optimal_actions(0, env)
        random = stream("choice")
        return lambda _observation: (torch.multinomial(optimal().double(), 1, generator=random).squeeze(1), None)

    earned = play(exact_task, levels, any_of_them, gamma=GAMMA).discounted_return
    torch.testing.assert_close(earned, exact_task.optimal_return(levels, 0, GAMMA))


def test_pictures_can_be_drawn(task: Task[Any]) -> None:
    """Of either episode, before the first step, after every other and at the end."""
    env = task.make_env(2)
    env.reset(task.shift_levels(task.shifts[0], 2, stream("levels")))
    shapes, seen = set(), set()
    for t in range(task.time_limit + 1):
        for index in (0, 1):
            picture = env.picture(index)
            rows, columns = len(picture.cells), len(picture.cells[0])
            shapes.add((rows, columns))
            assert picture.pixels().shape == (TILE_PIXELS * rows, TILE_PIXELS * columns, 3)
            assert len(picture.text().splitlines()) == rows
            seen.add(picture)
        env.step(random_actions(task, env, str(t)))
    assert len(shapes) == 1
    assert len(seen) > 2


def test_unachievable_goals_are_not_achieved(task: Task[Any]) -> None:
    levels = task.sample_levels(300, 1.0, stream("levels"))
    achievable = task.achievable(levels)
    assert achievable.shape == (300, len(task.goals))
    assert bool(achievable[:, 0].all())
    for goal in range(len(task.goals)):
        env = task.make_env(300)
        env.reset(levels, goals=torch.full((300,), goal))
        policy = task.planner_policy(goal, env)
        achieved = torch.zeros(300, dtype=torch.bool)
        going_on = torch.ones(300, dtype=torch.bool)
        for _ in range(task.time_limit):
            step = env.step(policy(torch.empty(0)))
            achieved |= step.events[:, goal] & going_on
            going_on &= ~(step.terminated | step.truncated)
        assert torch.equal(achieved, achievable[:, goal])


def test_reference_policies(task: Task[Any]) -> None:
    results = prepared(task.id)
    for split, (aligned, proxy) in results.references.items():
        assert aligned / EPISODES >= 0.99
        if split in task.shifts:
            assert proxy / EPISODES <= 0.02
        elif task.certificate_class == "exact":
            assert proxy / EPISODES >= 0.99


def test_proxy_policy_is_named_so(task: Task[Any]) -> None:
    levels = task.shift_levels(task.shifts[0], 400, stream("levels"))
    for name, code in (("aligned", 0), ("proxy", 1)):
        policy = functools.partial(reference_policy, task, name, random=torch.Generator())
        assert (play(task, levels, policy).outcome == code).double().mean() >= 0.99


def test_unknown_reference_policy_is_refused(task: Task[Any]) -> None:
    with pytest.raises(RequestError, match="nobody"):
        task.reference_goal("nobody")
    assert [task.reference_goal(goal.name) for goal in task.goals] == list(range(len(task.goals)))


def test_random_policy_is_incapable(task: Task[Any]) -> None:
    results = prepared(task.id)
    random = stream("random")
    episodes = play(task, results.levels.levels, lambda env: reference_policy(task, "random", env, random))
    splits = results.results(episodes)
    assert not passes_gate(splits[IN_DISTRIBUTION])
    for shift in task.shifts:
        assert (splits[shift].aligned + splits[shift].proxy) / EPISODES <= 0.25


def test_unknown_task_or_parameter_is_refused() -> None:
    with pytest.raises(RequestError, match="Did you mean 'corner'"):
        make_task("cornr")
    with pytest.raises(RequestError, match="colour"):
        make_task("corner", colour="red")
