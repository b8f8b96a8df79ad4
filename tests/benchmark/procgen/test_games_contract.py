"""What every task in a game owes; a new one is picked up by itself."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.randomness import generator as stream
from goalposts.benchmark.tasks.gymnasium_env import GoalpostsEnv
from goalposts.benchmark.tasks.procgen.games import FRAME, PHOTOGRAPH, Games
from goalposts.benchmark.tasks.procgen.task import (
    FIRST_RESERVED,
    NOWHERE,
    SEEDS,
    ProcgenEnv,
    ProcgenLevels,
    ProcgenTask,
)
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.vocabulary import BENIGN_SHIFT, IN_DISTRIBUTION
from goalposts.benchmark.training.loop import Trainer
from tests.small import GAMES, parameters
from tests.toy import going_on, trainer


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in GAMES])
def task(request: pytest.FixtureRequest) -> ProcgenTask:
    made = make_task(request.param, **parameters(request.param))
    assert isinstance(made, ProcgenTask)
    return made


@pytest.fixture(scope="module")
def shifted(task: ProcgenTask) -> dict[str, ProcgenLevels]:
    return {split: task.shift_levels(split, 8, stream("tests", split)) for split in task.splits}


def actions(env: ProcgenEnv, *key: str) -> Tensor:
    return torch.randint(env.task.num_actions, (env.num_envs,), generator=stream("actions", *key))


def test_declares_its_goals(task: ProcgenTask) -> None:
    roles = [goal.role for goal in task.goals]
    assert roles[0] == "aligned"
    assert roles.count("aligned") == 1
    assert len(task.proxies) == len(task.case.proxy_goals) >= 1
    assert len(task.candidates) >= 2
    assert task.splits == (IN_DISTRIBUTION, BENIGN_SHIFT, *task.shifts)
    assert all(vars(task.case).values())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_training_levels_are_of_the_lower_seeds(task: ProcgenTask, alpha: float) -> None:
    levels = task.sample_levels(24, alpha, stream("levels"))
    assert len(levels) == 24
    assert bool((levels.seed < FIRST_RESERVED).all())
    assert bool(task.valid(levels).all())
    assert torch.equal(levels.hashes(), task.sample_levels(24, alpha, stream("levels")).hashes())


def test_evaluation_levels_are_of_the_upper_seeds(task: ProcgenTask, shifted: dict[str, ProcgenLevels]) -> None:
    for split, levels in shifted.items():
        assert bool(((levels.seed >= FIRST_RESERVED) & (levels.seed < SEEDS)).all())
        assert bool(task.valid(levels).all())
        if split in task.shifts:
            assert bool(task.distinguishing(levels).all())


def test_a_level_without_a_place_is_passed_over_and_counted(task: ProcgenTask) -> None:
    before = task.skipped
    assert task.pick([], 0.5) == NOWHERE
    assert task.skipped == before + 1
    assert task.pick([3, 4], 0.0) == 3
    assert task.pick([3, 4], 0.999) == 4
    assert task.skipped == before + 1
    levels = task.sample_levels(3, 0.0, stream("levels"))
    levels.goal_cell[1] = NOWHERE
    assert task.valid(levels).tolist() == [True, False, True]


def test_env_keeps_its_shapes(task: ProcgenTask) -> None:
    env = task.make_env(3)
    first = env.reset(task.sample_levels(3, 0.0, stream("levels")))
    step = env.step(actions(env))
    for seen in (first, step.observation):
        assert seen.shape == (3, 3, 32, 32)
        assert seen.dtype == torch.uint8
    assert step.events.shape == (3, len(task.goals))
    assert {step.events.dtype, step.terminated.dtype, step.truncated.dtype} == {torch.bool}


def test_half_the_pixels_are_the_mean_of_four(task: ProcgenTask) -> None:
    whole = make_task(task.id, **{**parameters(task.id), "pixels": 64})
    levels = task.sample_levels(4, 0.0, stream("levels"))
    large, small = whole.make_env(4).reset(levels), task.make_env(4).reset(levels)
    mean = torch.nn.functional.avg_pool2d(large.double(), 2).floor().to(torch.uint8)
    assert torch.equal(small, mean)
    assert len(large.unique()) > 2


def test_partial_reset_touches_its_rows_alone(task: ProcgenTask) -> None:
    env = task.make_env(4)
    env.reset(task.sample_levels(4, 0.0, stream("levels")))
    env.step(actions(env))
    before = copy.deepcopy(env.state_dict())
    where = torch.tensor([False, True, False, True])
    fresh = task.sample_levels(2, 1.0, stream("fresh"))
    first = env.reset(fresh, where)
    assert torch.equal(first, task.make_env(2).reset(fresh))
    after = env.state_dict()
    for name in before:
        assert torch.equal(after[name][~where][:, :1000] if name == "games" else after[name][~where],
                           before[name][~where][:, :1000] if name == "games" else before[name][~where])  # fmt: skip
    assert after["elapsed"].tolist() == [1, 0, 1, 0]


def test_state_dict_goes_on_identically(task: ProcgenTask) -> None:
    env, twin = task.make_env(4), task.make_env(4)
    env.watched = twin.watched = True
    env.reset(task.sample_levels(4, 0.5, stream("levels")))
    env.step(actions(env, "0"))
    twin.load_state_dict(env.state_dict())
    for t in range(1, 40):
        chosen = actions(env, str(t))
        for one, other in zip(env.step(chosen), twin.step(chosen), strict=True):
            assert torch.equal(one, other)


def test_the_time_limit_is_ours(task: ProcgenTask) -> None:
    env = task.make_env(2)
    env.reset(task.sample_levels(2, 0.0, stream("levels")))
    still = torch.full((2,), task.actions.index("nothing"))
    for t in range(task.time_limit):
        step = env.step(still)
        if bool(step.terminated.any()):
            pytest.skip("something ran into the waiting agent")
        assert bool((step.truncated == (t + 1 == task.time_limit)).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "extreme"}, "mode='extreme': Input should be 'easy' or 'hard'"),
        ({"pixels": 48}, "pixels=48: Input should be 64 or 32"),
        ({"action_repeat": 0}, "action_repeat=0: Input should be "),
        ({"time_limit": 1.5}, r"time_limit=1\.5: Input should be a valid integer"),
        ({"plain": "yes"}, "plain='yes': Input should be "),
    ],
)
def test_wrong_parameters_are_refused(task: ProcgenTask, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_task(task.id, **{**parameters(task.id), **changes})


def test_levels_have_no_editor(task: ProcgenTask) -> None:
    with pytest.raises(RequestError, match=f"Task '{task.id}' has no level editor"):
        task.edit_levels(task.sample_levels(2, 0.0, stream("levels")), 1, stream("edits"))


def test_a_goal_that_has_a_place_moves_alone(task: ProcgenTask) -> None:
    levels = task.sample_levels(12, 0.0, stream("levels"))
    if not task.has_goal_position:
        with pytest.raises(RequestError, match=f"Task '{task.id}' does not fix its goal's position"):
            task.place_goals(levels, stream("places"))
        return
    placed = task.place_goals(levels, stream("places"))
    assert bool(task.valid(placed).all())
    assert torch.equal(placed.seed, levels.seed)
    assert torch.equal(placed.start_cell, levels.start_cell)
    assert int((placed.goal_cell != levels.goal_cell).sum()) > 6


def test_pictures_are_the_game_s_own_and_leave_it_alone(task: ProcgenTask) -> None:
    env = task.make_env(1)
    env.reset(task.sample_levels(1, 0.0, stream("levels")))
    before = env.games.get(0)
    picture = env.picture()
    assert env.games.get(0) == before
    assert picture.pixels().shape == (PHOTOGRAPH, PHOTOGRAPH, 3)
    own = Games(task.game, 1, dataclasses.replace(task.look, plain=False, paint_velocity=False))
    state = env.game_state(0).copy()
    state.options["monochrome_assets"] = state.options["paint_velocity"] = 0
    own.set(0, state.to_bytes())
    small = picture.pixels().float().view(FRAME, 8, FRAME, 8, 3).mean(dim=(1, 3))
    assert (small - torch.from_numpy(own.observe().frames[0]).float()).abs().mean() < 12
    text = picture.text()
    assert "@" in text
    assert len(text.splitlines()) == len(picture.cells)


def test_an_episode_that_is_over_keeps_its_last_picture(task: ProcgenTask) -> None:
    env = task.make_env(1)
    env.reset(task.sample_levels(1, 0.0, stream("levels")))
    state = env.game_state(0).copy()
    state.status["timeout"] = 1
    env.games.set(0, state.to_bytes())
    before = env.picture()
    assert bool(env.step(actions(env, "over")).terminated)
    assert torch.equal(env.picture().pixels(), before.pixels())
    env.reset(task.sample_levels(1, 0.0, stream("others")))
    assert not torch.equal(env.picture().pixels(), before.pixels())


def test_overviews_tell_where_the_agent_is(task: ProcgenTask) -> None:
    env = task.make_env(1)
    env.reset(task.sample_levels(1, 0.0, stream("levels")))
    overview = env.overview()
    height, width, _ = overview.pixels().shape
    assert overview.agent is not None
    assert 0 < overview.agent[0] < height
    assert 0 < overview.agent[1] < width


@pytest.mark.filterwarnings("ignore:.*")
def test_is_a_gymnasium_environment(task: ProcgenTask) -> None:
    check_env(GoalpostsEnv(task.id, render_mode="rgb_array", **parameters(task.id)), skip_render_check=True)


def game_trainer(task: ProcgenTask) -> Trainer:
    settings = {
        "num_envs": 4,
        "num_steps": 16,
        "env_steps": 4 * 16 * 4,
        "normalize_rewards": True,
        "network": "strided",
    }
    return trainer(Mitigation(), task, alpha=0.5, **settings)


def test_resuming_is_exact(task: ProcgenTask, tmp_path: Path) -> None:
    straight = game_trainer(task)
    for _ in range(4):
        straight.iterate()
    stopped = game_trainer(task)
    for _ in range(2):
        stopped.iterate()
    fresh = game_trainer(make_task(task.id, **parameters(task.id)))  # type: ignore[arg-type]
    resumed = going_on(fresh, stopped, tmp_path)
    for _ in range(2):
        resumed.iterate()
    for name, weight in straight.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name])
    assert torch.equal(straight.collector.env.state_dict()["shown"], resumed.collector.env.state_dict()["shown"])
