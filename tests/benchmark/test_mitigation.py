from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from goalposts.benchmark.errors import RequestError, UndeclaredKnowledgeError
from goalposts.benchmark.plugins.context import Context
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation, sample_actions
from goalposts.benchmark.tasks.registry import make_task
from tests.toy import Toy, context, trainer, unreserved

ASKS: list[tuple[Callable[[Context], Any], frozenset[Knowledge]]] = [
    (lambda given: given.sample_levels(2), frozenset()),
    (lambda given: given.randomized_levels(2), frozenset({Knowledge.LEVEL_GENERATOR})),
    (lambda given: given.place_goals(unreserved(2)), frozenset({Knowledge.LEVEL_GENERATOR})),
    (lambda given: given.edit_levels(unreserved(2), 1), frozenset({Knowledge.LEVEL_EDITOR})),
    (
        lambda given: given.edit_levels(unreserved(2), 1, restricted=False),
        frozenset({Knowledge.LEVEL_EDITOR, Knowledge.LEVEL_GENERATOR}),
    ),
    (lambda given: given.candidate_goals, frozenset({Knowledge.CANDIDATE_REWARDS})),
    (lambda given: given.achievable(unreserved(2)), frozenset({Knowledge.CANDIDATE_REWARDS})),
    (lambda given: given.terminal_goals, frozenset({Knowledge.CANDIDATE_REWARDS})),
    (lambda given: given.proxy_goals, frozenset({Knowledge.PROXY_GOALS})),
    (lambda given: given.terminal_proxies, frozenset({Knowledge.PROXY_GOALS})),
    (lambda given: given.optimal_return(unreserved(2)), frozenset({Knowledge.PLANNER})),
]


@pytest.mark.parametrize(("ask", "needed"), ASKS)
def test_context_hands_over_nothing_undeclared(ask: Callable[[Context], Any], needed: frozenset[Knowledge]) -> None:
    assert ask(context(Toy(), *needed)) is not None
    for missing in needed:
        rest = frozenset(Knowledge) - {missing}
        with pytest.raises(UndeclaredKnowledgeError, match=missing.value) as caught:
            ask(context(Toy(), *rest))
        assert "uses" in str(caught.value)


def test_goals_are_named_by_their_role() -> None:
    given = context(Toy(), *Knowledge)
    assert given.candidate_goals == (0, 2)
    assert given.proxy_goals == (1,)
    assert given.num_goals == 3


def test_randomized_levels_come_from_the_randomized_sampler() -> None:
    class Tells(Toy):
        def sample_levels(self, num_levels: int, alpha: float, generator: torch.Generator) -> Any:
            return alpha

    given = context(Tells(), Knowledge.LEVEL_GENERATOR)
    assert (given.sample_levels(1), given.randomized_levels(1)) == (0.0, 1.0)


def test_actions_follow_the_logits() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    actions = sample_actions(logits, torch.Generator().manual_seed(0))
    assert actions.dtype == torch.int64
    torch.testing.assert_close(actions.bincount() / 20_000, torch.tensor([0.5, 0.3, 0.2]), atol=0.015, rtol=0)
    assert torch.equal(actions, sample_actions(logits, torch.Generator().manual_seed(0)))


class Tuned(Mitigation):
    def __init__(self, rate: float = 0.5, *, names: tuple[str, ...] = ("a",)) -> None:
        self.rate = rate

    def goals(self, levels: Any) -> Any:
        return super().goals(levels)


class Child(Tuned):
    pass


def test_hyperparameters_are_the_arguments_with_defaults() -> None:
    assert Mitigation.defaults() == {}
    assert Tuned.defaults() == Child.defaults() == {"rate": 0.5, "names": ("a",)}


@pytest.mark.parametrize(
    ("uses", "task", "lack"),
    [
        (Knowledge.LEVEL_EDITOR, {"has_editor": False}, "no level editor"),
        (Knowledge.PLANNER, {"certificate_class": "scripted"}, "no exact planner"),
        (Knowledge.LEVEL_GENERATOR, {"has_editor": False, "certificate_class": "scripted"}, None),
    ],
)
def test_what_a_task_lacks_is_named(uses: Knowledge, task: dict[str, Any], lack: str | None) -> None:
    mitigation = type("Needs", (Mitigation,), {"uses": frozenset({uses})})()
    lacking = type("Lacking", (Toy,), task)()
    assert mitigation.inapplicable(Toy()) is None
    assert mitigation.inapplicable(lacking) == lack
    if lack is not None:
        with pytest.raises(RequestError, match=f"'mine' does not apply to task 'toy', which has {lack}"):
            trainer(mitigation, lacking, name="mine")


@pytest.mark.parametrize(
    ("uses", "polled", "lack"),
    [
        (Knowledge.CANDIDATE_REWARDS, (2,), "no candidate goal that training can watch"),
        (Knowledge.CANDIDATE_REWARDS, (1,), None),
        (Knowledge.PROXY_GOALS, (1,), "a proxy that training cannot watch"),
        (Knowledge.PROXY_GOALS, (2,), None),
        (Knowledge.GOAL_INPUT, (1, 2), None),
    ],
)
def test_goals_that_training_cannot_watch_are_lacking(
    uses: Knowledge, polled: tuple[int, ...], lack: str | None
) -> None:
    mitigation = type("Needs", (Mitigation,), {"uses": frozenset({uses})})()
    assert [goal.role for goal in Toy.goals] == ["aligned", "proxy", "candidate"]
    assert mitigation.inapplicable(type("Polls", (Toy,), {"polled": polled})()) == lack


def test_the_context_tells_of_declared_goals_alone() -> None:
    task = make_task("corner")
    levels = task.sample_levels(64, 1.0, torch.Generator().manual_seed(0))
    whole = task.achievable(levels).any(dim=0)
    proxies = list(task.proxies)
    assert bool(whole[proxies].any())
    told = context(task, Knowledge.CANDIDATE_REWARDS)
    assert not bool(told.achievable(levels)[:, proxies].any())
    assert not any(told.terminal_goals[proxy] for proxy in proxies)
    both = context(task, Knowledge.CANDIDATE_REWARDS, Knowledge.PROXY_GOALS)
    assert torch.equal(both.achievable(levels), task.achievable(levels))
    assert both.terminal_goals == tuple(goal.terminal for goal in task.goals)


def test_overridden_hooks_are_known() -> None:
    assert [cls.overrides("goals") for cls in (Mitigation, Tuned, Child)] == [False, True, True]
    assert not Child.overrides("observe")
