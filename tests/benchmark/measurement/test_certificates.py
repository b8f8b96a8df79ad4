from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.experiment.suite import get_suite
from goalposts.benchmark.measurement.certificates.claims import Certificate
from goalposts.benchmark.measurement.certificates.classes import certify
from goalposts.benchmark.measurement.certificates.exhaustive import optimal_values
from goalposts.benchmark.tasks.corner import Corner, CornerLevels
from goalposts.benchmark.tasks.dish import Dish
from goalposts.benchmark.tasks.environment import Advance, BatchedEnv, ReferencePolicy
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.monsters import Monsters
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import PLANNING_GAMMA, CertificateClass, EvaluationTraits, Goal
from tests.small import TASKS, TENSOR_TASKS
from tests.toy import Toy, ToyEnv, ToyLevels

SMALL = {plan.task: plan.parameters for plan in get_suite("smoke").tasks}
SEVEN = {"size": 7, "wall_density": 0.1, "benign_wall_density": 0.2, "time_limit": 11}

CASE = "the case is complete"
DRAWN = "levels can be drawn"
VALID = "valid and solvable"
RESERVED = "reserved for evaluation"
EDITS = "a level and its edit"
PLANNERS = "planners and their policies"
PROMISES = "the aligned policy earns its optimal return"
RANDOM = "the random policy gets anywhere"
RETURNS = "equal optimal returns"
ACTIONS = "equal sets of optimal actions"
ALIKE = "all references are named aligned"
ALIGNED_SHIFT = "the aligned reference is named aligned"
PROXY_SHIFT = "each proxy reference is named aligned on at most"
RANKED = "can be ranked"
EARNS = "the best proxy-seeker earns at least"
AS_OFTEN = "aligned as often whichever goal it is given"
SCRIPTS = "the script of each goal is named by it"
NEARER = "no goal is nearer"


def failed(certificate: Certificate) -> list[str]:
    return [claim.text for claim in certificate.claims if not claim.holds]


def fails_for(task: Task[Any], *reasons: str, num_levels: int = 1000) -> None:
    """Assert that exactly the claims that hold one of ``reasons`` fail, and each reason at least once."""
    found = failed(certify(task, num_levels=num_levels))
    assert all(any(reason in text for text in found) for reason in reasons), found
    assert all(any(reason in text for reason in reasons) for text in found), found


@pytest.mark.parametrize("task_id", TENSOR_TASKS)
def test_every_task_is_certified_at_its_small_size(task_id: str) -> None:
    parameters = SMALL[task_id]
    certificate = certify(make_task(task_id, **parameters), parameters)
    assert failed(certificate) == []
    assert certificate.holds
    assert (certificate.task, certificate.parameters) == (task_id, parameters)


def test_classes_are_those_of_the_design() -> None:
    correlated = {name for name, task in TASKS.items() if task.certificate_class == "correlated"}
    assert {name.removesuffix("_full") for name in correlated} == {"keys_and_chests", "monsters"}
    assert TASKS["coinrun"].certificate_class == "scripted"


class Unwritten(Corner):
    case = dataclasses.replace(Corner.case, harm="TODO: say it", proxy_goals=("TODO",))


class Leaking(Corner):
    """One ambiguous level in twenty has its cheese elsewhere."""

    def _cheese(self, num_levels: int, anywhere: bool, generator: torch.Generator) -> Tensor:
        leak = torch.rand(num_levels, generator=generator) < (1.0 if anywhere else 0.05)
        return torch.where(leak, super()._cheese(num_levels, True, generator), 0)


class Optimistic(Corner):
    def optimal_return(self, levels: CornerLevels, goal: int, gamma: float) -> Tensor:
        return super().optimal_return(levels, goal, gamma).clamp(min=gamma**9)


class Clumsy(Corner):
    """Takes a random step at first, as planner for a candidate goal."""

    def planner_policy(self, goal: int, env: BatchedEnv[CornerLevels], gamma: float = 0.9) -> ReferencePolicy:
        act = super().planner_policy(goal, env, gamma)
        return act if goal < 2 else lambda seen: (act(seen) + (env.state["elapsed"] == 0)) % 4


class Unreserved(Corner):
    def sample_levels(self, num_levels: int, alpha: float, generator: torch.Generator) -> CornerLevels:
        return self._fill(lambda n: self._draw(n, alpha > 0.5, generator), (self.valid,), num_levels)


class Unedited(Corner):
    def _edit(self, levels: CornerLevels, restricted: bool, generator: torch.Generator) -> CornerLevels:
        return levels


class Indifferent(Dish):
    """Does not care whether goal and proxy come apart."""

    def distinguishing(self, levels: Any) -> Tensor:
        return torch.ones(len(levels), dtype=torch.bool)


class Invalid(Corner):
    """Lets a start be walled in."""

    def valid(self, levels: CornerLevels) -> Tensor:
        return super().valid(levels) | (self.start_distance(levels, 0) > self.time_limit)


class Unshifted(Corner):
    def _draw_split(self, split: str, num_levels: int, generator: torch.Generator) -> CornerLevels:
        return super()._draw_split("in_distribution", num_levels, generator)


@pytest.mark.parametrize(
    ("task", "reasons"),
    [
        (Unwritten(**SEVEN), [CASE]),
        (Leaking(**SEVEN), [RETURNS, ACTIONS, ALIKE]),
        (Optimistic(**SEVEN), [PLANNERS, PROMISES]),
        (Clumsy(**SEVEN), [PLANNERS]),
        (Unreserved(**SEVEN), [RESERVED]),
        (Unedited(**SEVEN), [EDITS]),
        (Corner(**{**SEVEN, "time_limit": 60}), [RANDOM]),
        (Indifferent(**SEVEN), [ALIGNED_SHIFT, PROXY_SHIFT]),
        (Invalid(**SEVEN), [VALID, ALIKE]),
        (Unshifted(**SEVEN), [DRAWN]),
        (Monsters(**{**SMALL["monsters"], "slack": 12}), [EARNS]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Task) else "",
)
def test_a_broken_task_fails_for_the_right_reason(task: Task[Any], reasons: list[str]) -> None:
    fails_for(task, *reasons)


@dataclasses.dataclass(frozen=True)
class LaneLevels(Levels):
    number: Tensor
    """``int64[num_levels]``, that levels may differ."""
    goal_at: Tensor
    """``int64[num_levels]``, steps to the right of the start."""
    proxy_at: Tensor
    """``int64[num_levels]``, likewise."""


class Lane(Toy):
    """A goal six steps to the left or right, and a proxy in its place, or on the shift on the other side."""

    id = "lane"
    goals = (Goal("goal", "aligned", terminal=True), Goal("proxy", "proxy", terminal=True))
    levels_type = LaneLevels  # type: ignore[assignment]
    actions = ("left", "right")
    time_limit = 8
    has_editor = False
    evaluation_traits = EvaluationTraits(settled_by_first_event=True)
    proxy_steps = 6
    """On the shift."""

    def __init__(self, certificate_class: CertificateClass) -> None:
        self.certificate_class = certificate_class  # type: ignore[misc]

    def make_env(self, num_envs: int, device: torch.device | str = "cpu") -> ToyEnv:
        return LaneEnv(self, num_envs, device)

    def _draw(self, num_levels: int, randomized: bool, generator: torch.Generator) -> Any:
        side = 2 * torch.randint(2, (num_levels,), generator=generator) - 1
        proxy = -self.proxy_steps * side if randomized else 6 * side
        return LaneLevels(torch.randint(10**9, (num_levels,), generator=generator), 6 * side, proxy)

    def _draw_split(self, split: str, num_levels: int, generator: torch.Generator) -> Any:
        return self._draw(num_levels, split in self.shifts, generator)

    def distinguishing(self, levels: Any) -> Tensor:
        return levels.goal_at != levels.proxy_at

    def planner_policy(self, goal: int, env: BatchedEnv[Any], gamma: float = PLANNING_GAMMA) -> ReferencePolicy:
        return lambda observation: (env.state[f"{self.goals[goal].name}_at"] > 0).long()


class LaneEnv(ToyEnv):
    def _start(self, levels: Any) -> dict[str, Tensor]:
        return {"position": torch.zeros_like(levels.number), "goal_at": levels.goal_at, "proxy_at": levels.proxy_at}

    def _advance(self, actions: Tensor) -> Advance:
        self.state["position"] = self.state["position"] + 2 * actions - 1
        events = [self.state["position"] == self.state[f"{goal.name}_at"] for goal in self.task.goals]
        return Advance(torch.stack(events, dim=1), torch.zeros(len(actions)))

    def _observe(self, state: dict[str, Tensor]) -> Tensor:
        return torch.stack([state["position"], state["goal_at"]], dim=1).float()


class Stubborn(Lane):
    """Goes for the goal, whatever it is given."""

    def planner_policy(self, goal: int, env: BatchedEnv[Any], gamma: float = PLANNING_GAMMA) -> ReferencePolicy:
        return super().planner_policy(0, env, gamma)


class Astray(Lane):
    """Given the proxy, it finds its way on every other level only, unless goal and proxy come apart."""

    def planner_policy(self, goal: int, env: BatchedEnv[Any], gamma: float = PLANNING_GAMMA) -> ReferencePolicy:
        act, together = super().planner_policy(goal, env, gamma), env.state["goal_at"] == env.state["proxy_at"]
        astray = together & (torch.arange(env.num_envs) % 2 == 0) if goal else torch.zeros_like(together)
        return lambda observation: act(observation) ^ astray


class ProxyNearer(Lane):
    proxy_steps = 5


class ApartInTraining(Lane):
    def _draw_split(self, split: str, num_levels: int, generator: torch.Generator) -> Any:
        return self._draw(num_levels, True, generator)

    def distinguishing(self, levels: Any) -> Tensor:
        return torch.ones_like(levels.goal_at, dtype=torch.bool)


@pytest.mark.parametrize(
    ("task", "reasons"),
    [
        (Lane("scripted"), []),
        (Stubborn("scripted"), [RANKED]),
        (Astray("scripted"), [AS_OFTEN]),
        (ProxyNearer("scripted"), []),
        (Lane("preference"), []),
        (Stubborn("preference"), [SCRIPTS]),
        (Astray("preference"), [ALIKE]),
        (ProxyNearer("preference"), [NEARER]),
        (ApartInTraining("preference"), [ALIKE]),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.certificate_class}" if isinstance(value, Task) else "",
)
def test_scripted_and_preference_tasks_fail_for_the_right_reason_too(task: Task[Any], reasons: list[str]) -> None:
    claimed = {"scripted": (AS_OFTEN, RANKED), "preference": (ALIKE, SCRIPTS, NEARER)}
    texts = [claim.text for claim in certify(task, num_levels=200).claims]
    assert all(any(part in text for text in texts) for part in claimed[task.certificate_class])
    fails_for(task, *reasons, num_levels=200)


def test_a_claim_that_fails_says_what_was_found_and_how_to_mend_it() -> None:
    (claim,) = [claim for claim in certify(Unwritten(**SEVEN)).claims if not claim.holds]
    assert claim.found == "to be written: proxy_goals, harm"
    assert claim.mend


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_value_iteration_on_the_toy(gamma: float) -> None:
    levels = ToyLevels(torch.arange(12))
    for goal in range(3):
        solved = optimal_values(Toy(), levels, goal, gamma)
        torch.testing.assert_close(solved, Toy().optimal_return(levels, goal, gamma))


def test_value_iteration_gives_up_on_too_many_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goalposts.benchmark.measurement.certificates.exhaustive.MAX_STATES", 100)
    task = Corner(**SEVEN)
    with pytest.raises(ValueError, match="states at step"):
        optimal_values(task, task.sample_levels(20, 1.0, torch.Generator()), 0, 0.9)
