"""What every registered mitigation owes; a new one is picked up by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import RequestError, UndeclaredKnowledgeError
from goalposts.benchmark.experiment.conformance import (
    FEW_ITERATIONS,
    ITERATIONS,
    Conformance,
    default_tasks,
    tiny_plan,
)
from goalposts.benchmark.loading import MITIGATIONS, registered
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task
from tests.small import EVERY_RUN
from tests.toy import Toy, ToyEnv, context, trainer


def runs() -> Iterator[Any]:
    """Yield mitigations with tasks and iterations; ``make test`` checks all of them on a grid and on decisions.

    On the grid it trains those that replay levels for as long as they need to go through their phases.
    """
    for name in sorted(registered(MITIGATIONS)):
        replays = "buffer_size" in load_plugin(name).cls.defaults()
        for task_id in default_tasks():
            often = name == "none" or task_id in EVERY_RUN
            yield pytest.param(name, task_id, FEW_ITERATIONS, marks=[] if often else pytest.mark.slow)
        yield pytest.param(name, "corner", ITERATIONS, marks=[] if replays else pytest.mark.slow)


@pytest.fixture(params=sorted(registered(MITIGATIONS)))
def cls(request: pytest.FixtureRequest) -> type[Mitigation]:
    return load_plugin(request.param).cls


def test_registered() -> None:
    assert {
        "none", "domain_randomization", "goal_position_randomization", "visual_randomization", "accel",
        "goal_told", "goal_multi", "goal_hindsight", "proxy_erasure", "ensemble", "ask_for_help",
    } <= set(registered(MITIGATIONS))  # fmt: skip


def test_declares_what_it_is(cls: type[Mitigation]) -> None:
    assert issubclass(cls, Mitigation)
    assert cls.uses <= set(Knowledge)
    assert all([cls.version, cls.author, cls.licence, cls.__doc__])
    assert json.loads(json.dumps(cls.defaults())) == cls.defaults()
    cls(**cls.defaults())


def test_context_refuses_what_is_not_declared(cls: type[Mitigation]) -> None:
    task = make_task("corner", size=5)
    levels = task.sample_levels(2, 0.0, torch.Generator().manual_seed(0))
    given = context(task, *cls.uses)
    asks = {
        Knowledge.LEVEL_GENERATOR: lambda: (given.randomized_levels(2), given.place_goals(levels)),
        Knowledge.LEVEL_EDITOR: lambda: given.edit_levels(levels, 1),
        Knowledge.CANDIDATE_REWARDS: lambda: given.candidate_goals,
        Knowledge.PROXY_GOALS: lambda: given.proxy_goals,
        Knowledge.PLANNER: lambda: given.optimal_return(levels),
    }
    for knowledge, ask in asks.items():
        if knowledge in cls.uses:
            ask()
        else:
            with pytest.raises(UndeclaredKnowledgeError):
                ask()


@pytest.mark.parametrize(("name", "task_id", "iterations"), list(runs()))
def test_conforms_or_is_refused(name: str, task_id: str, iterations: int) -> None:
    plugin = load_plugin(name)
    conformance = Conformance(plugin, tiny_plan(task_id), iterations=iterations)
    if plugin.cls.inapplicable(conformance.task) is not None:
        with pytest.raises(RequestError, match=f"does not apply to task '{task_id}'") as caught:
            conformance.trainer()
        assert "\n" not in str(caught.value)
        return
    for check in conformance.checks():
        check.run()


class Picture(Toy):
    """The toy as a picture of bytes."""

    observation_shape = (3, 6, 7)

    def make_env(self, num_envs: int, device: torch.device | str = "cpu") -> ToyEnv:
        return PictureEnv(self, num_envs, device)


class PictureEnv(ToyEnv):
    def _observe(self, state: dict[str, Tensor]) -> Tensor:
        shades = torch.stack([state["number"], 40 * state["elapsed"], state["number"] // 4], dim=1) % 256
        return shades.to(torch.uint8).view(-1, 3, 1, 1).expand(-1, 3, 6, 7)


def test_trains_on_pictures_of_bytes(cls: type[Mitigation]) -> None:
    subject = trainer(cls(), Picture(), network="conv")
    rollout = subject.collector.collect()
    assert subject.hooks.observe(rollout.observations[0], rollout.told_goals[0]).dtype == torch.uint8
    for _ in range(3):
        subject.iterate()
    actions, _ = subject.agent("sampled").policy(torch.Generator().manual_seed(0))(rollout.observations[0])
    assert actions.shape == (8,)
