from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from goalposts.benchmark.errors import HookError, RequestError
from goalposts.benchmark.networks import TRUNKS, build
from goalposts.benchmark.plugins.mitigation import EMBEDDINGS, LOGITS, VALUES, Mitigation, ModuleSpec
from tests.toy import trainer


def spec(network: str = "mlp", shape: tuple[int, ...] = (2, 9, 9), bf16: bool = False) -> ModuleSpec:
    return ModuleSpec(shape, num_actions=3, network=network, hidden_sizes=(16, 8), bf16=bf16, builder=build)


@pytest.mark.parametrize("network", sorted(TRUNKS))
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_heads_are_float32(network: str, bf16: bool, dtype: torch.dtype) -> None:
    module = spec(network, bf16=bf16).build()
    seen: dict[str, torch.dtype] = {}
    module.trunk.register_forward_hook(lambda _module, _inputs, output: seen.update(trunk=output.dtype))
    for head in ("policy_head", "value_head"):
        getattr(module, head).register_forward_hook(
            lambda _m, inputs, _o, head=head: seen.update({head: inputs[0].dtype})
        )
    observation = torch.ones(4, 2, 9, 9).to(dtype)
    outputs = module(observation)
    assert seen == {
        "trunk": torch.bfloat16 if bf16 else torch.float32,
        "policy_head": torch.float32,
        "value_head": torch.float32,
    }
    assert outputs[LOGITS].shape == (4, 3)
    assert outputs[VALUES].shape == (4,)
    assert torch.equal(outputs[EMBEDDINGS], module.embed(observation))
    assert {output.dtype for output in outputs.values()} == {torch.float32}


IMAGES = sorted(set(TRUNKS) - {"mlp"})


@pytest.mark.parametrize("size", [8, 9, 10, 11, 32])
@pytest.mark.parametrize("network", IMAGES)
def test_images_may_be_odd_and_even(network: str, size: int) -> None:
    module = spec(network, (3, size, size + 1)).build()
    assert module(torch.zeros(2, 3, size, size + 1))[VALUES].shape == (2,)


@pytest.mark.parametrize("network", IMAGES)
def test_only_the_mlp_takes_vectors(network: str) -> None:
    with pytest.raises(RequestError, match=rf"'{network}' needs images.*\(7,\); choose 'mlp'"):
        spec(network, (7,)).build()


def test_strided_refuses_what_it_would_step_over() -> None:
    with pytest.raises(RequestError, match="at least 8×8 pixels, not 7×9"):
        spec("strided", (3, 7, 9)).build()


def test_impala_is_the_published_trunk() -> None:
    """Fifteen convolutions in three blocks of 16, 32 and 32 channels; the width multiplies them."""

    def channels(width: int) -> list[int]:
        built = ModuleSpec((3, 64, 64), 15, "impala", (256,), bf16=False, builder=build, width=width).build()
        return [layer.out_channels for layer in built.modules() if isinstance(layer, torch.nn.Conv2d)]

    assert channels(1) == [16] * 5 + [32] * 10
    assert channels(2) == [32] * 5 + [64] * 10


def test_patches_are_convolutions_whose_stride_is_their_size() -> None:
    patches = spec("patches", (3, 16, 24)).build().trunk[1]
    images = torch.rand(4, 3, 16, 24)
    kernel = patches.layer.weight.view(-1, 4, 4, 3).permute(0, 3, 1, 2)
    embedded = patches(images)
    torch.testing.assert_close(embedded, torch.conv2d(images, kernel, patches.layer.bias, stride=4))
    assert embedded.is_contiguous(memory_format=torch.channels_last)


def test_bytes_are_pixels() -> None:
    module = spec("strided").build()
    pixels = torch.randint(256, (4, 2, 9, 9), dtype=torch.uint8)
    torch.testing.assert_close(module.embed(pixels), module.embed(pixels.float() / 255))


def test_weights_depend_on_the_stream_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(1)
        return torch.cat([tensor.flatten() for tensor in trainer(seed=seed).network.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


class Returns(nn.Module):
    """A network that returns what it is told to."""

    def __init__(self, spec: ModuleSpec, outputs: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(2, spec.num_actions), nn.Linear(2, 1)])
        self.outputs = outputs

    def forward(self, observation: Tensor) -> Any:
        logits, values = (head(observation) for head in self.heads)
        return self.outputs(logits, values.squeeze(1))


def returning(outputs: Callable[[Tensor, Tensor], Any]) -> Mitigation:
    members = {"build_module": lambda self, spec: Returns(spec, outputs)}
    return type("Returning", (Mitigation,), members)()


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        (lambda logits, values: ({LOGITS: logits, VALUES: values}, torch.zeros(1)), "returns a tuple, not a dict"),
        (lambda logits, values: logits, "returns a Tensor, not a dict"),
        (lambda logits, values: {LOGITS: logits}, "without 'vf_preds'"),
        (lambda logits, values: {LOGITS: logits[:, :1], VALUES: values}, "'action_dist_inputs' that are "),
        (lambda logits, values: {LOGITS: logits, VALUES: values.double()}, "'vf_preds' that are "),
        (lambda logits, values: {LOGITS: logits, VALUES: values / 0}, "NaN or infinity"),
        (lambda logits, values: values[7, 7], "raised IndexError"),
    ],
)
def test_a_network_that_makes_no_agent_is_refused(outputs: Callable[[Tensor, Tensor], Any], problem: str) -> None:
    with pytest.raises(HookError, match=f"build_module.*{problem}") as caught:
        trainer(returning(outputs))
    assert "\n" not in str(caught.value)


def test_a_network_of_another_make_trains() -> None:
    subject = trainer(returning(lambda logits, values: {LOGITS: logits, VALUES: values}))
    before = subject.network.heads[1].weight.clone()
    subject.iterate()
    assert not torch.equal(subject.network.heads[1].weight, before)
