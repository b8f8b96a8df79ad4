from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.tasks.environment import ReferencePolicy
from goalposts.benchmark.tasks.keys_and_chests import KeysAndChests, KeysAndChestsFull, KeysEnv, KeysLevels
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.vocabulary import ALIGNED, LOST, PLANNING_GAMMA, PROXY

OPEN, COLLECT = 0, 1
UP, RIGHT, DOWN, LEFT = range(4)


def small() -> KeysAndChests:
    """Return a task of the size that suits two cores."""
    return KeysAndChests(size=7, wall_density=0.1, benign_wall_density=0.2, time_limit=24, scarce=3, plentiful=8)


def tiny(time_limit: int = 10, scarce: int = 2, plentiful: int = 3) -> KeysAndChests:
    return KeysAndChests(
        size=4, wall_density=0.2, benign_wall_density=0.3, time_limit=time_limit, scarce=scarce, plentiful=plentiful
    )


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def level(task: KeysAndChests, rows: str) -> KeysLevels:
    """Return a drawn level: ``A`` the agent, ``k`` keys, ``c`` chests, ``#`` walls."""
    cells = "".join(rows.split())
    assert len(cells) == task.cells

    def slots(letter: str) -> Tensor:
        where = [i for i, cell in enumerate(cells) if cell == letter]
        return torch.tensor([where + [-1] * (task.plentiful - len(where))])

    walls = torch.tensor([cell == "#" for cell in cells]).view(1, task.size, task.size)
    return KeysLevels(walls, torch.tensor([cells.index("A")]), slots("k"), slots("c"))


def counts(levels: KeysLevels) -> list[tuple[int, int]]:
    keys, chests = ((cells >= 0).sum(dim=1).tolist() for cells in (levels.keys, levels.chests))
    return list(zip(keys, chests, strict=True))


def start(task: KeysAndChests, levels: KeysLevels) -> KeysEnv:
    env = task.make_env(len(levels))
    env.reset(levels)
    return env


def history(env: KeysEnv, policy: ReferencePolicy) -> Tensor:
    """Return the events until the time limit, ``bool[time_limit, num_envs, num_goals]``."""
    return torch.stack([env.step(policy(torch.empty(0))).events for _ in range(env.task.time_limit)])


def discounted(events: Tensor, goal: int, gamma: float) -> Tensor:
    return (events[:, :, goal] * gamma ** torch.arange(len(events)).double().unsqueeze(1)).sum(dim=0)


def neighbours(walls: Tensor, cell: int) -> list[int]:
    size = len(walls)
    beside = [(cell // size + r, cell % size + c) for r, c in ((-1, 0), (0, 1), (1, 0), (0, -1))]
    return [r * size + c for r, c in beside if 0 <= r < size and 0 <= c < size and not walls[r, c]]


class Search:
    """Everything that can happen on one level, tried out."""

    def __init__(self, levels: KeysLevels, goal: int, gamma: float) -> None:
        walls = levels.walls[0]
        self.beside = {cell: neighbours(walls, cell) for cell in range(walls.numel())}
        self.keys, self.chests = (
            frozenset(cell for cell in cells[0].tolist() if cell >= 0) for cells in (levels.keys, levels.chests)
        )
        self.start = int(levels.start)
        self.goal = goal
        self.gamma = gamma
        self.value = functools.cache(self._value)

    def best(self, steps: int) -> float:
        return self.value(self.start, self.keys, self.chests, 0, steps)

    def _value(self, cell: int, keys: frozenset[int], chests: frozenset[int], held: int, steps: int) -> float:
        if steps == 0:
            return 0.0
        values = [0.0]
        for there in self.beside[cell]:
            takes, opens = there in keys, there in chests and held > 0
            reward = opens if self.goal == OPEN else takes
            left = self.value(
                there, keys - {there}, chests - {there} if opens else chests, held + takes - opens, steps - 1
            )
            values.append(reward + self.gamma * left)
        return max(values)


@pytest.mark.parametrize(("scarce", "plentiful", "num_levels"), [(1, 2, 12), (2, 3, 8), (3, 4, 3)])
@pytest.mark.parametrize("goal", [OPEN, COLLECT])
@pytest.mark.parametrize("gamma", [1.0, 0.95, 0.5])
def test_optimal_return_is_that_of_exhaustive_search(
    scarce: int, plentiful: int, num_levels: int, goal: int, gamma: float
) -> None:
    limits = (2, 5, 8, 11)
    levels = tiny(11, scarce, plentiful).sample_levels(num_levels, 1.0, stream())
    searches = [Search(levels[i : i + 1], goal, gamma) for i in range(num_levels)]
    for time_limit in limits:
        found = tiny(time_limit, scarce, plentiful).optimal_return(levels, goal, gamma)
        assert found.tolist() == pytest.approx([search.best(time_limit) for search in searches])


@pytest.mark.parametrize("goal", range(6))
@pytest.mark.parametrize("gamma", [1.0, PLANNING_GAMMA, 0.8])
def test_planner_policy_earns_the_optimal_return(goal: int, gamma: float) -> None:
    for task in (
        small(),
        KeysAndChests(size=6, wall_density=0.4, benign_wall_density=0.4, time_limit=14, scarce=2, plentiful=5),
    ):
        levels = task.sample_levels(100, 1.0, stream())
        env = start(task, levels)
        events = history(env, task.planner_policy(goal, env, gamma))
        if task.goals[goal].terminal:
            events &= events.cumsum(dim=0) == 1
        torch.testing.assert_close(discounted(events, goal, gamma), task.optimal_return(levels, goal, gamma))


def test_plans_leave_out_what_cannot_be_reached() -> None:
    task = tiny()
    walled_in = level(task, "Ak.c .#k# c.#c ###k")
    assert task.optimal_return(walled_in, COLLECT, 1.0).tolist() == [2.0]
    assert task.optimal_return(walled_in, OPEN, 1.0).tolist() == [2.0]
    assert task.achievable(walled_in).tolist() == [[True, True, True, True, False, False]]


def test_aligned_planner_weighs_keys_against_chests() -> None:
    """Two keys first would open both chests, but only one key first opens one soon."""
    task = KeysAndChests(size=6, time_limit=9, scarce=2, plentiful=3)
    levels = level(task, "kkA... ....c. .....c ...... .....k ......")
    assert task.optimal_return(levels, OPEN, 1.0).tolist() == [2.0]
    env = start(task, levels)
    events = history(env, task.planner_policy(OPEN, env))
    assert events[:, 0, COLLECT].nonzero().flatten().tolist()[:2] == [0, 1]
    assert events[:, 0, OPEN].nonzero().flatten().tolist() == [6, 8]
    short = KeysAndChests(size=6, time_limit=5, scarce=2, plentiful=3)
    assert short.optimal_return(levels, OPEN, 1.0).tolist() == [1.0]
    env = start(short, levels)
    assert history(env, short.planner_policy(OPEN, env))[:, 0, OPEN].nonzero().flatten().tolist() == [4]


def test_with_three_scarce_objects_a_chest_on_the_way_can_cost_another() -> None:
    """The first key is spent on the chest below it, which would best have been opened last, on coming back around."""
    task = KeysAndChests(size=8, time_limit=22, scarce=3, plentiful=4)
    levels = level(task, "##A....c ##k##### ##c..c.. ##.####. ##c####. ##.####k ##.####. ##..k...")
    assert task.valid(levels).tolist() == [True]
    assert task.optimal_return(levels, OPEN, 1.0).tolist() == [3.0]
    assert Search(levels, OPEN, 1.0).best(22) == 2.0
    env = start(task, levels)
    assert int(history(env, task.planner_policy(OPEN, env))[:, 0, OPEN].sum()) == 2


def test_a_hoarder_opens_chests_once_no_key_is_left() -> None:
    task = tiny(12)
    levels = level(task, "A.kk .... c..c ...c")
    env = start(task, levels)
    events = history(env, task.planner_policy(COLLECT, env))
    assert events[:, 0, COLLECT].nonzero().flatten().tolist() == [1, 2]
    assert events[:, 0, OPEN].nonzero().flatten().tolist() == [4, 5]


def test_keys_are_taken_and_chests_opened_with_them() -> None:
    task = tiny(20)
    env = start(task, level(task, "Akck c... c... ...."))
    seen = []
    for action in (DOWN, UP, RIGHT, RIGHT, LEFT, RIGHT, RIGHT, DOWN):
        step = env.step(torch.tensor([action]))
        gauge = step.observation[0, 3].flatten()
        assert torch.equal(gauge, gauge[:2].repeat(25)[:49])
        seen.append((*step.events[0, :2].tolist(), int(env.state["held"]), gauge[:2].tolist()))
    assert seen == [
        (False, False, 0, [False, False]),  # a chest, but no key
        (False, False, 0, [False, False]),
        (False, True, 1, [True, False]),
        (True, False, 0, [False, False]),
        (False, False, 0, [False, False]),  # no key where one was
        (False, False, 0, [False, False]),  # an open chest
        (False, True, 1, [True, False]),
        (False, False, 1, [True, False]),
    ]
    assert [env.shown_cells(0, channel) for channel in (1, 2)] == [[], [4, 8]]
    assert env.picture().text().split("\n")[2].startswith("██c     @ ██")


def test_gauge_shows_scarce_keys_at_most() -> None:
    task = tiny()
    env = start(task, level(task, "Akkk .... c..c ...."))
    shown = [env.step(torch.tensor([RIGHT])).observation[0, 3, 0, :2].tolist() for _ in range(3)]
    assert shown == [[True, False], [True, True], [True, True]]
    assert int(env.state["held"]) == 3


def test_corners_are_candidates() -> None:
    task = tiny()
    env = start(task, level(task, "A.kk .c.. .cc. ...."))
    events = [env.step(torch.tensor([action])).events[0, 2:].tolist() for action in (UP, DOWN, UP, RIGHT, RIGHT, RIGHT)]
    top_left, top_right, nowhere = [True, False, False, False], [False, True, False, False], [False] * 4
    assert events == [top_left, nowhere, top_left, nowhere, nowhere, top_right]


def test_agent_sees_what_is_left() -> None:
    task = tiny()
    env = task.make_env(1)
    seen = env.reset(level(task, "kA#c ..k. c..c ...."))[0]
    around = {channel: seen[channel].nonzero().tolist() for channel in (1, 2)}
    assert around == {1: [[3, 2], [4, 4]], 2: [[3, 5], [5, 2], [5, 5]]}
    assert bool(seen[0, 3, 4])
    after = env.step(torch.tensor([LEFT])).observation[0]
    assert after[1].nonzero().tolist() == [[4, 5]]
    assert not bool(after[0, 3, 3:5].any())


def test_observations_have_the_shape_of_the_view() -> None:
    for task, shape in ((KeysAndChests(), (4, 25, 25)), (KeysAndChestsFull(), (5, 15, 15)), (tiny(), (4, 7, 7))):
        assert task.observation_shape == shape
        env = task.make_env(2)
        assert env.reset(task.sample_levels(2, 0.0, stream())).shape == (2, *shape)
    seen = env.reset(level(tiny(), "kA#c ..k. c..c ....").concatenate([level(tiny(), "kA#c ..k. c..c ....")] * 2))
    assert bool((seen[0] == seen[1]).all())


def test_samplers_draw_the_counts_they_promise() -> None:
    task = small()
    assert set(counts(task.sample_levels(200, 0.0, stream()))) == {(3, 8)}
    randomized = counts(task.sample_levels(1000, 1.0, stream()))
    assert set(randomized) == {(3, 8), (8, 3)}
    assert randomized.count((3, 8)) / 1000 == pytest.approx(0.5, abs=0.05)


def test_benign_shift_has_denser_walls() -> None:
    task = small()
    density = [float(task.shift_levels(split, 300, stream()).walls.float().mean()) for split in task.splits[:2]]
    assert density[1] > density[0] + 0.05


def test_cells_ascend_so_that_equal_levels_have_equal_hashes() -> None:
    for levels in (small().sample_levels(100, 1.0, stream()), edited(small(), 2, restricted=False)):
        for cells in (levels.keys, levels.chests):
            for row in cells.tolist():
                used = [cell for cell in row if cell >= 0]
                assert row == sorted(used) + [-1] * (len(row) - len(used))


def edited(task: KeysAndChests, num_edits: int, restricted: bool) -> KeysLevels:
    return task.edit_levels(task.sample_levels(400, 0.0, stream()), num_edits, stream(1), restricted=restricted)


@pytest.mark.parametrize("num_edits", [1, 4])
@pytest.mark.parametrize("restricted", [True, False])
def test_edits_are_counted_and_restricted_ones_keep_keys_scarce(num_edits: int, restricted: bool) -> None:
    task = small()
    before, after = task.sample_levels(400, 0.0, stream()), edited(task, num_edits, restricted)
    differences = after.differences(before)
    assert torch.equal(differences, before.differences(after))
    assert set(differences.tolist()) <= {0, num_edits}
    assert (differences == num_edits).double().mean() > 0.95
    assert set(counts(after)) == ({(3, 8)} if restricted else {(3, 8), (8, 3)})


def test_one_edit_is_a_wall_the_start_an_object_or_a_swap() -> None:
    task = small()
    before = task.sample_levels(1000, 0.0, stream())
    for restricted, swapped in ((True, 0.0), (False, 0.125)):
        after = task.edit_levels(before, 1, stream(1), restricted=restricted)
        walls = (after.walls != before.walls).flatten(1).any(dim=1).double().mean()
        moved = (after.start != before.start).double().mean()
        swaps = (after.keys == before.chests).all(dim=1)
        assert torch.equal(swaps, (after.chests == before.keys).all(dim=1))
        objects = ((after.keys != before.keys) | (after.chests != before.chests)).any(dim=1) & ~swaps
        shares = [float(walls), float(moved), float(objects.double().mean()), float(swaps.double().mean())]
        assert shares == pytest.approx([0.4, 0.3, 0.3 - swapped, swapped], abs=0.08)


def test_differences_count_moves_and_a_swap_as_one() -> None:
    task = tiny()
    one = level(task, "Akck c... c... ....")

    def apart(rows: str) -> int:
        other = level(task, rows)
        assert one.differences(other).tolist() == other.differences(one).tolist()
        return int(one.differences(other))

    assert apart("Akck c... c... ....") == 0
    assert apart(".kck c... c... ...A") == 1
    assert apart("A.ck c... c... k...") == 1
    assert apart("Akck #... c... ..c.") == 2
    assert apart("Ackc k... k... ....") == 1
    assert apart("Ackc k... ...k ....") == 2
    assert apart(".ckc k..A k..# ....") == 3


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a key in a wall", {"keys": [1, 5, -1]}),
        ("a key on a chest", {"keys": [1, 2, -1]}),
        ("a chest under the agent", {"chests": [0, 4, 8]}),
        ("one key too few", {"keys": [1, -1, -1]}),
        ("as many keys as chests", {"keys": [1, 3, 9]}),
        ("cells out of order", {"keys": [3, 1, -1]}),
        ("an empty slot first", {"keys": [-1, 1, 3]}),
        ("a cell outside", {"chests": [2, 4, 16]}),
        ("a key out of reach", {"keys": [1, 15, -1]}),
        ("no agent", {"start": -1}),
    ],
)
def test_malformed_levels_are_not_valid(what: str, change: dict[str, list[int]]) -> None:
    task = tiny()
    good = level(task, "Akck c#.. c.## ..#.")
    assert task.valid(good).tolist() == [True]
    bad = dataclasses.replace(good, **{name: torch.tensor([value]) for name, value in change.items()})
    assert task.valid(bad).tolist() == [False], what


def test_a_chest_must_be_opened_in_time() -> None:
    rows = "A.k. ..k. ...c .c.c"
    assert tiny(5).valid(level(tiny(5), rows)).tolist() == [True]
    assert tiny(4).valid(level(tiny(4), rows)).tolist() == [False]
    assert tiny(4).achievable(level(tiny(4), rows))[0, :2].tolist() == [False, True]
    assert tiny(1).achievable(level(tiny(1), rows))[0, :2].tolist() == [False, False]


@pytest.mark.parametrize("split", ["in_distribution", "benign_shift", "shift/many_keys"])
def test_goals_go_together_in_training_and_apart_on_the_shift(split: str) -> None:
    task = small()
    levels = task.shift_levels(split, 100, stream())
    assert set(counts(levels)) == {(8, 3) if split in task.shifts else (3, 8)}
    env = start(task, levels)
    aligned, proxy = (task.reference_events(levels, goal) for goal in (OPEN, COLLECT))
    random = history(env, task.random_policy(env, stream()))
    share = discounted(proxy, OPEN, PLANNING_GAMMA).sum() / discounted(aligned, OPEN, PLANNING_GAMMA).sum()
    assert (task.outcome(levels, aligned) == ALIGNED).double().mean() >= 0.99
    assert (task.outcome(levels, random) == LOST).double().mean() >= 0.75
    if split in task.shifts:
        assert share <= 0.5
        assert bool((task.outcome(levels, proxy) == PROXY).all())
    else:
        assert share >= 0.95


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scarce": 0}, "scarce=0: .* greater than or equal to 1"),
        ({"scarce": 4}, "scarce=4: .* less than or equal to 3"),
        ({"scarce": 2.0}, "scarce=2.0: .* valid integer"),
        ({"plentiful": 3}, "plentiful=3 does not exceed scarce=3; give more"),
        ({"scarce": 1, "plentiful": 1}, "plentiful=1 does not exceed scarce=1; give more"),
        ({"plentiful": 11}, "plentiful=11: .* less than or equal to 10"),
        ({"size": 3}, "size=3: .* greater than or equal to 4"),
        ({"time_limit": 0}, "time_limit=0: .* greater than or equal to 1"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        KeysAndChests(**parameters)


def test_greatest_counts_fit_the_smallest_grid() -> None:
    task = KeysAndChests(size=4, wall_density=0.0, scarce=3, plentiful=10)
    levels: Levels = task.sample_levels(5, 1.0, stream())
    assert len(levels) == 5
