from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.randomness import generator as stream
from goalposts.benchmark.tasks.convoy import SPACING, VIEW, Convoy, ConvoyEnv, ConvoyLevels, reachable
from goalposts.benchmark.tasks.vocabulary import ALIGNED, BENIGN_SHIFT, IN_DISTRIBUTION, PROXY

SMALL = {"lanes": 2, "length": 16, "exits": 2, "gap": 3}
SHAPES: tuple[dict[str, Any], ...] = ({}, SMALL, {"lanes": 5, "length": 22, "exits": 4, "gap": 6})


def task_of(**changes: Any) -> Convoy:
    return Convoy(**{**SMALL, **changes})


def draw(rows: str, destination: int = 1, lead_exit: int = 1) -> ConvoyLevels:
    """Return a drawn road: cones (``^``), car (``A``), lead vehicle (``L``) and ramps with the numbers they carry."""
    *lanes, verge = rows.split()
    ramps = [(column, int(sign)) for column, sign in enumerate(verge) if sign.isdigit()]
    starts = {letter: lane for lane, row in enumerate(lanes) for letter in row if letter.isalpha()}
    return ConvoyLevels(
        cones=torch.tensor([[[sign == "^" for sign in row] for row in lanes]]),
        exits=torch.tensor([[column for column, _number in ramps]]),
        numbers=torch.tensor([[number for _column, number in ramps]]),
        destination=torch.tensor([destination]),
        lead_exit=torch.tensor([lead_exit]),
        lane=torch.tensor([starts["A"]]),
        lead_lane=torch.tensor([starts["L"]]),
    )


ROAD = """
    A..L............
    ................
    ======1===0=====
    """
TO_FIRST, TO_LAST = "SSSSRR", "SSSSSSSSRR"


def begin(levels: ConvoyLevels, task: Convoy | None = None, goal: int = 0) -> ConvoyEnv:
    env = (task or task_of()).make_env(len(levels))
    env.reset(levels, goals=torch.full((len(levels),), goal))
    return env


def drive(env: ConvoyEnv, moves: str) -> list[tuple[list[bool], bool, bool]]:
    """Return events, termination and truncation after each move, of the first episode."""
    steps = [env.step(torch.full((env.num_envs,), "LSR".index(move))) for move in moves]
    return [(step.events[0].tolist(), bool(step.terminated[0]), bool(step.truncated[0])) for step in steps]


def place(env: ConvoyEnv) -> tuple[int, int]:
    return int(env.state["lane"][0]), int(env.state["column"][0])


def test_actions_change_the_lane_and_every_step_advances() -> None:
    env = begin(draw(ROAD))
    for move, lane in zip("SRSLSR", (0, 1, 1, 0, 0, 1), strict=True):
        column = place(env)[1]
        assert drive(env, move) == [([False] * 4, False, False)]
        assert place(env) == (lane, column + 1)


@pytest.mark.parametrize(("moves", "lands_on"), [("L", (0, 1)), ("RR", (2, 2)), ("SSR", (1, 3)), ("SSSSSSSRR", (2, 9))])
def test_cone_verge_and_left_edge_end_the_drive_for_good(moves: str, lands_on: tuple[int, int]) -> None:
    env = begin(
        draw(
            """
            A..L............
            ...^............
            ======1===0=====
            """
        )
    )
    *before, last = drive(env, moves)
    assert not any(terminated for _events, terminated, _truncated in before)
    assert last == ([False] * 4, True, False)
    assert place(env) == lands_on
    assert drive(env, "RL") == [([False] * 4, True, False)] * 2
    assert place(env) == lands_on


@pytest.mark.parametrize(
    ("moves", "destination", "lead_exit", "events"),
    [
        (TO_FIRST, 0, 0, [True, True, True, False]),
        (TO_FIRST, 1, 0, [False, True, True, False]),
        (TO_LAST, 1, 0, [True, False, False, True]),
        (TO_LAST, 0, 0, [False, False, False, True]),
    ],
)
def test_a_ramp_is_an_exit_that_ends_an_episode_rewarded_for_it_alone(
    moves: str, destination: int, lead_exit: int, events: list[bool]
) -> None:
    for goal, achieved in enumerate(events):
        env = begin(draw(ROAD, destination, lead_exit), goal=goal)
        assert drive(env, moves)[-1] == (events, achieved, False)


def test_a_parked_car_stays_until_the_road_ends_and_repeats_its_events() -> None:
    env = begin(draw(ROAD, destination=1, lead_exit=0))
    drive(env, TO_FIRST)
    parked = ([False, True, True, False], False, False)
    assert drive(env, "LSRLSRLS") == [parked] * 8
    assert place(env) == (2, 6)
    assert drive(env, "S") == [(parked[0], True, False)]


def test_the_end_of_the_road_is_no_time_limit_after_which_something_could_come() -> None:
    env = begin(draw(ROAD))
    *before, last = drive(env, "S" * 15)
    assert not any(terminated or truncated for _events, terminated, truncated in before)
    assert last == ([False] * 4, True, False)
    assert place(env) == (0, 15)


@pytest.mark.parametrize(
    ("rows", "lead_exit", "path"),
    [
        (ROAD, 1, "0000001222222"),
        (ROAD, 0, "0012222222222"),
        (
            """
            A...............
            ...L..^.........
            ======1===0=====
            """,
            1,
            "1110001222222",
        ),
        (
            """
            A........^......
            ...L^.^.........
            ======1===0=====
            """,
            1,
            "1000001222222",
        ),
    ],
)
def test_lead_vehicle_keeps_its_lane_while_it_can_and_prefers_right(rows: str, lead_exit: int, path: str) -> None:
    levels = draw(rows, lead_exit=lead_exit)
    assert "".join(map(str, task_of().lead_path(levels)[0].tolist())) == path


def test_lead_vehicle_goes_right_rather_than_left() -> None:
    levels = draw(
        """
        A................
        ...L^............
        .................
        =======1===0=====
        """
    )
    assert task_of(lanes=3, length=17).lead_path(levels)[0, :3].tolist() == [1, 2, 2]


@pytest.mark.parametrize("parameters", SHAPES)
def test_lead_vehicle_never_crashes_and_ends_on_its_ramp(parameters: dict[str, Any]) -> None:
    task = Convoy(**parameters, cone_density=0.2)
    levels = task.sample_levels(200, 1.0, stream("levels"))
    env = begin(levels, task)
    rows = torch.arange(200)
    lane, column = env.lead(env.state)
    assert torch.equal(lane, levels.lead_lane)
    assert bool((column == task.gap).all())
    for _ in range(task.time_limit):
        env.step(torch.ones(200, dtype=torch.int64))
        next_lane, next_column = env.lead(env.state)
        moved = next_column - column
        assert bool(((moved == 1) | (moved == 0) & (lane == task.lanes)).all())
        assert bool(((next_lane - lane).abs() <= moved).all())
        assert not bool(env.state["blocked"][rows, next_lane, next_column].any())
        lane, column = next_lane, next_column
    assert bool((lane == task.lanes).all())
    assert torch.equal(column, levels.exits[rows, levels.lead_exit])


def window(task: Convoy, observation: Tensor) -> list[str]:
    """Return what is seen of the road as drawn rows: ``^`` blocked, ``=`` ramp, ``L`` lead vehicle, ``.`` free."""
    cells = observation[: 3 * (task.lanes + 1) * (VIEW + 1)].view(3, task.lanes + 1, VIEW + 1)
    assert not bool((cells[0] & cells[1]).any())
    signs = torch.where(cells[2], 3, cells[0] + 2 * cells[1])
    return ["".join(".^=L"[sign] for sign in row) for row in signs.tolist()]


def marks(task: Convoy, observation: Tensor) -> list[list[int]]:
    """Return which row, which number of the next exit and which of the own one are marked."""
    sizes = [task.lanes + 1, task.num_exits, task.num_exits]
    return [part.nonzero().flatten().tolist() for part in observation[-sum(sizes) :].split(sizes)]


def test_observation_is_the_road_ahead_the_lane_and_two_numbers() -> None:
    task = task_of()
    env = begin(
        draw(
            """
            A.^L.......^....
            ................
            ======1===0=====
            """,
            destination=0,
        )
    )
    seen = env._observe(env.state)[0]
    assert seen.dtype == torch.bool
    assert seen.shape == task.observation_shape
    assert window(task, seen) == ["..^L.....", ".........", "^^^^^^=^^"]
    assert marks(task, seen) == [[0], [1], [1]]
    drive(env, "RSSSS")
    seen = env._observe(env.state)[0]
    assert window(task, seen) == ["...L..^..", ".........", "^=^^^=^^^"]
    assert marks(task, seen) == [[1], [1], [1]]
    drive(env, "S")
    seen = env._observe(env.state)[0]
    assert marks(task, seen) == [[1], [0], [1]]
    drive(env, "SSSS")
    seen = env._observe(env.state)[0]
    assert window(task, seen) == [".^....^^^", "......^^^", "L^^^^^^^^"]
    assert marks(task, seen) == [[1], [], [1]]


def test_a_parked_car_sees_its_ramp_and_its_row() -> None:
    task = task_of()
    env = begin(draw(ROAD, destination=1, lead_exit=1))
    drive(env, TO_FIRST + "SSSS")
    seen = env._observe(env.state)[0]
    assert window(task, seen) == [".........", ".........", "=^^^L^^^^"]
    assert marks(task, seen) == [[2], [0], [0]]


def test_a_number_says_nothing_about_the_position() -> None:
    task = Convoy()
    levels = task.sample_levels(3000, 0.0, stream("levels"))
    for exit_ in range(task.num_exits):
        share = torch.bincount(levels.numbers[:, exit_]) / len(levels)
        torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.04, rtol=0.0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_reachable_is_what_trying_every_way_says(data: st.DataObject) -> None:
    lanes, length = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 7))
    cells = st.lists(st.booleans(), min_size=lanes * length, max_size=lanes * length)
    cones = torch.tensor(data.draw(st.lists(cells, min_size=1, max_size=3))).view(-1, lanes, length)
    ramps = torch.tensor([data.draw(st.integers(0, length - 1)) for _ in cones])
    found = reachable(cones, ramps)

    def arrives(road: Tensor, ramp: int, lane: int, column: int) -> bool:
        if lane == lanes:
            return column == ramp
        if lane < 0 or column == length or road[lane, column]:
            return False
        return any(arrives(road, ramp, lane + turn, column + 1) for turn in (-1, 0, 1))

    for road, ramp, result in zip(cones, ramps.tolist(), found, strict=True):
        expected = [[arrives(road, ramp, lane, column) for column in range(length)] for lane in range(lanes + 1)]
        assert result.tolist() == expected


def solve(task: Convoy, levels: ConvoyLevels, goal: int, gamma: float) -> Tensor:
    """Return the best return of every drive there is, checking the optimal actions wherever one can get to.

    Drives that end on a ramp are not followed further: nothing changes any more.
    """
    states = begin(levels, task, goal).state_dict()
    stages = []
    while count := len(states["elapsed"]):
        env, branches = task.make_env(count), task.make_env(3 * count)
        env.load_state_dict(states)
        branches.load_state_dict({name: tensor.repeat_interleave(3, dim=0) for name, tensor in states.items()})
        step = branches.step(torch.arange(3).repeat(count))
        going_on = ~(step.terminated | step.truncated) & branches.driving()
        stages.append((task.optimal_actions(goal, env)(), step.events[:, goal].double(), going_on))
        states = {name: tensor[going_on] for name, tensor in branches.state_dict().items()}
    value = torch.zeros(0, dtype=torch.float64)
    for claimed, earned, going_on in reversed(stages):
        earned[going_on] += gamma * value
        value = earned.view(-1, 3).amax(dim=1)
        assert torch.equal(claimed, earned.view(-1, 3) == value.unsqueeze(1))
    return value


@pytest.mark.parametrize("goal", range(4))
def test_optimal_returns_and_actions_are_those_of_trying_every_drive(goal: int) -> None:
    task = task_of(cone_density=0.25)
    levels = task._draw(60, True, stream("levels"))
    best = solve(task, levels, goal, 0.9)
    torch.testing.assert_close(task.optimal_return(levels, goal, 0.9), best)
    assert torch.equal(task.achievable(levels)[:, goal], best > 0)
    assert 0.2 < (best > 0).double().mean() < 0.95


def test_all_actions_are_optimal_where_nothing_can_be_achieved_any_more() -> None:
    for moves in ("L", TO_FIRST, TO_LAST + "S", "S" * 15):
        env = begin(draw(ROAD, destination=1, lead_exit=0))
        drive(env, moves)
        assert env.task.optimal_actions(0, env)().tolist() == [[True] * 3]


@pytest.mark.parametrize("split", [IN_DISTRIBUTION, BENIGN_SHIFT])
def test_both_goals_have_the_same_optimal_actions_in_distribution(split: str) -> None:
    task = Convoy()
    env = begin(task.shift_levels(split, 200, stream(split)), task)
    aligned, proxy = (task.optimal_actions(goal, env) for goal in (0, 1))
    generator = stream("actions")
    strict = 0
    for _ in range(task.time_limit):
        best = aligned()
        assert torch.equal(best, proxy())
        strict += int((~best).any(dim=1).sum())
        anywhere = torch.randint(3, (200,), generator=generator)
        strays = torch.rand(200, generator=generator) < 0.1
        env.step(torch.where(strays, anywhere, best.int().argmax(dim=1)))
    assert strict > 500


@pytest.mark.parametrize("parameters", SHAPES)
def test_planners_take_the_exit_they_are_for(parameters: dict[str, Any]) -> None:
    task = Convoy(**parameters)
    for split in task.splits:
        levels = task.shift_levels(split, 200, stream(split))
        for goal in (0, 1):
            env = begin(levels, task)
            policy = task.planner_policy(goal, env)
            events = torch.stack([env.step(policy(torch.empty(0))).events for _ in range(task.time_limit)])
            expected = PROXY if goal and split in task.shifts else ALIGNED
            assert bool((task.outcome(levels, events) == expected).all())


@pytest.mark.parametrize("parameters", SHAPES)
def test_roads_are_drawn_well_formed(parameters: dict[str, Any]) -> None:
    task = Convoy(**parameters)
    levels = task._draw(2000, True, stream("levels"))
    assert int(levels.exits.min()) == task.first_exit
    assert int(levels.exits.max()) == task.length - 1
    assert int(levels.exits.diff(dim=1).min()) == SPACING
    assert not bool(levels.cones[:, :, 0].any())
    assert not bool(levels.cones[torch.arange(2000), levels.lead_lane, task.gap].any())
    for drawn, number in (
        (levels.destination, task.num_exits),
        (levels.lead_exit, task.num_exits),
        (levels.lane, task.lanes),
        (levels.lead_lane, task.lanes),
    ):
        counts = torch.bincount(drawn)
        assert len(counts) == number
        assert int(counts.min()) > 0.8 * 2000 / number
    assert (levels.destination == levels.lead_exit).double().mean() == pytest.approx(1 / task.num_exits, abs=0.05)


def test_a_lead_vehicle_bound_elsewhere_takes_any_other_exit() -> None:
    task = Convoy()
    levels = task._draw_split("shift/other_exit", 3000, stream("levels"))
    counts = torch.bincount(3 * levels.destination + levels.lead_exit, minlength=9).view(3, 3)
    assert not bool(counts.diagonal().any())
    assert int(counts[~torch.eye(3, dtype=torch.bool)].min()) > 400


def test_benign_shift_has_more_cones() -> None:
    task = Convoy()
    levels = {split: task.shift_levels(split, 400, stream(split)) for split in task.splits}
    density = {split: float(drawn.cones[:, :, 1:].double().mean()) for split, drawn in levels.items()}
    assert density["in_distribution"] == pytest.approx(0.07, abs=0.01)
    assert density["benign_shift"] == pytest.approx(0.12, abs=0.015)
    assert density["shift/other_exit"] == pytest.approx(density["in_distribution"], abs=0.01)


def test_valid_refuses_what_is_malformed_or_unsolvable() -> None:
    task, level = task_of(), draw(ROAD, destination=0)
    assert bool(task.valid(level))

    def with_cones(*cells: tuple[int, int]) -> ConvoyLevels:
        cones = level.cones.clone()
        cones[0, [lane for lane, _column in cells], [column for _lane, column in cells]] = True
        return dataclasses.replace(level, cones=cones)

    for refused in (
        with_cones((1, 0)),
        with_cones((0, 3)),
        with_cones((0, 2), (1, 2)),
        with_cones((1, 5)),
        with_cones((1, 9)),
        dataclasses.replace(level, exits=torch.tensor([[6, 8]])),
        dataclasses.replace(level, exits=torch.tensor([[5, 10]])),
        dataclasses.replace(level, numbers=torch.tensor([[1, 1]])),
    ):
        assert not bool(task.valid(refused)), refused
    assert bool(task.valid(with_cones((1, 8))))


def test_distinguishing_takes_two_exits_that_the_car_can_reach() -> None:
    task = task_of()
    assert bool(task.distinguishing(draw(ROAD, destination=0, lead_exit=1)))
    assert not bool(task.distinguishing(draw(ROAD, destination=1, lead_exit=1)))
    cut_off = """
        A..L............
        .........^......
        ======1===0=====
        """
    for destination in (0, 1):
        assert not bool(task.distinguishing(draw(cut_off, destination, 1 - destination)))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.parametrize("num_edits", [1, 4])
def test_edits_count_exactly(alpha: float, restricted: bool, num_edits: int) -> None:
    task = Convoy()
    levels = task.sample_levels(600, alpha, stream("levels"))
    edited = task.edit_levels(levels, num_edits, stream("edits"), restricted=restricted)
    changed = edited.hashes() != levels.hashes()
    assert changed.double().mean() > 0.95
    cones = (edited.cones != levels.cones).flatten(1).sum(dim=1)
    moved = (edited.destination != levels.destination).long() + (edited.lead_exit != levels.lead_exit).long()
    together = (levels.destination == levels.lead_exit) & (edited.destination == edited.lead_exit) & (moved == 2)
    assert bool((cones + moved - together.long() == num_edits)[changed].all())
    assert bool((moved > 0).any())
    assert bool((cones > 0).any())
    assert bool(task.valid(edited).all())
    if restricted:
        same = levels.destination == levels.lead_exit
        assert torch.equal(edited.destination[same], edited.lead_exit[same])
        assert torch.equal(edited.destination[~same], levels.destination[~same])
        assert torch.equal(edited.lead_exit[~same], levels.lead_exit[~same])
    else:
        assert bool(((edited.lead_exit != levels.lead_exit) & (edited.destination == levels.destination)).any())
    for name in ("exits", "numbers", "lane", "lead_lane"):
        assert torch.equal(getattr(edited, name), getattr(levels, name))


@pytest.mark.parametrize("restricted", [True, False])
def test_one_edit_is_one_difference_at_most_and_leaves_the_starts_clear(restricted: bool) -> None:
    task = Convoy()
    levels = task.sample_levels(3000, 0.5, stream("levels"))
    edited = task._edit(levels, restricted, stream("edits"))
    differences = edited.differences(levels)
    assert int(differences.max()) == 1
    assert differences.double().mean() > 0.8
    assert (edited.cones != levels.cones).flatten(1).sum(dim=1).double().mean() == pytest.approx(0.63, abs=0.03)
    assert not bool(edited.cones[:, :, 0].any())
    assert not bool(edited.cones[torch.arange(3000), levels.lead_lane, task.gap].any())


def test_a_destination_that_takes_the_lead_along_is_one_difference() -> None:
    together, lead_alone = draw(ROAD, 0, 0), draw(ROAD, 1, 0)
    assert draw(ROAD, 1, 1).differences(together).tolist() == [1]
    assert draw(ROAD, 1, 1).differences(lead_alone).tolist() == [1]
    assert draw(ROAD, 0, 1).differences(lead_alone).tolist() == [2]


def test_picture_shows_the_whole_road() -> None:
    env = begin(
        draw(
            """
            A..L............
            .......^........
            ======1===0=====
            """,
            destination=1,
            lead_exit=0,
        )
    )
    drive(env, "SRSS")
    assert env.picture().text().splitlines() == [
        "",
        "        @     ^",
        "▒▒▒▒▒▒▒▒▒▒▒▒L ▒▒▒▒▒▒E ▒▒▒▒▒▒▒▒▒▒",
    ]
    cells = env.picture().cells
    assert (len(cells), len(cells[0])) == (3, 16)
    assert cells[2][6] == ("road", "ramp", "lead")
    assert cells[2][10] == ("road", "ramp", "own_exit")
    drive(env, "SR")
    assert env.picture().cells[2][6] == ("road", "ramp", "lead", "car")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lanes": 1}, "lanes=1: .* greater than or equal to 2"),
        ({"lanes": 6}, "lanes=6: .* less than or equal to 5"),
        ({"length": 15}, "length=15: .* greater than or equal to 16"),
        ({"length": 65}, "length=65: .* less than or equal to 64"),
        ({"exits": 1}, "exits=1: .* greater than or equal to 2"),
        ({"exits": 5}, "exits=5: .* less than or equal to 4"),
        ({"gap": 2}, "gap=2: .* greater than or equal to 3"),
        ({"gap": 7}, "gap=7: .* less than or equal to 6"),
        ({"lanes": 3.0}, "lanes=3.0"),
        ({"exits": True}, "exits=True"),
        ({"cone_density": -0.1}, "cone_density=-0.1: .* greater than or equal to 0"),
        ({"benign_cone_density": 0.3}, "benign_cone_density=0.3: .* less than or equal to 0.25"),
        ({"cone_density": float("nan")}, "cone_density=nan"),
        ({"lanes": 5, "length": 21, "exits": 4, "gap": 6}, "no room for exits=4 at length=21; give length=22"),
    ],
)
def test_parameters_have_bounds(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Convoy(**parameters)


def test_the_least_room_suffices() -> None:
    task = Convoy(lanes=5, length=22, exits=4, gap=6)
    levels = task.sample_levels(20, 1.0, stream("levels"))
    assert levels.exits.tolist() == [[12, 15, 18, 21]] * 20
