"""Res-UNet, a 2-D residual U-Net, plain or with attention gates, squeeze-and-excitation or CBAM.

Source: Aprianto, Riana, CommIT Journal 19(2), 2025, doi 10.21512/commit.v19i2.13177, of which the abstract alone was read. Widths and
placement are derived from the published file sizes: docs/networks.md says how. Blocks: attention gate arXiv 1804.03999,
squeeze-and-excitation arXiv 1709.01507, CBAM arXiv 1807.06521.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge_latup.networks.base import SegmentationNetwork, join

NORM_EPSILON: Final = 1e-3
NORM_MOMENTUM: Final = 0.01
"""Keras' defaults (its momentum 0.99 is PyTorch's 0.01): the published file sizes are those of TensorFlow Lite."""
SE_REDUCTION: Final = 16
CBAM_REDUCTION: Final = 8
CBAM_KERNEL: Final = 7
ATTENTIONS: Final = ("none", "gate", "se", "cbam")
PLANE: Final = (2, 3)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


def _full(x: Tensor) -> torch.dtype:
    """At least float32, for means over many pixels."""
    return torch.promote_types(x.dtype, torch.float32)


class SqueezeExcitation2d(nn.Module):
    """Global mean, dense C -> C/16, ReLU, dense C/16 -> C, sigmoid, scale. No biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // SE_REDUCTION)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=PLANE, dtype=_full(x))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))
        return x * gate[:, :, None, None].to(x.dtype)


class Cbam(nn.Module):
    """Channels scaled by one perceptron of their mean and of their maximum, then pixels by a 7x7 convolution of both over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // CBAM_REDUCTION)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)
        self.spatial = nn.Conv2d(2, 1, CBAM_KERNEL, padding=CBAM_KERNEL // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Both at once: weights that two layers of a graph share trip quantizers.
        pooled = torch.stack([x.mean(dim=PLANE, dtype=_full(x)), x.amax(dim=PLANE).to(_full(x))])
        scores = self.excite(torch.relu(self.squeeze(pooled))).sum(dim=0)
        x = x * torch.sigmoid(scores)[:, :, None, None].to(x.dtype)
        seen = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial(seen))


class AttentionGate(nn.Module):
    """The skip times one map: sigmoid(psi(ReLU(W_x skip + W_g up))), all 1x1 convolutions with bias, on one grid."""

    def __init__(self, skip_channels: int, up_channels: int, inter: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, inter, 1)
        self.up = nn.Conv2d(up_channels, inter, 1)
        self.psi = nn.Conv2d(inter, 1, 1)

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        return skip * torch.sigmoid(self.psi(torch.relu(self.skip(skip) + self.up(up))))


class ResidualBlock(nn.Module):
    """conv, norm, ReLU, conv, norm, attention; plus conv1, norm; ReLU of the sum."""

    def __init__(self, in_channels: int, out_channels: int, attention: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.norm3 = _norm(out_channels)
        kinds = {"se": SqueezeExcitation2d, "cbam": Cbam}
        self.attention = kinds[attention](out_channels) if attention in kinds else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(self.attention(y) + self.norm3(self.shortcut(x)))


class Decoder(nn.Module):
    """Up-sampling, gated skip, concat [up-sampled, skip], residual block."""

    def __init__(self, below: int, channels: int, attention: str, gate_divisor: int, upsample: str) -> None:
        super().__init__()
        transposed = upsample == "transposed"
        self.up = nn.ConvTranspose2d(below, channels, 2, stride=2) if transposed else None
        up_channels = channels if transposed else below
        gated = attention == "gate"
        self.gate = AttentionGate(channels, up_channels, max(1, channels // gate_divisor)) if gated else None
        self.block = ResidualBlock(up_channels + channels, channels, attention)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = F.interpolate(x, scale_factor=2.0, mode="nearest") if self.up is None else self.up(x)
        kept = skip if self.gate is None else self.gate(skip, up)
        y: Tensor = self.block(join([up, kept]))
        return y


class ResUnet(SegmentationNetwork):
    """Res-UNet; 33,140,545 parameters with the default arguments, 33,158,209 with the norms' running statistics.

    Takes planes (N, C, H, W), or volumes (N, C, x, y, z), whose axial slices it sees one by one, as a batch.

    Args:
        in_channels: modalities. Published: 3, of unknown meaning.
        out_channels: published 1.
        widths: channels of the levels; the last is the bottleneck.
        attention: "none"; "gate" on each skip; "se" or "cbam" in each residual block.
        gate_divisor: a gate's inner width is its skip's divided by this.
        upsample: "nearest", or "transposed" for 2x2 transposed convolutions.
        activation: of the output.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        *,
        attention: str = "none",
        gate_divisor: int = 4,
        upsample: str = "nearest",
        activation: str = "sigmoid",
    ) -> None:
        super().__init__(in_channels, 2 ** (len(widths) - 1), activation)
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {ATTENTIONS}, got {attention!r}")
        if upsample not in ("nearest", "transposed"):
            raise ValueError(f"upsample must be 'nearest' or 'transposed', got {upsample!r}")
        if len(widths) < 2 or min(widths) < 1 or gate_divisor < 1:
            raise ValueError(f"widths must be at least two positive numbers, got {tuple(widths)} (gate_divisor {gate_divisor})")
        inputs = (in_channels, *widths[:-1])
        self.encoders = nn.ModuleList(ResidualBlock(a, b, attention) for a, b in zip(inputs, widths, strict=True))
        self.pool = nn.MaxPool2d(2)
        self.decoders = nn.ModuleList(
            Decoder(below, width, attention, gate_divisor, upsample) for width, below in itertools.pairwise(widths)
        )
        self.output = nn.Conv2d(widths[0], out_channels, 1)

    def logits(self, x: Tensor) -> Tensor:
        """Scores (N, out_channels, ...) on the grid of x: planes (N, in_channels, H, W) or volumes (N, in_channels, x, y, z)."""
        if x.ndim not in (4, 5):
            raise ValueError(f"expected input (N, {self.in_channels}, H, W) or (N, {self.in_channels}, x, y, z), got {tuple(x.shape)}")
        self.check(x, x.shape[2:4])
        return self._planes(x) if x.ndim == 4 else self._volumes(x)

    def _volumes(self, x: Tensor) -> Tensor:
        """Every axial slice of every volume in one batch, and back: slices lie along the last axis."""
        count, channels, width, height, slices = x.shape
        planes = x.permute(0, 4, 1, 2, 3).reshape(count * slices, channels, width, height)
        scores = self._planes(planes)
        return scores.reshape(count, slices, scores.shape[1], width, height).permute(0, 2, 3, 4, 1)

    def _planes(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for encoder in self.encoders:
            x = encoder(self.pool(x) if skips else x)
            skips.append(x)
        for decoder, skip in zip(reversed(self.decoders), reversed(skips[:-1]), strict=True):
            x = decoder(x, skip)
        scores: Tensor = self.output(x)
        return scores
