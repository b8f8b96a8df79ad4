from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from goalposts._cli.watched import check_plugin
from goalposts.benchmark.errors import UndeclaredKnowledgeError
from goalposts.benchmark.experiment.conformance import (
    GAME,
    ITERATIONS,
    Conformance,
    default_tasks,
    difference,
    tiny_plan,
)
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation, ModuleSpec
from goalposts.benchmark.plugins.registry import LoadedPlugin
from goalposts.benchmark.plugins.rollout import Rollout
from tests.small import GAMES, TENSOR_TASKS


def plugin(uses: tuple[Knowledge, ...] = (), **members: Any) -> LoadedPlugin:
    """Return a mitigation named ``Faulty`` with these members."""
    cls = type("Faulty", (Mitigation,), {"uses": frozenset(uses), "__module__": __name__, **members})
    return LoadedPlugin("faulty", "faulty", cls, "")


def failed(subject: LoadedPlugin, task: str = "fraud", iterations: int = 4) -> tuple[str, str] | None:
    """Return the first check that fails, and what it says."""
    conformance = Conformance(subject, tiny_plan(task), iterations=iterations)
    for check in conformance.checks():
        try:
            check.run()
        except Exception as error:
            return check.name, conformance.explained(error)
    return None


def test_every_tensor_task_is_checked_and_a_game() -> None:
    assert sorted(default_tasks()) == sorted([*TENSOR_TASKS, GAME])
    assert GAME in GAMES
    for task in default_tasks():
        plan = tiny_plan(task)
        assert plan.training.env_steps == ITERATIONS * plan.training.steps_per_rollout
        assert not plan.training.bf16


def test_a_game_is_played_by_bytes() -> None:
    floats = plugin(observe=lambda self, observation, told: observation.float() / 255)
    assert failed(floats, GAME, 2) is None


@pytest.mark.parametrize(
    ("name", "task", "lack"),
    [
        ("goal_position_randomization", "fraud", "it has no fixed goal position"),
        ("accel", "coinrun", "it has no level editor"),
    ],
)
def test_what_a_task_lacks_is_no_fault_of_the_mitigation(name: str, task: str, lack: str) -> None:
    told: list[dict[str, Any]] = []
    check_plugin(name, [task], lambda **message: told.append(message))
    assert {"skipped": task, "reason": lack} in told
    assert not any("check" in message for message in told)


def test_who_cannot_say_whether_it_applies_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "raises.py"
    path.write_text(
        "from goalposts import Mitigation\n"
        "class Raises(Mitigation):\n"
        "    @classmethod\n"
        "    def inapplicable(cls, task):\n"
        "        raise KeyError('boom')\n"
    )
    told: list[dict[str, Any]] = []
    check_plugin(f"{path}:Raises", ["fraud"], lambda **message: told.append(message))
    (found,) = (message for message in told if message.get("problem"))
    assert (found["result"], found["problem"]) == ("hooks", "KeyError in 'inapplicable': 'boom'.")


class Counts(Mitigation):
    """Trains on two rollouts of three."""

    seen = 0

    def after_rollout(self, rollout: Rollout) -> None:
        self.seen += 1

    def sample_weights(self, rollout: Rollout) -> torch.Tensor:
        return torch.full_like(rollout.rewards, float(self.seen % 3 > 0))


COUNTS = {name: value for name, value in vars(Counts).items() if not name.startswith("__")}
drawn: list[int] = []


def remembers(self: Mitigation, rollout: Rollout) -> torch.Tensor:
    drawn.append(1)
    return torch.full_like(rollout.rewards, 1.0 + len(drawn))[:, :] * (torch.arange(64) % (1 + len(drawn)))


def raising_network(self: Mitigation, spec: ModuleSpec) -> Any:
    module = spec.build()
    embed = module.embed

    def raises_in_training(observation: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise ValueError("no gradients here")
        return embed(observation)

    module.embed = raises_in_training
    return module


def widens(self: Mitigation, context: Any) -> None:
    self.context = context
    type(self).uses = frozenset(Knowledge)


def helps_itself(self: Mitigation, context: Any) -> None:
    self.context = context
    context._uses = frozenset({Knowledge.PLANNER})


def asks_in_vain(self: Mitigation, rollout: Rollout) -> None:
    with contextlib.suppress(UndeclaredKnowledgeError):
        assert self.context.proxy_goals


def act_by_training(self: Mitigation, outputs: Any, generator: Any) -> Any:
    return torch.full((len(outputs["vf_preds"]),), int(hasattr(self, "trained"))), None


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "levels_invalid": (
        {"sample_levels": lambda self, n: type(self.context.sample_levels(n))(torch.zeros(n, 6, 26))},
        "hooks",
        "Hook 'sample_levels' of Faulty returned levels that are not valid",
    ),
    "observe_draws": (
        {"observe": lambda self, seen, told: seen + torch.rand(1)},
        "hooks",
        "Hook 'observe' of Faulty returned two inputs for one observation",
    ),
    "observation_changed": (
        {"observe": lambda self, seen, told: seen.mul_(0.5)},
        "hooks",
        "Hook 'observe' of Faulty changed the observation it was given",
    ),
    "levels_changed": (
        {"goals": lambda self, levels: next(iter(levels.tensors().values())).fill_(0)[:, 0, 0].long()},
        "hooks",
        "Hook 'goals' of Faulty changed its levels",
    ),
    "observe_mixes_rows": (
        {"observe": lambda self, seen, told: seen - seen.mean(dim=0)},
        "hooks",
        "Hook 'observe' of Faulty used other rows",
    ),
    "nan": (
        {"observe": lambda self, seen, told: seen / 0},
        "hooks",
        "Hook 'observe' of Faulty returned NaN or infinity",
    ),
    "raises": (
        {"after_rollout": lambda self, rollout: [][0]},
        "training",
        "Hook 'after_rollout' of Faulty raised IndexError: list index out of range",
    ),
    "shape": (
        {"sample_weights": lambda self, rollout: rollout.rewards[0]},
        "training",
        "Hook 'sample_weights' of Faulty returned float32[64] on cpu, not float32[8, 64] on cpu",
    ),
    "loss_is_nan": (
        {"extra_loss": lambda self, batch, outputs: outputs["vf_preds"].sum() * torch.nan},
        "training",
        "Hook 'extra_loss' of Faulty returned NaN or infinity: extra_loss is nan at environment step 512.",
    ),
    "nan_put_in_place": (
        {"after_rollout": lambda self, rollout: rollout.value_targets.fill_(torch.nan)},
        "training",
        "Hook 'after_rollout' of Faulty left value_targets with NaN or infinity",
    ),
    "gradient_is_nan_beside_hooks_that_are_looked_at": (
        {
            "extra_loss": lambda self, batch, outputs: (0 * outputs["vf_preds"]).sqrt().sum(),
            "after_rollout": lambda self, rollout: None,
            "observe": lambda self, seen, told: seen,
        },
        "training",
        "gradient_norm is nan at environment step 512. It overrides extra_loss.",
    ),
    "column_of_the_learner_s": (
        {"batch_columns": lambda self, rollout: {"advantages": rollout.rewards}},
        "training",
        "Hook 'batch_columns' of Faulty returned 'advantages', which is one of the learner's own columns",
    ),
    "gradient_is_nan": (
        {"extra_loss": lambda self, batch, outputs: (0 * outputs["vf_preds"]).sqrt().sum()},
        "training",
        "gradient_norm is nan at environment step 512. It overrides extra_loss.",
    ),
    "network_raises": (
        {"build_module": raising_network},
        "training",
        "ValueError in 'raises_in_training': no gradients here. It overrides build_module.",
    ),
    "global_random_numbers": (
        {"sample_weights": lambda self, rollout: torch.rand(rollout.rewards.shape)},
        "seed",
        "Two runs of Faulty with the same seed differ in ['module']",
    ),
    "state_outside_the_instance": ({"sample_weights": remembers}, "seed", "keep nothing outside the instance"),
    "state_left_out": (COUNTS, "resume", "Hook 'state_dict' of Faulty leaves something out: a resumed run differs in"),
    "state_not_taken_over": (
        {**COUNTS, "state_dict": lambda self: {"counts": [self.seen]}},
        "resume",
        "Hook 'load_state_dict' of Faulty did not restore state['counts'][0]",
    ),
    "acts_otherwise_once_loaded": (
        {"after_rollout": lambda self, rollout: setattr(self, "trained", True), "act": act_by_training},
        "evaluation",
        "Hook 'act' of Faulty chooses other actions",
    ),
    "undeclared": (
        {"sample_levels": lambda self, n: self.context.randomized_levels(n)},
        "hooks",
        "Hook 'sample_levels' of Faulty failed: The mitigation asked for undeclared knowledge; add level_generator",
    ),
    "asks_in_vain": (
        {"after_rollout": asks_in_vain},
        "knowledge",
        "Faulty asked its context for proxy_goals, which it does not declare, and went on without",
    ),
    "declares_later": ({"setup": widens}, "knowledge", "Faulty changed its 'uses' while it ran"),
    "helps_itself": ({"setup": helps_itself}, "knowledge", "The context of Faulty hands over planner"),
}


@pytest.mark.parametrize(("members", "check", "line"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_found_and_named_in_one_line(members: dict[str, Any], check: str, line: str) -> None:
    found = failed(plugin(**members))
    assert found is not None
    assert found[0] == check
    assert line in found[1]
    assert "\n" not in found[1]


def test_a_setup_that_forgets_its_parent_s_has_the_context_all_the_same() -> None:
    assert failed(plugin(setup=lambda self, context: None)) is None


def test_what_is_kept_in_the_state_conforms() -> None:
    whole: dict[str, Callable[..., Any]] = {
        **COUNTS,
        "state_dict": lambda self: {"seen": self.seen},
        "load_state_dict": lambda self, state: setattr(self, "seen", state["seen"]),
    }
    assert failed(plugin(**whole)) is None


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ({}, {}, None),
        ({"a": 1}, {"a": 2}, "['a']"),
        ({"a": 1}, {"b": 1}, " keys ['a'] and ['b']"),
        ({"a": (1, 2)}, {"a": [1, 2]}, None),
        ({"a": (1, 2)}, {"a": [1, 3]}, "['a'][1]"),
        ({"a": [1]}, {"a": [1, 3]}, "['a'] lengths 1 and 2"),
        ({"a": torch.tensor([1.0, torch.nan])}, {"a": torch.tensor([1.0, torch.nan])}, None),
        ({"a": torch.tensor([1.0])}, {"a": torch.tensor([1.0 + 1e-7])}, "['a']"),
        ({"a": torch.tensor([1.0])}, {"a": torch.tensor([1.0]).double()}, "['a']"),
        ({"a": torch.tensor([1.0])}, {"a": 1.0}, "['a']"),
        ({"a": torch.tensor([1.0])}, {"a": torch.tensor([1.0, 1.0])}, "['a']"),
        ({"a": float("nan")}, {"a": float("nan")}, None),
        ({"a": None}, {"a": 0}, "['a']"),
    ],
)
def test_the_first_difference_is_named(first: Any, second: Any, where: str | None) -> None:
    assert difference(first, second) == where
