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
from goalposts.benchmark.tasks.environment import BatchedEnv, ReferencePolicy
from goalposts.benchmark.tasks.monsters import Monsters
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task
from tests.small import TASKS, TENSOR_TASKS
from tests.toy import Toy, ToyLevels

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
