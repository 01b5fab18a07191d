"""LATUP-Net: a 3-D attention U-Net with parallel convolutions, written from its published description.

Source: Alwadee, Sun, Qin, Langbein, Comput. Biol. Med. 184 (2025) 109353, doi 10.1016/j.compbiomed.2024.109353.
Where the paper contradicts its own parameter table, the reading that reproduces the published 3,069,060 parameters is built.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own customary name)

from edge_latup.networks.base import SegmentationNetwork, join

LEAKY_SLOPE: Final = 0.1
NORM_EPSILON: Final = 1e-3
"""Keras GroupNormalization's default, which the published network was trained with. PyTorch's 1e-5 gives other numbers."""
SE_REDUCTION: Final = 8
DIVISOR: Final = 8
"""Every spatial axis is halved three times."""


class ConvLeaky(nn.Sequential):
    """Convolution with bias and zero "same" padding, then LeakyReLU(0.1). Odd kernels only."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel, padding=kernel // 2),
            nn.LeakyReLU(LEAKY_SLOPE),
        )


class EvenConvLeaky(nn.Module):
    """2x2x2 "same" convolution, padded 0 before and 1 after on each axis, then LeakyReLU(0.1)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 2)
        self.activation = nn.LeakyReLU(LEAKY_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.conv(F.pad(x, (0, 1, 0, 1, 0, 1))))
        return y


class SqueezeExcitation(nn.Module):
    """Channel attention: global mean, dense C -> C/8, ReLU, dense C/8 -> C, sigmoid, scale. No biases (arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // SE_REDUCTION
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # At least float32 whatever autocast says: a mean over 2 million voxels loses digits in half precision.
        mean = x.mean(dim=(2, 3, 4), dtype=torch.promote_types(x.dtype, torch.float32))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))
        return x * gate[:, :, None, None, None].to(x.dtype)


class _InstanceNorm(nn.InstanceNorm3d):
    """Instance norm. One sample's is a batch norm of that sample, which PyTorch trains without leaving the channels-last layout."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return super().forward(x)


def _instance_norm(channels: int) -> nn.InstanceNorm3d:
    return _InstanceNorm(channels, eps=NORM_EPSILON, affine=True)


class ParallelConvolutions(nn.Module):
    """First encoder: one 3^3 embedding, then 1^3, 3^3 and 5^3 convolutions of it side by side, each pooled and concatenated."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.embedding = ConvLeaky(in_channels, width, 3)
        self.branches = nn.ModuleList(ConvLeaky(width, width, kernel) for kernel in (1, 3, 5))
        self.pool = nn.MaxPool3d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (pooled branches with 3*width channels at half size, the full-size embedding for the skip)."""
        embedding = self.embedding(x)
        return join([self.pool(branch(embedding)) for branch in self.branches]), embedding


class Encoder(nn.Module):
    """SE, convolution, instance norm, convolution (the skip), dropout, pooling."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.attention = SqueezeExcitation(in_channels) if attention else nn.Identity()
        self.conv1 = ConvLeaky(in_channels, out_channels, 3)
        self.norm = _instance_norm(out_channels)
        self.conv2 = ConvLeaky(out_channels, out_channels, 3)
        self.dropout = nn.Dropout(dropout)
        self.pool = nn.MaxPool3d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (pooled features, the skip as it was before dropout)."""
        skip = self.conv2(self.norm(self.conv1(self.attention(x))))
        return self.pool(self.dropout(skip)), skip


class Decoder(nn.Module):
    """Nearest up-sampling, even convolution, instance norm, concat [decoder, skip], convolution, SE, dropout, convolution."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.up_conv = EvenConvLeaky(in_channels, out_channels)
        self.norm = _instance_norm(out_channels)
        self.conv1 = ConvLeaky(2 * out_channels, out_channels, 3)
        self.attention = SqueezeExcitation(out_channels) if attention else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = ConvLeaky(out_channels, out_channels, 3)

    def forward(self, x: Tensor, skip: Tensor, upsample: str) -> Tensor:
        options = {} if upsample == "nearest" else {"align_corners": False}
        up = F.interpolate(x, scale_factor=2.0, mode=upsample, **options)
        merged = join([self.norm(self.up_conv(up)), skip])
        y: Tensor = self.conv2(self.dropout(self.attention(self.conv1(merged))))
        return y


class LatupNet(SegmentationNetwork):
    """LATUP-Net; 3,069,060 parameters with the default arguments.

    Args:
        in_channels: modalities. Published: 3, in the order FLAIR, T1ce, T2.
        out_channels: classes, background first. Published: 4 (background, necrotic core, oedema, enhancing tumour).
        width: channels of the first stage; the stages have width, 2*width, 4*width. Must be a multiple of 8 (SE divides by 8).
        dropout: element-wise dropout rate, training only.
        attention: False leaves out all six SE blocks (the published "PC" ablation, 3,056,260 parameters).
        upsample: "nearest" (what the published results were made with) or "trilinear" (what the paper's text says).

    Raises:
        ValueError: width is not a positive multiple of 8, or upsample is unknown.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 4,
        width: int = 32,
        *,
        dropout: float = 0.2,
        attention: bool = True,
        upsample: str = "nearest",
    ) -> None:
        super().__init__(in_channels, DIVISOR)
        if width < SE_REDUCTION or width % SE_REDUCTION:
            raise ValueError(f"width must be a positive multiple of {SE_REDUCTION}, got {width}")
        if upsample not in ("nearest", "trilinear"):
            raise ValueError(f"upsample must be 'nearest' or 'trilinear', got {upsample!r}")
        self.upsample = upsample
        self.encoder1 = ParallelConvolutions(in_channels, width)
        self.encoder2 = Encoder(3 * width, 2 * width, dropout, attention)
        self.encoder3 = Encoder(2 * width, 4 * width, dropout, attention)
        self.bottleneck = SqueezeExcitation(4 * width) if attention else nn.Identity()
        self.decoder3 = Decoder(4 * width, 4 * width, dropout, attention)
        self.decoder2 = Decoder(4 * width, 2 * width, dropout, attention)
        self.decoder1 = Decoder(2 * width, width, dropout, attention)
        self.output = nn.Conv3d(width, out_channels, 1)
        self._initialise()

    def _initialise(self) -> None:
        """He-uniform convolutions, Glorot-uniform output and SE layers, zero biases, as published."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_uniform_(module.weight, a=0, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.xavier_uniform_(self.output.weight)

    def regularised_weights(self) -> list[Tensor]:
        """The 11 kernels under the published L2 penalty: encoders 2 and 3, the 3^3 decoder convolutions, the output."""
        sequences = [seq for part in (self.encoder2, self.encoder3) for seq in (part.conv1, part.conv2)]
        sequences += [seq for part in (self.decoder3, self.decoder2, self.decoder1) for seq in (part.conv1, part.conv2)]
        return [seq.get_submodule("0").get_parameter("weight") for seq in sequences] + [self.output.weight]

    def logits(self, x: Tensor) -> Tensor:
        """Class scores before softmax: (N, classes, D, H, W) for x of shape (N, in_channels, D, H, W)."""
        if not torch.compiler.is_compiling():
            self._check(x)
        pooled1, skip1 = self.encoder1(x)
        pooled2, skip2 = self.encoder2(pooled1)
        pooled3, skip3 = self.encoder3(pooled2)
        y = self.decoder3(self.bottleneck(pooled3), skip3, self.upsample)
        y = self.decoder2(y, skip2, self.upsample)
        y = self.decoder1(y, skip1, self.upsample)
        scores: Tensor = self.output(y)
        return scores

    def _check(self, x: Tensor) -> None:
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise ValueError(f"expected input (N, {self.in_channels}, D, H, W), got {tuple(x.shape)}")
        if any(size % DIVISOR for size in x.shape[2:]):
            raise ValueError(f"every spatial size must be a multiple of {DIVISOR}, got {tuple(x.shape[2:])}")
