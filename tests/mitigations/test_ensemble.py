"""The mixture that plays, the loss of each head, and how the heads act together."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.networks import build
from goalposts.benchmark.plugins.mitigation import ModuleSpec
from goalposts.mitigations.ensemble import Ensemble, disagreement, mixture, of_actions
from tests.toy import Toy, context, rollout, trainer

PROBABILITIES = torch.tensor([[[0.5, 0.5], [0.1, 0.9]], [[1 / 3, 2 / 3], [1 / 3, 2 / 3]]])
"""Two states, two heads, two actions."""


def begun(heads: int = 3, **hyperparameters: Any) -> tuple[Ensemble, Any]:
    mitigation = Ensemble(heads, **hyperparameters)
    mitigation.setup(context(Toy()))
    torch.manual_seed(0)
    module = mitigation.build_module(ModuleSpec((2,), 2, "mlp", (8,), False, build))
    with torch.no_grad():
        for head in module.policy_head.heads:
            head.weight.mul_(100)  # So that heads differ.
    return mitigation, module


def test_mixture_is_the_mean_of_the_policies() -> None:
    torch.testing.assert_close(mixture(PROBABILITIES.log()).exp(), torch.tensor([[0.3, 0.7], [1 / 3, 2 / 3]]))


def test_disagreement_is_the_information_in_the_head() -> None:
    def binary(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    expected = torch.tensor([binary(0.3) - (math.log(2) + binary(0.1)) / 2, 0.0])
    torch.testing.assert_close(disagreement(PROBABILITIES.log()), expected, atol=1e-6, rtol=1e-5)
    certain = torch.eye(4).clamp(min=1e-12).log()
    torch.testing.assert_close(disagreement(certain), torch.tensor(math.log(4)))


def test_log_probabilities_of_the_actions_taken() -> None:
    found = of_actions(PROBABILITIES, torch.tensor([1, 0]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.9], [1 / 3, 1 / 3]]))


def test_the_mixture_plays_with_the_mean_value() -> None:
    _, module = begun()
    outputs = module(torch.tensor([[1.0, -2.0], [3.0, 0.5], [-1.0, -1.0]]))
    embeddings = outputs["embeddings"]
    heads = torch.stack([torch.softmax(head(embeddings), dim=1) for head in module.policy_head.heads])
    assert float((heads[0] - heads[1]).detach().abs().max()) > 0.05
    torch.testing.assert_close(outputs["action_dist_inputs"].exp(), heads.mean(dim=0))
    values = torch.stack([head(embeddings).squeeze(1) for head in module.value_head.heads])
    torch.testing.assert_close(outputs["vf_preds"], values.mean(dim=0))
    assert embeddings.requires_grad
    assert not outputs["action_dist_inputs"].requires_grad
    assert not outputs["vf_preds"].requires_grad


def test_columns_say_what_each_head_thought_and_which_learn() -> None:
    mitigation, module = begun(mask_probability=0.25)
    batch = rollout(40, 50)
    mitigation.after_rollout(batch)
    columns = mitigation.batch_columns(batch)
    outputs = module(batch.observations.flatten(0, 1))
    for k, head in enumerate(module.policy_head.heads):
        policy = torch.distributions.Categorical(logits=head(outputs["embeddings"]))
        torch.testing.assert_close(
            columns["head_log_probs"][..., k].flatten(), policy.log_prob(batch.actions.flatten())
        )
    masks = columns["head_masks"]
    assert masks.unique().tolist() == [0, 1]
    assert masks.mean(dim=(0, 1)).tolist() == pytest.approx([0.25] * 3, abs=0.03)
    assert float((masks[..., 0] * masks[..., 1]).mean()) == pytest.approx(0.0625, abs=0.02)


def by_hand(module: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the masked mean of the heads' PPO losses, one term after the other."""
    terms = []
    embeddings = module.embed(batch["obs"])
    for k, (policy, value) in enumerate(zip(module.policy_head.heads, module.value_head.heads, strict=True)):
        for i in range(len(embeddings)):
            if batch["head_masks"][i, k]:
                log_probs = torch.log_softmax(policy(embeddings[i]), dim=0)
                before = batch["head_log_probs"][i, k]
                ratio = torch.exp(log_probs[batch["actions"][i]] - before)
                advantage = batch["advantages"][i]
                surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
                weight = torch.exp(before) / torch.exp(batch["action_logp"][i])
                error = (value(embeddings[i]) - batch["value_targets"][i]).square().squeeze()
                terms.append(-weight * surrogate + 0.5 * error + 0.01 * (log_probs.exp() * log_probs).sum())
    return torch.stack(terms).mean()


def made(module: Any, count: int = 6) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        outputs = module(observation := torch.randn(count, 2, generator=random))
        actions = torch.randint(2, (count,), generator=random)
        each = torch.log_softmax(module.policy_head.each(outputs["embeddings"]), dim=2)
        noise = 0.4 * torch.randn(count, each.shape[1], generator=random)
    return {
        "obs": observation,
        "actions": actions,
        "action_logp": outputs["action_dist_inputs"].gather(1, actions.unsqueeze(1)).squeeze(1),
        "advantages": torch.randn(count, generator=random),
        "value_targets": torch.randn(count, generator=random),
        "head_log_probs": of_actions(each, actions) + noise,
        "head_masks": (torch.rand(count, each.shape[1], generator=random) < 0.5).float(),
    }


def test_loss_is_ppo_s_for_every_head_by_itself() -> None:
    mitigation, module = begun()
    batch = made(module)
    loss = mitigation.extra_loss(batch, module(batch["obs"]))
    expected = by_hand(module, batch)
    torch.testing.assert_close(loss, expected)
    (found,) = torch.autograd.grad(loss, [module.trunk[1].weight])
    torch.testing.assert_close(found, torch.autograd.grad(expected, [module.trunk[1].weight])[0])


def test_a_head_without_a_mask_does_not_learn() -> None:
    mitigation, module = begun()
    batch = made(module)
    batch["head_masks"] = torch.tensor([1.0, 0.0, 0.0]).expand(6, 3)
    mitigation.extra_loss(batch, module(batch["obs"])).backward()
    for heads in (module.policy_head.heads, module.value_head.heads):
        assert [head.weight.grad is not None and bool(head.weight.grad.any()) for head in heads] == [True, False, False]


def test_importance_makes_the_mixture_s_data_the_head_s_own() -> None:
    """The weighted mean over the mixture's actions is the mean over the head's, for any function of the action."""
    log_probs = PROBABILITIES.log()[0]
    mixed = mixture(log_probs).exp()
    gains = torch.tensor([3.0, -1.0])
    for k in range(2):
        weights = log_probs[k].exp() / mixed
        assert float((mixed * weights * gains).sum()) == pytest.approx(float((log_probs[k].exp() * gains).sum()))
        assert bool((weights <= 2).all())


def test_heads_act_by_the_geometric_mean_of_their_policies() -> None:
    mitigation, module = begun(2)
    outputs = {name: tensor.detach() for name, tensor in module(torch.tensor([[9.0, -9.0]])).items()}
    outputs = {name: tensor.expand(20_000, *tensor.shape[1:]) for name, tensor in outputs.items()}
    actions, asks = mitigation.act(outputs, torch.Generator().manual_seed(0))
    assert asks is None
    first, second = (torch.softmax(head(outputs["embeddings"][0]), dim=0) for head in module.policy_head.heads)
    pooled = (first * second).sqrt().detach()
    pooled = pooled / pooled.sum()
    assert float((pooled - (first + second).detach() / 2).abs().max()) > 0.02
    torch.testing.assert_close(actions.bincount() / 20_000, pooled, atol=0.012, rtol=0)
    greedy = torch.tensor([[-torch.inf, 0.0]]).expand(20_000, 2)
    assert bool((mitigation.act({**outputs, "action_dist_inputs": greedy}, torch.Generator())[0] == 1).all())


def test_heads_begin_apart_and_all_of_them_learn() -> None:
    subject = trainer(Ensemble(4))
    heads = subject.network.policy_head.heads
    before = [head.weight.clone() for head in heads]
    assert not any(torch.equal(before[0], other) for other in before[1:])
    metrics = subject.iterate()
    assert metrics["extra_loss"] != 0
    assert not any(torch.equal(head.weight, old) for head, old in zip(heads, before, strict=True))


@pytest.mark.parametrize("arguments", [{"heads": 0}, {"mask_probability": 0.0}, {"mask_probability": 1.5}])
def test_wrong_hyperparameters_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Ensemble(**arguments)
