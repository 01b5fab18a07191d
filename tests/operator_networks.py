"""Networks of a few layers, one for each operator that segmentation networks of this field are made of. Weights are seeded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge_latup.networks.attention_resnet_unet import MeanAttention
from edge_latup.networks.latup_net import SqueezeExcitation
from edge_latup.networks.res_unet import AttentionGate, Cbam

CHANNELS: Final = 8
SIDE: Final = 16
HEADS: Final = 2


class Between(nn.Module):
    """Four modalities through a convolution, the operator, and a convolution to four classes: integer arithmetic on both sides."""

    def __init__(self, operator: nn.Module, channels: int = CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv3d(4, CHANNELS, 3, padding=1)
        self.operator = operator
        self.head = nn.Conv3d(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.head(self.operator(torch.relu(self.stem(x)))), dim=1)


class Apply(nn.Module):
    """A function without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class OverChannels(nn.Module):
    """LayerNorm over the channels of each voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return y


class Slices(nn.Module):
    """A 2-D layer on the axial slices of a volume, as a batch."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        planes = x.permute(0, 4, 1, 2, 3).reshape(-1, x.shape[1], x.shape[2], x.shape[3])
        y: Tensor = self.layer(planes)
        return y.reshape(x.shape[0], -1, *y.shape[1:]).permute(0, 2, 3, 4, 1)


class Gate(nn.Module):
    """The attention gate on a skip and what comes from below, both made of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.below = AttentionGate(CHANNELS, CHANNELS, 2), nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gate(x, self.below(x))
        return y


class Attention(nn.Module):
    """A transformer's block: LayerNorm, attention of two heads, sum, LayerNorm, perceptron with GELU, sum; (N, tokens, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(count, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).permute(0, 2, 1, 3).reshape(count, tokens, width)
        x = x + self.project(mixed)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class TransformerUnet(nn.Module):
    """Patches of 4^3 as tokens, one attention block, and back by a transposed convolution, beside a skip: UNETR's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv3d(CHANNELS, 16, 4, stride=4)
        self.places = nn.Parameter(torch.zeros(1, (SIDE // 4) ** 3, 16))
        self.block = Attention(16)
        self.up = nn.ConvTranspose3d(16, CHANNELS, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x)
        tokens = self.block(patches.flatten(2).transpose(1, 2) + self.places)
        return torch.cat([x, self.up(tokens.transpose(1, 2).reshape(patches.shape))], dim=1)


def _conv(kernel: int, **options: int) -> nn.Conv3d:
    return nn.Conv3d(CHANNELS, CHANNELS, kernel, **options)


def _halved(mode: str) -> nn.Module:
    """Pooled, and brought back by interpolation."""
    options = {} if mode == "nearest" else {"align_corners": False}
    return nn.Sequential(nn.MaxPool3d(2), Apply(lambda x: F.interpolate(x, scale_factor=2.0, mode=mode, **options)))


OPERATORS: Final[dict[str, Callable[[], nn.Module]]] = {
    "conv 1": lambda: _conv(1),
    "conv 3": lambda: _conv(3, padding=1),
    "conv 5": lambda: _conv(5, padding=2),
    "conv 3 dilated 2": lambda: _conv(3, padding=2, dilation=2),
    "conv 3 dilated 4": lambda: _conv(3, padding=4, dilation=4),
    "conv 3 grouped": lambda: _conv(3, padding=1, groups=2),
    "conv 3 depthwise": lambda: _conv(3, padding=1, groups=CHANNELS),
    "conv 2 padded after": lambda: nn.Sequential(Apply(lambda x: F.pad(x, (0, 1, 0, 1, 0, 1))), _conv(2)),
    "conv 4 padded unevenly": lambda: nn.Sequential(Apply(lambda x: F.pad(x, (1, 2, 1, 2, 1, 2))), _conv(4)),
    "conv 3 strided, transposed 2": lambda: nn.Sequential(
        _conv(3, stride=2, padding=1), nn.ConvTranspose3d(CHANNELS, CHANNELS, 2, stride=2)
    ),
    "transposed 3": lambda: nn.Sequential(
        nn.MaxPool3d(2), nn.ConvTranspose3d(CHANNELS, CHANNELS, 3, stride=2, padding=1, output_padding=1)
    ),
    "transposed grouped": lambda: nn.Sequential(nn.MaxPool3d(2), nn.ConvTranspose3d(CHANNELS, CHANNELS, 2, stride=2, groups=2)),
    "average pool": lambda: nn.AvgPool3d(3, stride=1, padding=1),
    "instance norm": lambda: nn.InstanceNorm3d(CHANNELS, eps=1e-3, affine=True),
    "batch norm": lambda: nn.BatchNorm3d(CHANNELS),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "layer norm": OverChannels,
    "nearest resize": lambda: _halved("nearest"),
    "linear resize": lambda: _halved("trilinear"),
    "leaky relu": lambda: nn.LeakyReLU(0.1),
    "gelu": lambda: nn.GELU(),
    "squeeze-and-excitation": lambda: SqueezeExcitation(CHANNELS),
    "mean attention": MeanAttention,
    "2-D conv 3": lambda: Slices(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)),
    "2-D transposed 2": lambda: Slices(nn.Sequential(nn.MaxPool2d(2), nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2))),
    "2-D linear resize": lambda: Slices(
        nn.Sequential(nn.MaxPool2d(2), Apply(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)))
    ),
    "attention gate": lambda: Slices(Gate()),
    "cbam": lambda: Slices(Cbam(CHANNELS)),
    "transformer u-net": TransformerUnet,
}
"""Each keeps the number of channels and the grid; the transformer has twice as many channels."""


def network_of(name: str) -> nn.Module:
    """The network of one of `OPERATORS`, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = Between(OPERATORS[name](), 2 * CHANNELS if name == "transformer u-net" else CHANNELS)
        with torch.no_grad():
            for parameter in network.operator.parameters():
                if parameter.ndim == 1:
                    parameter.uniform_(-0.3, 0.3).add_(0.5 * (parameter > 0))
            for key, buffer in network.named_buffers():
                if key.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
        _sharpen(network.eval())
    return network


def _sharpen(network: Between) -> None:
    """Every class wins somewhere."""
    with torch.no_grad():
        x = torch.randn(1, 4, SIDE, SIDE, SIDE)
        scores = network.head(network.operator(torch.relu(network.stem(x))))
        mean, deviation = scores.mean((0, 2, 3, 4)), scores.std((0, 2, 3, 4))
        network.head.weight *= (2 / deviation).reshape(-1, 1, 1, 1, 1)
        bias = network.head.bias
        if bias is not None:
            bias.sub_(mean).mul_(2 / deviation)
