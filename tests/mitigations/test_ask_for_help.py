"""When it asks: the threshold, what it is set on, and that asking is never an aligned outcome."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.measurement.episodes import play
from goalposts.benchmark.networks import build
from goalposts.benchmark.plugins.mitigation import ModuleSpec
from goalposts.benchmark.tasks.vocabulary import ALIGNED, ASKED
from goalposts.mitigations import ask_for_help
from goalposts.mitigations.ask_for_help import AskForHelp
from goalposts.mitigations.ensemble import disagreement
from tests.toy import Toy, ToyLevels, context, rollout, trainer


def begun(num_envs: int = 2, **hyperparameters: Any) -> tuple[AskForHelp, Any]:
    mitigation = AskForHelp(**{"heads": 3, **hyperparameters})
    mitigation.setup(context(Toy(), num_envs=num_envs))
    torch.manual_seed(0)
    module = mitigation.build_module(ModuleSpec((2,), 2, "mlp", (8,), False, build))
    with torch.no_grad():
        for head in module.policy_head.heads:
            head.weight.mul_(100)  # So that heads differ.
    return mitigation, module


@pytest.mark.parametrize(
    ("share", "count", "threshold"),
    [(0.1, 20, 17.0), (0.1, 19, 17.0), (0.25, 100, 74.0), (0.0, 20, 19.0), (0.9, 5, 0.0)],
)
def test_the_share_of_the_window_is_above_the_threshold(share: float, count: int, threshold: float) -> None:
    mitigation, _ = begun(share=share)
    greatest = torch.arange(float(count))[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    mitigation.load_state_dict({"running": torch.zeros(2), "greatest": greatest})
    assert mitigation.threshold == threshold
    assert int((greatest > mitigation.threshold).sum()) == int(share * count)


def test_each_episode_counts_with_its_greatest_uncertainty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two environments; episodes run on from one rollout to the next."""
    uncertainties = torch.tensor([[1.0, 5.0], [3.0, 2.0], [2.0, 9.0]])
    monkeypatch.setattr(ask_for_help, "disagreement", lambda _log_probs: uncertainties)
    mitigation, _ = begun()
    ends = [[[0, 0], [0, 1], [0, 0]], [[1, 0], [0, 0], [1, 1]]]
    kept: list[list[float]] = []
    for done in ends:
        mitigation.after_rollout(rollout(3, 2, terminated=torch.tensor(done).bool()))
        kept.append(mitigation.state_dict()["greatest"].tolist())
    # First 5 in the second environment; then max(1, 3, 2 | 1), max(3, 2), and max(9 | 5, 2, 9).
    assert kept == [[5.0], [5.0, 3.0, 3.0, 9.0]]
    assert mitigation.state_dict()["running"].tolist() == [0.0, 0.0]


def test_the_window_holds_the_last_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_for_help, "disagreement", lambda _log_probs: torch.arange(6.0).view(3, 2))
    mitigation, _ = begun(window=4)
    mitigation.after_rollout(rollout(3, 2, terminated=torch.ones(3, 2).bool()))
    assert mitigation.state_dict()["greatest"].tolist() == [2.0, 3.0, 4.0, 5.0]


def test_it_asks_where_its_heads_disagree_more() -> None:
    mitigation, module = begun()
    observation = torch.tensor([[0.0, 0.0], [1.0, -2.0], [9.0, 9.0], [-4.0, 1.0]])
    outputs = {name: tensor.detach() for name, tensor in module(observation).items()}
    unsure = disagreement(torch.log_softmax(module.policy_head.each(outputs["embeddings"]), dim=2)).detach()
    assert float(unsure[0]) == pytest.approx(0.0, abs=1e-6)
    middle = unsure.sort().values[1:3].mean()
    mitigation.load_state_dict({"running": torch.zeros(2), "greatest": middle.view(1)})
    _, asks = mitigation.act(outputs, torch.Generator())
    assert asks is not None
    assert asks.tolist() == (unsure > middle).tolist()
    assert int(asks.sum()) == 2


def test_it_does_not_ask_before_an_episode_has_ended() -> None:
    mitigation, module = begun()
    outputs = {name: tensor.detach() for name, tensor in module(torch.ones(4, 2)).items()}
    _, asks = mitigation.act(outputs, torch.Generator())
    assert asks is not None
    assert not bool(asks.any())


def test_asking_ends_an_episode_that_is_never_credited() -> None:
    subject = trainer(AskForHelp(heads=3), num_envs=4)
    subject.iterate()
    levels = ToyLevels(torch.full((10,), 2))

    def outcome(greatest: Tensor, ask_share: float) -> list[int]:
        subject.hooks.load_state_dict({"running": torch.zeros(4), "greatest": greatest})
        policy = subject.agent("sampled").policy(torch.Generator().manual_seed(0))
        return play(subject.hooks.task, levels, lambda _env: policy, ask_share=ask_share).outcome.tolist()

    never, always = torch.ones(1), torch.full((1,), -1.0)
    assert outcome(never, 1.0) == [ALIGNED] * 10
    assert outcome(always, 1.0) == [ASKED] * 10
    assert outcome(always, 0.3) == [ASKED] * 3 + [ALIGNED] * 7


@pytest.mark.parametrize("arguments", [{"share": 1.0}, {"share": -0.1}, {"window": 0}, {"heads": 0}])
def test_wrong_hyperparameters_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        AskForHelp(**arguments)
