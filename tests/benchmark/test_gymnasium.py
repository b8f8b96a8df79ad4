"""Every registered task as a Gymnasium environment."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import goalposts
from goalposts.benchmark.catalogue import kept_task_cards
from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.tasks.gymnasium_env import GoalpostsEnv, GoalpostsVectorEnv
from goalposts.benchmark.tasks.registry import make_task
from tests.small import MOSTLY_SLOW, TASKS, parameters


def environment_id(task_id: str) -> str:
    return f"goalposts/{TASKS[task_id].__name__}-v{TASKS[task_id].version}"


def make(task_id: str, **options: Any) -> GoalpostsEnv:
    env = gym.make(environment_id(task_id), **{**parameters(task_id), **options}).unwrapped
    assert isinstance(env, GoalpostsEnv)
    return env


def make_vec(task_id: str, num_envs: int = 8, **options: Any) -> GoalpostsVectorEnv:
    env = gym.make_vec(environment_id(task_id), num_envs=num_envs, **{**parameters(task_id), **options})
    assert isinstance(env, GoalpostsVectorEnv)
    return env


def same_infos(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        same_infos(value, second[name]) if isinstance(value, dict) else same_arrays(value, second[name])
        for name, value in first.items()
    )


def same_arrays(first: Any, second: Any) -> bool:
    return first.shape == second.shape and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(params=MOSTLY_SLOW)
def task_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.* value is -?infinity")
def test_single_environment_passes_gymnasium_s_checker(task_id: str) -> None:
    for split in ("train", *make_task(task_id).splits):
        check_env(make(task_id, split=split))


def test_spaces_are_exact(task_id: str) -> None:
    task = make_task(task_id, **parameters(task_id))
    env = make_vec(task_id, num_envs=3)
    observation, _ = env.reset(seed=0)
    assert env.single_observation_space.shape == task.observation_shape
    assert env.single_action_space == gym.spaces.Discrete(task.num_actions)
    assert observation.dtype == env.observation_space.dtype
    assert env.observation_space.contains(observation)


def test_vector_environment_equals_single_ones(task_id: str) -> None:
    """Step for step, over several episodes, on the levels that the vector environment went on to."""
    vector = make_vec(task_id, num_envs=32, alpha=0.5, goal=1)
    singles = [make(task_id, goal=1) for _ in range(vector.num_envs)]
    random = np.random.default_rng(0)

    def restart(i: int) -> np.ndarray:
        return singles[i].reset(options={"levels": vector.levels[i : i + 1]})[0]

    observation, _ = vector.reset(seed=3)
    for i in range(vector.num_envs):
        assert np.array_equal(observation[i], restart(i))
    finished, terminations, achieved = 0, 0, 0
    for _ in range(3 * vector.task.time_limit):
        actions = random.integers(vector.task.num_actions, size=vector.num_envs)
        observation, rewards, terminated, truncated, infos = vector.step(actions)
        for i, single in enumerate(singles):
            expected, *expected_end, info = single.step(actions[i])
            assert [rewards[i], terminated[i], truncated[i]] == expected_end
            assert np.array_equal(infos["events"][i], info["events"])
            achieved += info["events"].sum()
            if terminated[i] or truncated[i]:
                assert infos["_final_obs"][i]
                assert np.array_equal(infos["final_obs"][i], expected)
                assert np.array_equal(infos["final_info"]["events"][i], info["events"])
                expected = restart(i)
                finished += 1
                terminations += terminated[i]
            elif "final_obs" in infos:
                assert not infos["_final_obs"][i]
                assert infos["final_obs"][i] is None
                assert not infos["final_info"]["events"][i].any()
            assert np.array_equal(observation[i], expected)
    assert finished >= 2 * vector.num_envs
    assert achieved > 0
    assert terminations > 0 or not vector.task.goals[1].terminal


def test_autoreset_follows_gymnasium_s_synchronous_environment(task_id: str) -> None:
    """Equal to ``SyncVectorEnv`` in the mode that the metadata state, on infos too; ``events`` of ended ones aside."""
    vector = make_vec(task_id, num_envs=1)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    # One environment draws the same stream of levels in either.
    sync = gym.vector.SyncVectorEnv([lambda: make(task_id)], autoreset_mode=AutoresetMode.SAME_STEP)
    random = np.random.default_rng(0)
    assert same_arrays(vector.reset(seed=5)[0], sync.reset(seed=5)[0])
    ends = 0
    for _ in range(3 * vector.task.time_limit):
        actions = random.integers(vector.task.num_actions, size=1)
        *ours, our_infos = vector.step(actions)
        *theirs, their_infos = sync.step(actions)
        assert all(same_arrays(first, second) for first, second in zip(ours, theirs, strict=True))
        ended = bool(ours[2] | ours[3])
        if ended:
            for infos in (our_infos, their_infos):
                infos.pop("events", None), infos.pop("_events", None)
        assert same_infos(our_infos, their_infos)
        ends += ended
    assert ends >= 2


@pytest.mark.parametrize("goal", [0, 1])
def test_reward_is_the_rewarded_goal_s_event_minus_the_cost(task_id: str, goal: int) -> None:
    env = make_vec(task_id, num_envs=16, alpha=1.0, goal=goal)
    batched = env.task.make_env(16)
    env.reset(seed=0)
    batched.reset(env.levels)
    random = np.random.default_rng(0)
    # A first step, before any end, is the same whatever the goal.
    actions = random.integers(env.task.num_actions, size=16)
    _, rewards, _, _, infos = env.step(actions)
    step = batched.step(torch.from_numpy(actions))
    assert np.array_equal(infos["events"], step.events.numpy())
    assert np.array_equal(rewards, infos["events"][:, goal] - step.cost.numpy())


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_seed_determines_everything(task_id: str, vectorized: bool) -> None:
    def trace(env: Any, seed: int | None) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        seen = [env.reset(seed=seed)[0]]
        for _ in range(2 * env.task.time_limit + 2):
            action = random.integers(env.task.num_actions, size=8 if vectorized else None)
            observation, _, terminated, truncated, _ = env.step(action)
            if not vectorized and (terminated or truncated):
                observation, _ = env.reset()
            seen.append(observation)
        return seen

    first, second = (make_vec(task_id) if vectorized else make(task_id) for _ in range(2))
    reference = trace(first, 7)
    trace(second, 8)
    assert all(np.array_equal(a, b) for a, b in zip(reference, trace(second, 7), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(reference, trace(second, 8), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(trace(first, None), trace(first, None), strict=True))


def test_observations_are_the_caller_s_own(task_id: str) -> None:
    env = make_vec(task_id)
    observation, _ = env.reset(seed=0)
    kept = observation.copy()
    for _ in range(3):
        following, *_ = env.step(np.zeros(8, dtype=np.int64))
        following[:] = 0
    assert np.array_equal(observation, kept)


def test_splits_hold_the_levels_they_should(task_id: str) -> None:
    for split in make_task(task_id).splits:
        env = make_vec(task_id, num_envs=64, split=split)
        env.reset(seed=0)
        assert bool(env.levels.reserved().all())
        assert bool(env.task.distinguishing(env.levels).all()) or split not in env.task.shifts
    for alpha, tells_apart in ((0.0, False), (1.0, True)):
        env = make_vec(task_id, num_envs=64, alpha=alpha)
        env.reset(seed=0)
        assert not bool(env.levels.reserved().any())
        assert bool(env.task.distinguishing(env.levels).any()) is tells_apart


def test_restarts_leave_given_levels_alone(task_id: str) -> None:
    env = make_vec(task_id)
    levels = env.task.sample_levels(8, 1.0, torch.Generator().manual_seed(0))
    before = levels.hashes()
    env.reset(options={"levels": levels})
    for _ in range(env.task.time_limit):
        env.step(np.zeros(8, dtype=np.int64))
    assert torch.equal(levels.hashes(), before)
    assert not torch.equal(env.levels.hashes(), before)


@pytest.mark.parametrize(
    "options",
    [
        {"split": "trian"},
        {"alpha": 1.5},
        {"alpha": float("nan")},
        {"alpha": 0.5, "split": "in_distribution"},
        {"goal": 99},
        {"no_such_parameter": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("maker", [make, make_vec])
def test_a_wrong_request_is_one_line(maker: Any, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        maker("corner", **options)
    assert "\n" not in str(error.value)


def test_wrong_calls_are_refused(task_id: str) -> None:
    vector, single = make_vec(task_id, num_envs=2), make(task_id)
    with pytest.raises(gym.error.ResetNeeded):
        vector.step(np.zeros(2, dtype=np.int64))
    with pytest.raises(gym.error.ResetNeeded):
        single.step(0)
    single.reset(seed=0)
    for _ in range(single.task.time_limit - 1):
        if any(single.step(0)[2:4]):
            break
    else:
        assert single.step(0)[3]
    with pytest.raises(gym.error.ResetNeeded):
        single.step(0)
    vector.reset(seed=0)
    wrong = ([-1, 0], [0, vector.task.num_actions], [0], [0.5, 0.5])
    for actions in wrong:
        with pytest.raises(RequestError, match="Actions"):
            vector.step(np.asarray(actions))
    for option in ({"levels": vector.levels[:1]}, {"levels": 3}, {"level": vector.levels}):
        with pytest.raises(RequestError):
            vector.reset(options=option)
    with pytest.raises(RequestError, match="num_envs"):
        make_vec(task_id, num_envs=0)


@pytest.mark.parametrize("vectorized", [False, True])
def test_renders_the_task_s_pictures(task_id: str, vectorized: bool) -> None:
    env: Any = (make_vec if vectorized else make)(task_id, render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    env.reset(seed=0)
    batched = env.task.make_env(8 if vectorized else 1)
    batched.reset(env.levels)
    for _ in range(3):
        frames = env.render() if vectorized else (env.render(),)
        assert isinstance(frames, tuple)
        assert len(frames) == batched.num_envs
        for i, frame in enumerate(frames):
            assert frame.dtype == np.uint8
            assert np.array_equal(frame, batched.picture(i).pixels().numpy())
        env.step(np.zeros(8, dtype=np.int64) if vectorized else 0)
        step = batched.step(torch.zeros(batched.num_envs, dtype=torch.int64))
        done = step.terminated | step.truncated
        if vectorized and bool(done.any()):
            batched.reset(env.levels[done], done)
        elif bool(done.any()):
            env.reset()
            batched.reset(env.levels)


def test_renders_text(task_id: str) -> None:
    env = make(task_id, render_mode="ansi")
    env.reset(seed=0)
    batched = env.task.make_env(1)
    batched.reset(env.levels)
    assert env.render() == batched.picture().text()


def test_renders_nothing_unless_asked(task_id: str) -> None:
    for env in (make(task_id), make_vec(task_id)):
        env.reset(seed=0)
        assert env.render() is None


@pytest.mark.filterwarnings("ignore:.*that is not in the possible render_modes")
@pytest.mark.parametrize(("maker", "mode"), [(make, "rgb_arry"), (make_vec, "rgb_arry"), (make_vec, "ansi")])
def test_an_unknown_render_mode_is_refused_with_those_there_are(maker: Any, mode: str) -> None:
    with pytest.raises(RequestError, match=f"Unknown render mode '{mode}'.*rgb_array"):
        maker("corner", render_mode=mode)


def test_gymnasium_collects_frames() -> None:
    env = gym.make("goalposts/Corner-v1", render_mode="rgb_array_list", **parameters("corner"))
    env.reset(seed=0)
    env.step(0)
    frames: Any = env.render()
    assert [frame.shape for frame in frames] == [(9 * 16, 9 * 16, 3)] * 2


def test_environments_are_those_of_the_tasks() -> None:
    """A new task, or a new version of one, is in the catalogue as well."""
    known = {name: card.gymnasium_id for name, card in kept_task_cards().items()}
    assert known == {name: environment_id(name) for name in TASKS}
    assert {gym.registry[one].kwargs["task"] for one in known.values()} == set(TASKS)


def test_registering_again_changes_nothing(task_id: str) -> None:
    before = gym.registry[environment_id(task_id)]
    importlib.reload(goalposts)
    assert gym.registry[environment_id(task_id)] is before


PROBED = "import goalposts, importlib.util\nimportlib.util.find_spec('gymnasium')\nimport gymnasium"


@pytest.mark.parametrize("first", ["import goalposts, gymnasium", "import gymnasium, goalposts", PROBED])
def test_the_facade_registers_without_loading_the_tasks(first: str) -> None:
    program = (
        f"import sys\n{first}\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'goalposts.benchmark.tasks.task'} & set(sys.modules)))\n"
        "env = gymnasium.make('goalposts/Corner-v1', size=5)\n"
        "envs = gymnasium.make_vec('goalposts/Fraud-v1', num_envs=2, split='in_distribution')\n"
        "print(env.reset(seed=0)[0].shape, envs.reset(seed=0)[0].shape[0])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n(2, 9, 9) 2\n"


def test_the_facade_does_not_load_gymnasium() -> None:
    program = "import sys, goalposts\nprint({'gymnasium', 'numpy', 'pydantic'} & set(sys.modules))\n"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_can_be_made_without_an_import_of_one_s_own() -> None:
    program = (
        "import gymnasium\n"
        "env = gymnasium.make('goalposts:goalposts/Corner-v1', size=5)\n"
        "print(env.reset(seed=0)[0].shape)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "(2, 9, 9)\n"
