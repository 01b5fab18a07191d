"""Attention-ResNetUNet: a 3-D residual U-Net with attention without weights on its skips and dilated convolutions in its decoder.

Source: freederia, "Attention-ResNetUNet with Multi-Scale Fusion for 3D Brain Tumor Segmentation", a web article without code,
weights or review, which leaves out kernels, widths and the bottom, and contradicts itself. What is built is a reading:
docs/networks.md says what the article states and what was chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from edge_latup.networks.base import SegmentationNetwork, join

DILATIONS: Final = (1, 2, 4)


class ResidualBlock(nn.Module):
    """h + ReLU(conv(ReLU(BatchNorm(conv(h))))): one norm, no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return h + torch.relu(self.conv2(torch.relu(self.norm(self.conv1(h)))))


class Stage(nn.Module):
    """A 1^3 convolution that changes the width, which the identity sum of the blocks cannot do, then two residual blocks."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv3d(in_channels, out_channels, 1)
        self.block1 = ResidualBlock(out_channels)
        self.block2 = ResidualBlock(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block2(self.block1(self.project(x)))
        return y


class MeanAttention(nn.Module):
    """Each channel times the sigmoid of its spatial mean. No weights; the mean sees the whole tile."""

    def forward(self, x: Tensor) -> Tensor:
        # At least float32 whatever autocast says: a mean over a quarter of a million voxels loses digits in half precision.
        mean = x.mean(dim=(2, 3, 4), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        return x * torch.sigmoid(mean).to(x.dtype)


class MultiScale(nn.Module):
    """Three 3^3 convolutions of one input at dilation 1, 2 and 4, side by side, and a 1^3 convolution of all three."""

    def __init__(self, in_channels: int, branch: int, out_channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv3d(in_channels, branch, 3, padding=rate, dilation=rate) for rate in DILATIONS)
        self.fuse = nn.Conv3d(len(DILATIONS) * branch, out_channels, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        merged = join([self.activation(branch(x)) for branch in self.branches])
        y: Tensor = self.activation(self.fuse(merged))
        return y


class Decoder(nn.Module):
    """Transposed 2^3 convolution, concat [attended skip, up-sampled], multi-scale module."""

    def __init__(self, in_channels: int, out_channels: int, branch: int, activation: nn.Module) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_channels, out_channels, 2, stride=2)
        self.attention = MeanAttention()
        self.multi_scale = MultiScale(2 * out_channels, branch, out_channels, activation)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.multi_scale(join([self.attention(skip), self.up(x)]))
        return y


class AttentionResnetUnet(SegmentationNetwork):
    """Attention-ResNetUNet; the defaults are the literal reading R1, 3,472,287 parameters.

    Args:
        in_channels: modalities (the article does not count them).
        out_channels: 3 as stated (necrotic core, enhancing tumour, oedema; a softmax over them cannot say "none"), or 4 with background.
        widths: channels of the encoder's stages; each is followed by a pooling that halves the grid.
        bottleneck: channels of two more residual blocks below the last pooling; None for none, as the article describes none.
        branch_divisor: each dilated branch of a decoder stage has that stage's channels divided by this.
        decoder_activation: "none" as stated, or "relu" after every convolution of the multi-scale modules.
        activation: of the output.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 3,
        widths: Sequence[int] = (12, 24, 48, 96),
        *,
        bottleneck: int | None = None,
        branch_divisor: int = 1,
        decoder_activation: str = "none",
        activation: str = "softmax",
    ) -> None:
        super().__init__(in_channels, 2 ** len(widths), activation)
        if decoder_activation not in ("none", "relu"):
            raise ValueError(f"decoder_activation must be 'none' or 'relu', got {decoder_activation!r}")
        if not widths or any(width < 1 or width % branch_divisor for width in widths):
            raise ValueError(f"widths must be multiples of branch_divisor {branch_divisor}, got {tuple(widths)}")
        inputs = (in_channels, *widths[:-1])
        lowest = widths[-1] if bottleneck is None else bottleneck
        belows = (*widths[1:], lowest)
        between = nn.ReLU() if decoder_activation == "relu" else nn.Identity()
        self.encoders = nn.ModuleList(Stage(a, b) for a, b in zip(inputs, widths, strict=True))
        self.pool = nn.MaxPool3d(2)
        self.bottom = nn.Identity() if bottleneck is None else Stage(widths[-1], bottleneck)
        self.decoders = nn.ModuleList(
            Decoder(below, width, width // branch_divisor, between) for below, width in zip(belows, widths, strict=True)
        )
        self.output = nn.Conv3d(widths[0], out_channels, 1)

    def logits(self, x: Tensor) -> Tensor:
        """Class scores (N, out_channels, D, H, W) of x (N, in_channels, D, H, W)."""
        if x.ndim != 5:
            raise ValueError(f"expected input (N, {self.in_channels}, D, H, W), got {tuple(x.shape)}")
        self.check(x, x.shape[2:])
        skips = []
        for encoder in self.encoders:
            skips.append(encoder(x))
            x = self.pool(skips[-1])
        x = self.bottom(x)
        for decoder, skip in zip(reversed(self.decoders), reversed(skips), strict=True):
            x = decoder(x, skip)
        scores: Tensor = self.output(x)
        return scores
