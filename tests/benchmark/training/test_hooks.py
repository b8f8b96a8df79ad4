from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from goalposts.benchmark.errors import HookError, UndeclaredKnowledgeError
from goalposts.benchmark.plugins.hooks import Hooks
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation, ModuleSpec
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.training import checkpoint
from tests.toy import Toy, ToyLevels, context, rollout, trainer, unreserved


def faulty(hook: str, function: Callable[..., Any], *uses: Knowledge) -> Mitigation:
    """Return a mitigation whose ``hook`` is ``function``."""
    return type("Faulty", (Mitigation,), {hook: function, "uses": frozenset(uses)})()


def reserved(count: int) -> ToyLevels:
    levels = ToyLevels(torch.arange(64 * count))
    return levels[levels.reserved()][:count]


def spoiled(module: torch.nn.Module) -> torch.nn.Module:
    next(module.parameters()).data.fill_(torch.nan)
    return module


FAULTS: dict[str, list[Callable[..., Any]]] = {
    "setup": [lambda self, context: 1 / 0],
    "sample_levels": [
        lambda self, n: None,
        lambda self, n: torch.arange(n),
        lambda self, n: unreserved(n - 1),
        lambda self, n: reserved(n),
        lambda self, n: ToyLevels.concatenate([unreserved(n - 1), reserved(1)]),
    ],
    "goals": [
        lambda self, levels: [0] * len(levels),
        lambda self, levels: torch.zeros(len(levels)),
        lambda self, levels: torch.zeros(len(levels) + 1, dtype=torch.int64),
        lambda self, levels: torch.full((len(levels),), 1),
        lambda self, levels: torch.full((len(levels),), 2),
        lambda self, levels: torch.full((len(levels),), -1),
        lambda self, levels: torch.full((len(levels),), 3),
    ],
    "observe": [
        lambda self, observation, told: None,
        lambda self, observation, told: observation[:-1],
        lambda self, observation, told: observation.sum(),
        lambda self, observation, told: observation + told,
        lambda self, observation, told: observation * torch.nan,
        lambda self, observation, told: observation.to("meta"),
    ],
    "relabel": [
        lambda self, rollout: None,
        lambda self, rollout: rollout.rewards,
        lambda self, rollout: dataclasses.replace(rollout, rewards=rollout.rewards.double()),
        lambda self, rollout: dataclasses.replace(rollout, rewards=rollout.rewards[:-1]),
        lambda self, rollout: dataclasses.replace(rollout, rewards=rollout.rewards / 0),
        lambda self, rollout: dataclasses.replace(rollout, told_goals=rollout.told_goals + 1),
        lambda self, rollout: dataclasses.replace(rollout, actions=rollout.actions.to("meta")),
    ],
    "after_rollout": [
        lambda self, rollout: rollout.nothing,
        lambda self, rollout: rollout.advantages.fill_(torch.nan),
        lambda self, rollout: rollout.rewards.div_(0),
        lambda self, rollout: setattr(rollout, "advantages", None),
        lambda self, rollout: setattr(rollout, "values", rollout.values.double()),
    ],
    "sample_weights": [
        lambda self, rollout: 1.0,
        lambda self, rollout: torch.ones(3),
        lambda self, rollout: rollout.rewards.fill_(-1.0),
        lambda self, rollout: rollout.rewards.fill_(torch.nan),
        lambda self, rollout: rollout.rewards.fill_(torch.inf),
        lambda self, rollout: rollout.rewards.to("meta"),
    ],
    "batch_columns": [
        lambda self, rollout: None,
        lambda self, rollout: {"bonus": 1.0},
        lambda self, rollout: {"bonus": rollout.rewards.flatten()},
        lambda self, rollout: {"bonus": rollout.rewards / 0},
        lambda self, rollout: {"advantages": rollout.rewards},
        lambda self, rollout: {"weights": rollout.rewards},
    ],
    "extra_loss": [
        lambda self, batch, outputs: 1.0,
        lambda self, batch, outputs: torch.ones(2),
        lambda self, batch, outputs: torch.ones((), device="meta"),
    ],
    "build_module": [
        lambda self, spec: None,
        lambda self, spec: torch.nn.Linear(2, 2),
        lambda self, spec: 1 / 0,
        lambda self, spec: dataclasses.replace(spec, num_actions=3).build(),
        lambda self, spec: dataclasses.replace(spec, num_actions=2).build().double(),
        lambda self, spec: spoiled(spec.build()),
    ],
    "state_dict": [
        lambda self: {"nested": {"__tensor__": "weights"}},
        lambda self: None,
        lambda self: 1 / 0,
        lambda self: {"seen": {1, 2}},
        lambda self: {"counts": [{3: 1}]},
    ],
    "load_state_dict": [lambda self, state: state["nothing"]],
    "act": [
        lambda self, outputs, generator: torch.zeros(8, dtype=torch.int64),
        lambda self, outputs, generator: (torch.zeros(8), None),
        lambda self, outputs, generator: (torch.zeros(7, dtype=torch.int64), None),
        lambda self, outputs, generator: (None, None),
        lambda self, outputs, generator: (torch.zeros(8, dtype=torch.int64), torch.zeros(8)),
        lambda self, outputs, generator: (torch.zeros(8, dtype=torch.int64), False),
        lambda self, outputs, generator: (torch.full((8,), 2), None),
        lambda self, outputs, generator: (torch.full((8,), -1), None),
    ],
}


@pytest.mark.parametrize(
    ("hook", "function"),
    [pytest.param(hook, each, id=f"{hook}-{i}") for hook in FAULTS for i, each in enumerate(FAULTS[hook])],
)
def test_a_faulty_hook_is_named(hook: str, function: Callable[..., Any]) -> None:
    def run() -> None:
        subject = trainer(faulty(hook, function))
        subject.iterate()
        subject.load_state_dict(subject.state_dict())
        subject.agent("sampled").policy(torch.Generator())(torch.zeros(8, 2))

    with pytest.raises(HookError, match=f"Hook '{hook}' of Faulty") as caught:
        run()
    assert "\n" not in str(caught.value)


def test_every_hook_has_its_faults() -> None:
    hooks = {name for name, value in vars(Mitigation).items() if callable(value) and not name.startswith("_")}
    assert hooks - {"defaults", "overrides"} == set(FAULTS)


def test_a_message_of_many_lines_becomes_one() -> None:
    def setup(self: Mitigation, context: Any) -> None:
        raise ValueError("one\ntwo")

    with pytest.raises(HookError, match="raised ValueError: one two"):
        trainer(faulty("setup", setup))


def test_undeclared_knowledge_keeps_its_own_error() -> None:
    with pytest.raises(UndeclaredKnowledgeError, match=r"Hook 'sample_levels' of Faulty failed: .*add level_generator"):
        trainer(faulty("sample_levels", lambda self, n: self.context.randomized_levels(n))).iterate()


@pytest.mark.parametrize(
    ("uses", "known"),
    [
        ((), [True, False, False]),
        ((Knowledge.CANDIDATE_REWARDS,), [True, False, True]),
        ((Knowledge.PROXY_GOALS,), [True, True, False]),
        ((Knowledge.CANDIDATE_REWARDS, Knowledge.PROXY_GOALS), [True, True, True]),
    ],
)
def test_declared_goals_may_be_rewarded(uses: tuple[Knowledge, ...], known: list[bool]) -> None:
    for goal, allowed in enumerate(known):
        hooks = Hooks(faulty("goals", lambda self, levels, goal=goal: torch.full((len(levels),), goal), *uses), Toy())
        assert hooks.known_goals.tolist() == known
        if allowed:
            assert hooks.goals(unreserved(2)).tolist() == [goal, goal]
        else:
            with pytest.raises(HookError, match=rf"\[{goal}\]"):
                hooks.goals(unreserved(2))


@pytest.mark.parametrize("told", [True, False])
def test_only_who_declares_it_is_told_the_goal(told: bool) -> None:
    uses = (Knowledge.GOAL_INPUT,) if told else ()
    seen = []
    Hooks(faulty("observe", lambda self, observation, goal: seen.append(goal) or observation, *uses), Toy()).observe(
        torch.zeros(2, 2), torch.tensor([0, 2])
    )
    assert [None if goal is None else goal.tolist() for goal in seen] == [[0, 2] if told else None]


def test_defaults_are_the_identity() -> None:
    task = Toy()
    mitigation = Mitigation()
    hooks = Hooks(mitigation, task)
    hooks.setup(context(task))
    batch = rollout()
    assert torch.equal(hooks.observe(batch.observations[0], batch.told_goals[0]), batch.observations[0])
    assert hooks.relabel(batch) is batch
    assert hooks.sample_weights(batch) is None
    assert hooks.batch_columns(batch) == {}
    assert hooks.extra_loss({}, {}) is None
    assert hooks.state_dict() == {}
    assert hooks.goals(unreserved(3)).tolist() == [0, 0, 0]
    expected = task.sample_levels(5, 0.0, torch.Generator().manual_seed(1))
    assert torch.equal(hooks.sample_levels(5).hashes(), expected.hashes())


class Weighs(Mitigation):
    """Gives weight to the first step of a rollout alone, and keeps the rows its loss is shown."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        self.rows: list[torch.Tensor] = []

    def sample_weights(self, rollout: Rollout) -> torch.Tensor:
        weights = torch.zeros_like(rollout.rewards)
        weights[0] = self.weight
        return weights

    def batch_columns(self, rollout: Rollout) -> dict[str, torch.Tensor]:
        steps, envs = rollout.rewards.shape
        return {"row": torch.arange(steps * envs).view(steps, envs)}

    def extra_loss(self, batch: Any, outputs: Any) -> None:
        self.rows.append(batch["row"])


def test_rows_without_weight_are_dropped() -> None:
    mitigation = Weighs()
    metrics = trainer(mitigation).iterate()
    assert metrics["trained_share"] == pytest.approx(1 / 6)
    assert sorted(torch.cat(mitigation.rows).tolist()) == list(range(8))


def test_an_update_without_rows_is_skipped() -> None:
    subject = trainer(Weighs(0.0))
    before = [parameter.clone() for parameter in subject.network.parameters()]
    metrics = subject.iterate()
    assert metrics["trained_share"] == 0.0
    assert "loss" not in metrics
    assert subject.env_steps == 48
    assert all(torch.equal(one, other) for one, other in zip(before, subject.network.parameters(), strict=True))


def test_skipped_updates_and_extra_rollouts_move_the_learning_rate_on() -> None:
    class Alternates(Weighs):
        def sample_weights(self, rollout: Rollout) -> torch.Tensor:
            self.context.rollout(unreserved(8, 700))
            skips = subject.env_steps < 100
            return torch.full_like(rollout.rewards, 0.0 if skips else 1.0)

    subject = trainer(Alternates())
    subject.iterate()
    before = subject.env_steps
    subject.iterate()
    (optimizer,) = (each for _, each in subject.learner.get_optimizers_for_module("default_policy"))
    left = 1 - before / subject.config.env_steps
    assert optimizer.param_groups[0]["lr"] == pytest.approx(subject.config.learning_rate * left)


class Relabels(Mitigation):
    """Rewards every step with 1 and claims that the other action was taken."""

    def relabel(self, rollout: Rollout) -> Rollout:
        rollout.rewards = torch.ones_like(rollout.rewards)
        rollout.actions = 1 - rollout.actions
        self.claimed = rollout.actions
        return rollout

    def after_rollout(self, rollout: Rollout) -> None:
        self.final = rollout


def test_relabelled_rollouts_get_new_log_probabilities_and_advantages() -> None:
    mitigation = Relabels()
    trainer(mitigation).iterate()
    final = mitigation.final
    assert torch.equal(final.actions, mitigation.claimed)
    log_probs = torch.distributions.Categorical(logits=final.logits).log_prob(final.actions)
    torch.testing.assert_close(final.log_probs, log_probs)
    ended = final.terminated
    torch.testing.assert_close(final.advantages[ended], 1.0 - final.values[ended])


class Explores(Mitigation):
    """Rolls out one extra batch whenever it is asked for levels."""

    def __init__(self) -> None:
        self.extra: list[Rollout] = []

    def sample_levels(self, num_levels: int) -> Levels:
        self.extra.append(self.context.rollout(unreserved(num_levels, 700)))
        return super().sample_levels(num_levels)


def test_extra_rollouts_count_against_the_budget(tmp_path: Path) -> None:
    mitigation = Explores()
    subject = trainer(mitigation)
    rows: list[dict[str, float]] = []
    subject.train(tmp_path, log_metrics=rows.append)
    assert [extra.advantages.shape for extra in mitigation.extra] == [(6, 8)] * len(mitigation.extra)
    assert subject.env_steps == 48 * (len(rows) + len(mitigation.extra)) >= subject.config.env_steps
    assert len(rows) < 4


class Greedy(Mitigation):
    """Rolls out extra batches for as long as it is let."""

    asked = 0

    def after_rollout(self, rollout: Rollout) -> None:
        while self.context.steps_left() == 0:
            self.asked += 1
            self.context.rollout(unreserved(8, 700))


def test_one_rollout_may_overrun_the_budget_and_no_more(tmp_path: Path) -> None:
    subject = trainer(greedy := Greedy())
    with pytest.raises(HookError, match=r"'after_rollout' of Greedy failed: .* when the budget of \d+ steps"):
        subject.train(tmp_path)
    assert greedy.asked == 2
    assert subject.env_steps - subject.config.env_steps in range(48, 96)


@pytest.mark.parametrize("levels", [unreserved(7), reserved(8), torch.arange(8)])
def test_extra_rollouts_are_checked_like_levels(levels: Any) -> None:
    def sample_levels(self: Mitigation, num_levels: int) -> Levels:
        self.context.rollout(levels)
        return unreserved(num_levels)

    with pytest.raises(HookError, match="Faulty asked for a rollout on"):
        trainer(faulty("sample_levels", sample_levels)).iterate()


class Keeps(Mitigation):
    """Has state of its own, and draws from its own stream."""

    def __init__(self) -> None:
        self.drawn = torch.zeros(0)

    def after_rollout(self, rollout: Rollout) -> None:
        self.drawn = torch.cat([self.drawn, torch.rand(1, generator=self.context.generator)])

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Any) -> None:
        self.drawn = state["drawn"]


def test_state_and_generator_of_a_mitigation_are_kept(tmp_path: Path) -> None:
    straight, first, second = Keeps(), Keeps(), Keeps()
    subject = trainer(straight)
    for _ in range(4):
        subject.iterate()
    subject = trainer(first)
    for _ in range(2):
        subject.iterate()
    checkpoint.save(tmp_path, subject.state_dict(), subject.env_steps)
    subject = trainer(second)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    subject.load_state_dict(loaded[0])
    for _ in range(2):
        subject.iterate()
    assert torch.equal(second.drawn, straight.drawn)


def test_network_is_that_of_build_module() -> None:
    def narrow(self: Mitigation, spec: ModuleSpec) -> Any:
        return ModuleSpec(spec.observation_shape, spec.num_actions, spec.network, (3,), False, spec.builder).build()

    assert trainer(faulty("build_module", narrow)).network.policy_head.in_features == 3
