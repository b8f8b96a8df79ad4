"""The jitter, and the regularizer with its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.networks import build
from goalposts.benchmark.plugins.mitigation import ModuleSpec
from goalposts.mitigations.visual_randomization import VisualRandomization, jittered, num_factors
from tests.toy import Toy, context, rollout, trainer


def test_vectors_and_maps_have_a_gain_for_each_feature_and_channel() -> None:
    vector = torch.tensor([[1.0, 0.0, 2.0]])
    assert num_factors(vector) == 3
    assert jittered(vector, torch.tensor([[0.5, 0.7, 1.5]])).tolist() == [[0.5, 0.0, 3.0]]
    maps = torch.ones(1, 2, 2, 2, dtype=torch.bool)
    maps[0, 1, 0, 0] = False
    assert num_factors(maps) == 2
    assert jittered(maps, torch.tensor([[0.5, 1.25]])).tolist() == [[[[0.5, 0.5], [0.5, 0.5]], [[0, 1.25], [1.25] * 2]]]


PICTURE = torch.tensor([[[51, 102]], [[102, 0]], [[204, 51]]], dtype=torch.uint8).unsqueeze(0)
"""Two pixels: (.2, .4, .8) and (.4, 0, .2)."""


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ([1, 1, 1, 1, 1], [[0.2, 0.4], [0.4, 0.0], [0.8, 0.2]]),
        ([2, 1, 0.5, 1, 1], [[0.4, 0.8], [0.4, 0.0], [0.4, 0.1]]),
        # The pixels' luminances are .3858 and .1424, their mean is .2641.
        ([1, 1, 1, 1, 0], [[0.3858, 0.1424]] * 3),
        ([1, 1, 1, 0, 1], [[0.2641, 0.2641]] * 3),
        ([1, 1, 1, 0.5, 1], [[0.23205, 0.33205], [0.33205, 0.13205], [0.53205, 0.23205]]),
        ([1, 1, 2, 1, 1], [[0.2, 0.4], [0.4, 0.0], [1.0, 0.4]]),
    ],
)
def test_pictures_have_contrast_and_saturation_too(factors: list[float], expected: list[list[float]]) -> None:
    assert num_factors(PICTURE) == 5
    seen = jittered(PICTURE, torch.tensor([factors], dtype=torch.float32))
    torch.testing.assert_close(seen.squeeze(2).squeeze(0), torch.tensor(expected))


def test_factors_are_drawn_around_one_for_each_transition() -> None:
    mitigation = VisualRandomization(strength=0.4)
    mitigation.setup(context(Toy()))
    jitter = mitigation.batch_columns(rollout(50, 100))["jitter"]
    assert jitter.shape == (50, 100, 2)
    assert 0.6 <= float(jitter.min()) < 0.601
    assert 1.399 < float(jitter.max()) <= 1.4
    assert len(jitter.unique()) > 9000


def test_loss_is_the_divergence_and_the_squared_difference_of_values() -> None:
    mitigation = VisualRandomization(coefficient=0.1)
    torch.manual_seed(0)  # Some first weights leave units that no input reaches.
    module = mitigation.build_module(ModuleSpec((2,), 2, "mlp", (4,), False, build))
    observation = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    jitter = torch.tensor([[1.3, 0.7], [0.8, 1.2]])
    outputs = module(observation)
    seen = module(observation * jitter)
    loss = mitigation.extra_loss({"obs": observation, "jitter": jitter}, outputs)

    def categorical(found: dict[str, Tensor]) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=found["action_dist_inputs"])

    divergence = torch.distributions.kl_divergence(categorical(outputs), categorical(seen))
    expected = 0.1 * (divergence + (outputs["vf_preds"] - seen["vf_preds"]).square()).mean()
    assert float(loss.detach()) > 1e-4
    torch.testing.assert_close(loss, expected)

    outputs = {name: tensor.detach().requires_grad_() for name, tensor in outputs.items()}
    mitigation.extra_loss({"obs": observation, "jitter": jitter}, outputs).backward()
    assert all(tensor.grad is None for tensor in outputs.values())
    assert all(bool(parameter.grad.any()) for parameter in module.parameters())


def test_the_network_is_no_state_of_the_mitigation() -> None:
    subject = trainer(VisualRandomization())
    assert "extra_loss" in subject.iterate()
    assert subject.hooks.state_dict() == {}


@pytest.mark.parametrize("strength", [-0.1, 1.0])
def test_factors_stay_positive(strength: float) -> None:
    with pytest.raises(ValueError, match="strength is"):
        VisualRandomization(strength=strength)
