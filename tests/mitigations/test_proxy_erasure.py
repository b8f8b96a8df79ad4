"""The probe's target, what the best probe explains, its schedule, and what training against it does to a trunk."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.networks import build
from goalposts.benchmark.plugins.mitigation import ModuleSpec
from goalposts.mitigations.proxy_erasure import ProxyErasure, event_returns, explained_variance, schedule
from tests.toy import Toy, context, rollout

SPEC = ModuleSpec((2,), 2, "mlp", (32, 32), False, build)


def test_returns_count_the_events_up_to_the_end_of_the_episode() -> None:
    events = torch.tensor([0, 1, 1, 0, 1, 0]).bool().view(6, 1, 1)
    done = torch.tensor([0, 0, 0, 1, 0, 0]).bool().view(6, 1)
    returns, known = event_returns(events, done, 0.5)
    assert returns.flatten().tolist() == [0.75, 1.5, 1.0, 0.0, 1.0, 0.0]
    assert known.flatten().tolist() == [True, True, True, True, False, False]


def test_a_rollout_in_which_no_episode_ends_knows_nothing() -> None:
    events, done = torch.ones(3, 2, 1).bool(), torch.zeros(3, 2).bool()
    assert not bool(event_returns(events, done, 0.5)[1].any())
    assert float(explained_variance(torch.zeros(0, 4), torch.zeros(0, 1))) == 0.0


def test_targets_are_those_of_the_proxy() -> None:
    random = torch.Generator().manual_seed(0)
    events = torch.rand(8, 50, 3, generator=random) < 0.3
    batch = rollout(8, 50, events=events, terminated=torch.rand(8, 50, generator=random) < 0.2)
    mitigation = ProxyErasure(discount=0.5)
    mitigation.setup(context(Toy(), *ProxyErasure.uses))
    columns = mitigation.batch_columns(batch)
    returns, known = event_returns(events[:, :, 1:2], batch.terminated, 0.5)
    assert torch.equal(columns["proxy_returns"], returns)
    assert torch.equal(columns["proxy_known"], known)


def test_the_best_probe_s_share_of_variance() -> None:
    # Two features that do not covary, with variances 1 and 4; the target is the first plus noise of variance 1.
    features = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]]).repeat(2, 1)
    noise = torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1])
    target = (features[:, 0] + noise + 7.0).unsqueeze(1)
    ridge = 1 + 0.01 * 2.5
    torch.testing.assert_close(explained_variance(features, target), torch.tensor(0.5 / ridge))
    both = torch.cat([target, noise.unsqueeze(1)], dim=1)
    torch.testing.assert_close(explained_variance(features, both), torch.tensor(0.25 / ridge))
    assert float(explained_variance(features, torch.full((8, 1), 3.0))) == 0.0


def test_only_known_transitions_count_with_the_weight_of_the_schedule() -> None:
    random = torch.Generator().manual_seed(0)
    features, target = torch.randn(20, 3, generator=random), torch.randn(20, 1, generator=random)
    known = torch.arange(20) < 15
    mitigation = ProxyErasure(strength=0.5)
    mitigation.setup(context(Toy(), *ProxyErasure.uses))
    mitigation.load_state_dict({"env_steps": 100})
    loss = mitigation.extra_loss({"proxy_returns": target, "proxy_known": known}, {"embeddings": features})
    torch.testing.assert_close(loss, 0.5 * math.tanh(0.5) * explained_variance(features[:15], target[:15]))


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.0), (0.1, 0.46211716), (0.5, 0.98661429), (1.0, 0.9999092)])
def test_schedule_is_that_of_the_paper(progress: float, expected: float) -> None:
    assert schedule(progress) == pytest.approx(expected)
    assert schedule(progress) == pytest.approx(math.tanh(5 * progress))


def test_the_schedule_follows_the_steps_of_the_run() -> None:
    mitigation = ProxyErasure(strength=2.0)
    mitigation.setup(context(Toy(), *ProxyErasure.uses))
    assert mitigation.weight == 0.0
    mitigation.after_rollout(rollout(5, 10))  # 50 of 1000 steps.
    assert mitigation.weight == pytest.approx(2 * math.tanh(0.25))
    fresh = ProxyErasure(strength=2.0)
    fresh.setup(context(Toy(), *ProxyErasure.uses))
    fresh.load_state_dict(mitigation.state_dict())
    assert fresh.weight == mitigation.weight


def explained(features: Tensor, target: Tensor) -> float:
    """Return the share of the target's variance that the best linear probe explains."""
    inputs = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    fitted = inputs @ torch.linalg.lstsq(inputs, target.double(), driver="gelsd").solution
    return float(1 - (target - fitted).square().mean() / target.double().var(correction=0))


def trained(strength: float) -> tuple[float, float]:
    """Train a trunk to tell one input, with the other one as the proxy; return how well each can be read off it."""
    mitigation = ProxyErasure(strength=strength)
    mitigation.setup(context(Toy(), *ProxyErasure.uses))
    torch.manual_seed(0)
    module = SPEC.build()
    mitigation.load_state_dict({"env_steps": 10**9})
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    random = torch.Generator().manual_seed(0)

    def drawn(count: int) -> Tensor:
        return torch.randn(count, 2, generator=random)

    for _ in range(1000):
        inputs = drawn(256)
        outputs = module(inputs)
        known = torch.ones(256, dtype=torch.bool)
        loss = (outputs["vf_preds"] - inputs[:, 0]).square().mean()
        loss = loss + mitigation.extra_loss({"proxy_returns": inputs[:, 1:], "proxy_known": known}, outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs = drawn(2000)
    with torch.no_grad():
        embeddings = module(inputs)["embeddings"]
    return explained(embeddings, inputs[:, :1]), explained(embeddings, inputs[:, 1:])


def test_the_proxy_can_no_longer_be_read_off_the_trunk() -> None:
    kept, read = trained(0.0)
    assert (kept, read) == pytest.approx((1.0, 1.0), abs=0.02)
    kept, erased = trained(1.0)
    assert kept > 0.95
    assert erased < 0.2
