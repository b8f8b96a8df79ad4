from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.errors import HookError, RequestError
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.mitigations.accel import Accel, AccelOracle
from goalposts.mitigations.plr import Plr, PlrOracle
from goalposts.mitigations.regret import episode_returns, positive_value_loss
from tests.mitigations.curricula import NUM_ENVS, Wide, held, phases, play
from tests.toy import COST, Toy, ToyLevels, context, rollout, trainer


def test_phases() -> None:
    found = phases(play(Plr(buffer_size=40), 300))
    assert found[:3] == ["new"] * 3  # The buffer must hold half of 40 before the first replay: three times 8.
    assert set(found) == {"new", "replay"}
    assert found[3:].count("replay") / len(found[3:]) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("replay_probability", "expected"), [(1.0, {"replay"}), (0.0, {"new"})])
def test_replay_probability_endpoints(replay_probability: float, expected: set[str]) -> None:
    played = play(Plr(buffer_size=40, replay_probability=replay_probability), 20)
    assert set(phases(played[3:])) == expected


@pytest.mark.parametrize(("fill_share", "new"), [(0.0, 1), (0.5, 3), (1.0, 5)])
def test_fill_share_endpoints(fill_share: float, new: int) -> None:
    played = play(Plr(buffer_size=40, fill_share=fill_share, replay_probability=1.0), 8)
    assert phases(played).index("replay") == new


@pytest.mark.parametrize("mitigation", [Plr(buffer_size=40), Accel(buffer_size=40)], ids=["plr", "accel"])
def test_only_replay_has_weight(mitigation: Plr) -> None:
    for each in play(mitigation, 30):
        assert each.weights.shape == (4, NUM_ENVS)
        assert each.weights.unique().tolist() == [float(each.phase == "replay")]


def parameters(subject: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in subject.network.parameters()]


@pytest.mark.parametrize(
    ("mitigation", "expected"),
    [
        (Plr(buffer_size=16, replay_probability=1.0), ("new", "replay", "replay")),
        (Accel(buffer_size=16, replay_probability=1.0), ("new", "replay", "edit", "replay")),
        (Accel(buffer_size=16, replay_probability=0.0), ("new", "new")),
    ],
    ids=["plr", "accel", "never"],
)
def test_only_replay_trains_and_every_step_counts(mitigation: Plr, expected: tuple[str, ...]) -> None:
    subject = trainer(mitigation)
    for iteration, phase in enumerate(expected, start=1):
        before = parameters(subject)
        metrics = subject.iterate()
        assert mitigation.phase == phase
        same = all(torch.equal(one, other) for one, other in zip(before, parameters(subject), strict=True))
        assert same == (phase != "replay") == ("loss" not in metrics)
        assert subject.env_steps == iteration * subject.config.steps_per_rollout


def test_scores_are_those_of_the_last_play() -> None:
    mitigation = Plr(buffer_size=1000, fill_share=0.016)
    seen: dict[int, float] = {}
    for each in play(mitigation, 30):
        if each.phase == "replay":
            assert set(each.numbers) <= set(seen)
        seen |= dict(zip(each.numbers, each.scores, strict=True))
    assert held(mitigation) == seen
    assert len(seen) > 100


def test_staleness_alone_replays_what_was_played_longest_ago() -> None:
    mitigation = Plr(buffer_size=16, fill_share=1.0, replay_probability=1.0, staleness_coeff=1.0)
    played = play(mitigation, 12)
    assert phases(played) == ["new"] * 2 + ["replay"] * 10
    for before, after in itertools.pairwise(played[1:]):
        assert not set(before.numbers) & set(after.numbers)


def test_max_latest_remembers_the_best_return() -> None:
    mitigation = Plr("max_latest", buffer_size=8, replay_probability=1.0)
    mitigation.setup(context(Wide(), num_envs=NUM_ENVS))
    best: dict[int, float] = {}
    for i in range(6):
        levels = mitigation.sample_levels(NUM_ENVS)
        assert isinstance(levels, ToyLevels)
        batch = rollout(num_envs=NUM_ENVS, seed=i, levels=levels)
        batch.terminated[-1] = True
        latest = episode_returns(batch.rewards, batch.done, 0.9).mean.tolist()
        mitigation.after_rollout(batch)
        for number, returned in zip(levels.number.tolist(), latest, strict=True):
            best[number] = max(best.get(number, -torch.inf), returned)
            assert held(mitigation)[number] == pytest.approx(best[number] - returned, abs=1e-6)
    assert dict(zip(held(mitigation), mitigation.buffer.best_returns.tolist(), strict=True)) == pytest.approx(best)


@pytest.mark.parametrize("cls", [PlrOracle, AccelOracle])
def test_oracle_scores_what_the_optimum_is_ahead_by(cls: type[Plr]) -> None:
    """In the toy world reward comes by itself, so that who takes no costly action has no regret."""
    mitigation = cls(buffer_size=8, fill_share=0.0)
    subject = trainer(mitigation, Toy())
    subject.iterate()
    assert mitigation.phase == "new"
    assert bool((mitigation.buffer.scores > -1e-6).all())
    numbers = torch.tensor(list(held(mitigation)))
    when = numbers % 6
    solvable = (when > 0) & (when < 5)
    optimal = torch.where(solvable, 0.99 ** (when - 1).clamp(min=0), 0.0)
    assert bool((mitigation.buffer.scores <= optimal + COST * 4).all())
    torch.testing.assert_close(
        mitigation.buffer.scores + mitigation.buffer.best_returns, optimal, atol=4 * COST, rtol=0
    )


def test_published_defaults() -> None:
    assert Plr.defaults() == {
        "regret": "positive_value_loss", "replay_probability": 0.5, "buffer_size": 4000, "fill_share": 0.5,
        "temperature": 0.1, "staleness_coeff": 0.3,
    }  # fmt: skip
    assert PlrOracle.defaults() == {**Plr.defaults(), "regret": "oracle"}
    assert Accel.defaults() == {**Plr.defaults(), "replay_probability": 0.8, "temperature": 0.3, "num_edits": 5}
    assert AccelOracle.defaults() == {**Accel.defaults(), "regret": "oracle"}


@pytest.mark.parametrize("name", ["plr", "accel", "accel_restricted"])
def test_oracle_is_refused_where_the_planner_is_not_declared(name: str) -> None:
    plugin = load_plugin(name)
    assert Knowledge.PLANNER not in plugin.cls.uses
    with pytest.raises(RequestError, match=r"^Mitigation '\w+' refuses .*'oracle' needs 'planner'.*plr_oracle.*\.$"):
        plugin.hyperparameters({"regret": "oracle"})
    assert plugin.hyperparameters({"regret": "max_latest"})["regret"] == "max_latest"


def test_an_unknown_estimate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"regret is 'luck'; give one of positive_value_loss, max_latest, oracle"):
        Plr(regret="luck")


def test_a_buffer_smaller_than_a_rollout_is_refused_by_name() -> None:
    with pytest.raises(HookError, match=r"setup.*buffer_size is 7.*at least 8"):
        trainer(Plr(buffer_size=7))
    trainer(Plr(buffer_size=8))


def test_play_scores_by_positive_value_loss() -> None:
    batch = rollout(num_envs=NUM_ENVS)
    [first] = play(Plr(buffer_size=8), 1)
    given = context(Toy())
    returns = episode_returns(batch.rewards, batch.done, 0.9)
    assert first.scores == positive_value_loss(given, batch, returns).tolist()
