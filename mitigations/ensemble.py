"""Ensemble: several policy and value heads on one trunk, which must agree at test.

The heads are bootstrapped (Osband et al. 2016, "Deep Exploration via Bootstrapped DQN", section 3 and algorithm 1).
They start from different weights, and a mask of coin flips decides which of them learn from a transition. Adapted to
PPO:

- The behaviour policy is the uniform mixture of the heads (Lakshminarayanan et al. 2017, "Simple and Scalable
  Predictive Uncertainty Estimation using Deep Ensembles", section 2.4). So every action has one log-probability.
- Each head has its own PPO loss. Its ratio is to itself before the update. Its surrogate is weighted by π_k(a|s) /
  μ(a|s), because the mixture drew the actions. That weight is at most the number of heads, so it needs no truncation.
- At test the heads act by agreement. They draw from the normalized geometric mean of their policies, a logarithmic
  opinion pool (Heskes 1998, "Selecting Weighting Factors in Logarithmic Opinion Pools"). One head can rule out an
  action. Heads that agree act as one head would; their plain product would be sharper than that. In a mixture every
  head would decide alone in its share of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from goalposts import Mitigation, ModuleSpec, Rollout, sample_actions


class Heads(nn.Module):
    """Linear heads side by side. Their joint output carries no gradient, because each head has its own loss."""

    def __init__(self, heads: list[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def each(self, embeddings: Tensor) -> Tensor:
        """Return the output of every head, ``float32[n, num_heads, width]``."""
        return torch.stack([head(embeddings) for head in self.heads], dim=1)


class PolicyHeads(Heads):
    """Outputs the log-probabilities of the heads' mixture, ``float32[n, num_actions]``."""

    @torch.no_grad()
    def forward(self, embeddings: Tensor) -> Tensor:
        return mixture(torch.log_softmax(self.each(embeddings), dim=2))


class ValueHeads(Heads):
    """Outputs the mean of the heads' values, ``float32[n, 1]``."""

    @torch.no_grad()
    def forward(self, embeddings: Tensor) -> Tensor:
        return self.each(embeddings).mean(dim=1)


class Ensemble(Mitigation):
    """Trains bootstrapped heads on the same data, and acts by their agreement.

    Args:
        heads: number of heads; ten as published.
        mask_probability: p, the probability that a head learns from a transition. One half is the published
            double-or-nothing.
    """

    author = "Goalposts"
    licence = "MIT"
    paper = "Osband et al. 2016, Deep Exploration via Bootstrapped DQN"
    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mask_probability": {"low": 0.25, "high": 1.0},
    }

    def __init__(self, heads: int = 10, mask_probability: float = 0.5) -> None:
        if heads < 1:
            raise ValueError(f"heads is {heads!r}; give at least 1")
        if not 0 < mask_probability <= 1:
            raise ValueError(f"mask_probability is {mask_probability!r}; give a number in (0, 1]")
        self.heads = heads
        self.mask_probability = mask_probability
        self._network: nn.Module
        self._policy: PolicyHeads
        self._value: ValueHeads
        self._before: Tensor
        """``float32[T, N, num_heads, num_actions]``: log-probabilities of all actions in the last rollout."""

    def build_module(self, spec: ModuleSpec) -> nn.Module:
        """Put the heads of further networks on the trunk of the first."""
        self._network, *others = [spec.build() for _ in range(self.heads)]
        self._policy = PolicyHeads([network.policy_head for network in (self._network, *others)])
        self._value = ValueHeads([network.value_head for network in (self._network, *others)])
        self._network.policy_head, self._network.value_head = self._policy, self._value
        return self._network

    def log_probs(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return every head's log-probabilities, ``float32[n, num_heads, num_actions]``."""
        return torch.log_softmax(self._policy.each(outputs["embeddings"]), dim=2)

    def after_rollout(self, rollout: Rollout) -> None:
        with torch.no_grad():
            steps = [self._network(step) for step in rollout.observations]
            self._before = torch.stack([self.log_probs(outputs) for outputs in steps])

    def batch_columns(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Return each action's log-probability for each head, and which heads learn from it, ``[T, N, heads]``."""
        shape = (*rollout.rewards.shape, self.heads)
        log_probs = of_actions(self._before.flatten(0, 1), rollout.actions.flatten())
        chances = torch.full(shape, self.mask_probability, device=log_probs.device)
        masks = torch.bernoulli(chances, generator=self.context.generator)
        return {"head_log_probs": log_probs.view(shape), "head_masks": masks}

    def extra_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the mean PPO loss of the heads, each over the transitions it learns from."""
        context = self.context
        log_probs = self.log_probs(outputs)
        ratio = (of_actions(log_probs, batch["actions"]) - batch["head_log_probs"]).exp()
        importance = (batch["head_log_probs"] - batch["action_logp"].unsqueeze(1)).exp()
        advantages = batch["advantages"].unsqueeze(1)
        clipped = ratio.clamp(1 - context.training.clip_param, 1 + context.training.clip_param)
        policy = -importance * torch.min(advantages * ratio, advantages * clipped)
        values = self._value.each(outputs["embeddings"]).squeeze(2)
        value = (values - batch["value_targets"].unsqueeze(1)).square()
        loss = policy + context.training.vf_loss_coeff * value - context.training.entropy_coeff * entropy(log_probs)
        masks = batch["head_masks"]
        return (masks * loss).sum() / masks.sum().clamp(min=1)

    def act(self, outputs: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw from the geometric mean of the heads' policies.

        A greedy evaluation leaves only the mixture's first choice. The other actions stay ruled out.
        """
        agreed = self.log_probs(outputs).mean(dim=1)
        agreed = agreed.masked_fill(outputs["action_dist_inputs"] == -torch.inf, -torch.inf)
        return sample_actions(agreed, generator), None


def mixture(log_probs: Tensor) -> Tensor:
    """Return the log-probabilities of the uniform mixture, ``float32[..., A]`` of ``float32[..., num_heads, A]``."""
    return torch.logsumexp(log_probs, dim=-2) - math.log(log_probs.shape[-2])


def entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy of distributions in nats, ``float32[...]`` of ``float32[..., num_actions]``."""
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def disagreement(log_probs: Tensor) -> Tensor:
    """Return how much the heads disagree in nats, ``float32[...]`` of ``float32[..., num_heads, num_actions]``.

    This is the entropy of the mixture minus the heads' mean entropy: the mutual information of head and action (Houlsby
    et al. 2011, "Bayesian Active Learning for Classification and Preference Learning", equation 2). It lies in
    [0, log num_heads].
    """
    return entropy(mixture(log_probs)) - entropy(log_probs).mean(dim=-1)


def of_actions(log_probs: Tensor, actions: Tensor) -> Tensor:
    """Return each head's log-probability of the action taken, ``float32[n, num_heads]``.

    Args:
        log_probs: ``float32[n, num_heads, num_actions]``
        actions: ``int64[n]``
    """
    return log_probs.gather(2, actions.view(-1, 1, 1).expand(-1, log_probs.shape[1], 1)).squeeze(2)
