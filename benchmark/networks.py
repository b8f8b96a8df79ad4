"""The networks: a trunk, a policy head and a value head, in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.plugins.mitigation import EMBEDDINGS, LOGITS, VALUES, ModuleSpec, Network


def _orthogonal(layer: nn.Linear | nn.Conv2d, gain: float) -> nn.Module:
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _dense(inputs: int, widths: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [_orthogonal(nn.Linear(inputs, width), math.sqrt(2)), nn.ReLU()]
        inputs = width
    return layers


def mlp(spec: ModuleSpec) -> nn.Sequential:
    """Return a trunk of dense layers over the flattened observation."""
    return nn.Sequential(nn.Flatten(), *_dense(math.prod(spec.observation_shape), spec.hidden_sizes))


def conv(spec: ModuleSpec) -> nn.Sequential:
    """Return a trunk of two 3×3 convolutions (16 and 32 channels) and dense layers."""
    channels, height, width = _image(spec)
    return nn.Sequential(
        _orthogonal(nn.Conv2d(channels, 16 * spec.width, 3, padding=1), math.sqrt(2)),
        nn.ReLU(),
        _orthogonal(nn.Conv2d(16 * spec.width, 32 * spec.width, 3, stride=2, padding=1), math.sqrt(2)),
        nn.ReLU(),
        nn.Flatten(),
        *_dense(32 * spec.width * _halved(height) * _halved(width), spec.hidden_sizes),
    )


def strided(spec: ModuleSpec) -> nn.Sequential:
    """Return a trunk that is cheap on a CPU core: convolutions of 6×6 at stride 4 and 3×3 at stride 2.

    They have 32 and 64 channels times the width. At 32×32 pixels the trunk takes a third of the time of three strided
    convolutions that begin at stride 2.
    """
    channels, height, width = _image(spec)
    low, high = 32 * spec.width, 64 * spec.width
    if min(height, width) < 8:
        raise RequestError(f"Network 'strided' needs at least 8×8 pixels, not {height}×{width}; choose 'conv'.")
    return nn.Sequential(
        _orthogonal(nn.Conv2d(channels, low, 6, stride=4, padding=1), math.sqrt(2)),
        nn.ReLU(),
        _orthogonal(nn.Conv2d(low, high, 3, stride=2, padding=1), math.sqrt(2)),
        nn.ReLU(),
        nn.Flatten(),
        *_dense(high * _halved(height // 4) * _halved(width // 4), spec.hidden_sizes),
    )


def _halved(side: int) -> int:
    """Return the side after a convolution of 3×3 at stride 2."""
    return (side + 1) // 2


class _Patches(nn.Module):
    """A convolution whose stride is its size, as one matrix product. Its output has the channels last in memory.

    On a CPU core it takes a fraction of that convolution's time, and the layout makes the next convolution faster.
    """

    def __init__(self, channels: int, side: int, outputs: int) -> None:
        super().__init__()
        self.side = side
        self.layer = _orthogonal(nn.Linear(side * side * channels, outputs), math.sqrt(2))

    def forward(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        rows, columns = height // self.side, width // self.side
        lines = images.permute(0, 2, 3, 1).reshape(count, rows, self.side, columns, self.side * channels)
        cut = lines.transpose(2, 3).reshape(count, rows, columns, -1)
        embedded: Tensor = self.layer(cut)
        return embedded.permute(0, 3, 1, 2)


def patches(spec: ModuleSpec) -> nn.Sequential:
    """Return a trunk for a CPU core: patches of 4×4 pixels, and a convolution of 3×3 at stride 2 over them.

    They have 32 and 64 channels times the width. Patches do not overlap, as in the stem of ConvNeXt (Liu et al. 2022,
    section 2.3). Zeros pad the last ones. An update takes .71 of the time of ``strided``. After 2.5 million steps of
    CoinRun, the two trunks show no measurable difference in what they learn.
    """
    channels, height, width = _image(spec)
    low, high = 32 * spec.width, 64 * spec.width
    rows, columns = math.ceil(height / 4), math.ceil(width / 4)
    return nn.Sequential(
        nn.ZeroPad2d((0, 4 * columns - width, 0, 4 * rows - height)),
        _Patches(channels, 4, low),
        nn.ReLU(),
        _orthogonal(nn.Conv2d(low, high, 3, stride=2, padding=1), math.sqrt(2)),
        nn.ReLU(),
        _ChannelsLast(),
        nn.Flatten(),
        *_dense(high * _halved(rows) * _halved(columns), spec.hidden_sizes),
    )


class _ChannelsLast(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1)


class _Residual(nn.Module):
    """A residual block of two 3×3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            _orthogonal(nn.Conv2d(channels, channels, 3, padding=1), math.sqrt(2)),
            nn.ReLU(),
            _orthogonal(nn.Conv2d(channels, channels, 3, padding=1), math.sqrt(2)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs + self.layers(inputs)
        return outputs


def impala(spec: ModuleSpec) -> nn.Sequential:
    """Return the large trunk of IMPALA (Espeholt et al. 2018, figure 3): 16, 32 and 32 channels times the width.

    Procgen's agents use it too (Cobbe et al. 2020), with one dense layer of 256.
    """
    channels, height, width = _image(spec)
    layers: list[nn.Module] = []
    for out in (16 * spec.width, 32 * spec.width, 32 * spec.width):
        layers += [
            _orthogonal(nn.Conv2d(channels, out, 3, padding=1), 1.0),
            nn.MaxPool2d(3, stride=2, padding=1),
            _Residual(out),
            _Residual(out),
        ]
        channels, height, width = out, _halved(height), _halved(width)
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), *_dense(channels * height * width, spec.hidden_sizes))


def _image(spec: ModuleSpec) -> tuple[int, int, int]:
    """Return the observation's channels, height and width.

    Raises:
        RequestError: it is not an image.
    """
    if len(spec.observation_shape) != 3:
        raise RequestError(
            f"Network {spec.network!r} needs images (channels, height, width), not {spec.observation_shape!r}; "
            "choose 'mlp'."
        )
    channels, height, width = spec.observation_shape
    return channels, height, width


TRUNKS = {"mlp": mlp, "conv": conv, "strided": strided, "patches": patches, "impala": impala}


class ActorCritic(Network):
    """A shared trunk with a policy head and a value head."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = TRUNKS[spec.network](spec)
        width = spec.hidden_sizes[-1]
        self.policy_head = _orthogonal(nn.Linear(width, spec.num_actions), 0.01)
        self.value_head = _orthogonal(nn.Linear(width, 1), 1.0)

    def embed(self, observation: Tensor) -> Tensor:
        """Return the trunk's output, ``float32[n, hidden_sizes[-1]]``. Bytes are pixels: 255 becomes 1."""
        with torch.autocast(observation.device.type, torch.bfloat16, enabled=self.spec.bf16):
            inputs = observation.to(torch.bfloat16 if self.spec.bf16 else torch.float32)
            if observation.dtype == torch.uint8:
                inputs = inputs / 255
            embeddings: Tensor = self.trunk(inputs).float()
        return embeddings

    def forward(self, observation: Tensor) -> dict[str, Tensor]:
        """Return logits, values and embeddings."""
        embeddings = self.embed(observation)
        return {
            EMBEDDINGS: embeddings,
            LOGITS: self.policy_head(embeddings),
            VALUES: self.value_head(embeddings).squeeze(-1),
        }


def build(spec: ModuleSpec) -> Network:
    """Return the network that ``spec`` describes."""
    return ActorCritic(spec)
