"""Operations of networks whose latency others published, from their published architecture: there is no artifact of them here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edge_latup.bench.predict_graph import ELEMENT_BYTES
from edge_latup.manifest import Precision
from edge_latup.targets.roofline import Operation, inside_share

NNUNET_CHANNELS: Final = (32, 64, 128, 256, 320, 320)
"""nnU-Net 3-D: 32 doubled at each of five poolings, at most 320 (MIC-DKFZ/nnUNet, nnunet/network_architecture/generic_UNet.py)."""


def convolution(
    name: str, channels: tuple[int, int], kernel: int, written: Sequence[int], precision: Precision, *, stride: int = 1,
    transposed: bool = False, end_padded: bool = False,
) -> Operation:  # fmt: skip
    """One "same" convolution whose output has the spatial sizes `written`; a transposed one's kernel is its stride, without padding."""
    inputs, outputs = channels
    read = [side // stride if transposed else side * stride for side in written]
    positions = math.prod(read if transposed else written)
    macs = positions * inputs * outputs * kernel**3
    pad = 0 if end_padded or transposed else kernel // 2
    steps = zip(read, written, strict=True)
    inside = 1.0 if transposed else math.prod(inside_share(size, out, kernel, stride, 1, pad) for size, out in steps)
    element = ELEMENT_BYTES[precision]
    return Operation(
        name=name, kind="transposed convolution" if transposed else "convolution", precision=precision, macs=macs,
        needed_macs=round(macs * inside), kernel=kernel, channels=channels, voxels=positions,
        reads=(inputs * math.prod(read) * element,), writes=outputs * math.prod(written) * element,
        weight_bytes=inputs * outputs * kernel**3 * element,
    )  # fmt: skip


def nnunet(shape: tuple[int, ...], precision: Precision, channels: Sequence[int] = NNUNET_CHANNELS, classes: int = 4) -> list[Operation]:
    """Convolutions of nnU-Net's 3-D U-Net for an input (N, C, D, H, W): two a stage, the first of a lower stage with stride 2.

    Up-sampling is a 2^3 transposed convolution of stride 2. Norms and activations multiply nothing and are left out; so are the outputs
    for deep supervision, which inference does not use.
    """
    sizes = [[side // 2**level for side in shape[2:]] for level in range(len(channels))]
    found, read = [], shape[1]
    for level, width in enumerate(channels):
        found.append(convolution(f"encoder{level}.0", (read, width), 3, sizes[level], precision, stride=1 if level == 0 else 2))
        found.append(convolution(f"encoder{level}.1", (width, width), 3, sizes[level], precision))
        read = width
    for level in range(len(channels) - 2, -1, -1):
        width = channels[level]
        found.append(convolution(f"up{level}", (read, width), 2, sizes[level], precision, stride=2, transposed=True))
        found.append(convolution(f"decoder{level}.0", (2 * width, width), 3, sizes[level], precision))
        found.append(convolution(f"decoder{level}.1", (width, width), 3, sizes[level], precision))
        read = width
    return [*found, convolution("output", (read, classes), 1, sizes[0], precision)]


def latup_net(shape: tuple[int, ...], precision: Precision, width: int = 32, classes: int = 4) -> list[Operation]:
    """Convolutions of LATUP-Net (edge_latup.networks.latup_net) for an input (N, C, D, H, W)."""
    full, half, quarter = ([side // 2**level for side in shape[2:]] for level in range(3))
    one, two, four = width, 2 * width, 4 * width
    found = [convolution("encoder1.embedding", (shape[1], one), 3, full, precision)]
    found += [convolution(f"encoder1.branches.{kernel}", (one, one), kernel, full, precision) for kernel in (1, 3, 5)]
    for name, read, wide, size in (("encoder2", 3 * width, two, half), ("encoder3", two, four, quarter)):
        found.append(convolution(f"{name}.conv1", (read, wide), 3, size, precision))
        found.append(convolution(f"{name}.conv2", (wide, wide), 3, size, precision))
    for name, read, wide, size in (("decoder3", four, four, quarter), ("decoder2", four, two, half), ("decoder1", two, one, full)):
        found.append(convolution(f"{name}.up_conv", (read, wide), 2, size, precision, end_padded=True))
        found.append(convolution(f"{name}.conv1", (2 * wide, wide), 3, size, precision))
        found.append(convolution(f"{name}.conv2", (wide, wide), 3, size, precision))
    return [*found, convolution("output", (one, classes), 1, full, precision)]
