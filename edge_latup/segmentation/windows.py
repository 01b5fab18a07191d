"""The sampler: where the windows of a sliding-window policy lie, and how much each of their voxels counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.segmentation.prepare import CropBox
from edge_latup.spec import Blending, Size, SlidingWindow

GAUSSIAN_SIGMA: Final = 0.125
"""Standard deviation of the Gaussian weights, as a share of the window's side (the field's usual choice)."""
LEAST_WEIGHT: Final = 1e-3
"""No voxel of a window counts less, so that a corner covered by one window alone keeps its precision in float32."""


NO_MARGIN: Final[Size] = (0, 0, 0)


def window_starts(length: int, size: int, overlap: float) -> list[int]:
    """Window starts along one axis: a stride of size * (1 - overlap), the last window aligned with the end.

    An axis shorter than the window has one, centred, whose start is negative.
    """
    if length <= size:
        return [(length - size) // 2]
    stride = max(1, size - math.floor(size * overlap + 1e-9))  # 0.29 of 200 is 58, whatever binary fractions make of it
    return [*range(0, length - size, stride), length - size]


def window_boxes(shape: Size, policy: SlidingWindow, margin: Size = NO_MARGIN) -> list[CropBox]:
    """All windows over a volume, in raster order.

    With a `margin`, the network predicts only what is that far inside a window. Then it is the predicted parts that overlap and
    cover the volume, and windows reach beyond its border, where there is nothing but padding.
    """
    axes = [
        [start - lost for start in window_starts(length, size - 2 * lost, policy.overlap)]
        for length, size, lost in zip(shape, policy.size, margin, strict=True)
    ]
    return [CropBox(start=(x, y, z), size=policy.size, shape=shape) for x, y, z in itertools.product(*axes)]


def with_head(boxes: Sequence[CropBox], head: NDArray[np.bool_], margin: Size = NO_MARGIN) -> list[CropBox]:
    """The boxes that predict at least one voxel of the head mask (x, y, z), in their order."""
    return [box for box in boxes if box.within(margin).view(head).any()]


def importance(size: Size, blending: Blending) -> NDArray[np.float32]:
    """Weight of each voxel of a window, float32 (D, H, W), largest 1."""
    if blending == "constant":
        return np.ones(size, dtype=np.float32)
    lines = [np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (GAUSSIAN_SIGMA * side)) ** 2) for side in size]
    weights = lines[0][:, None, None] * lines[1][None, :, None] * lines[2][None, None, :]
    floored: NDArray[np.float32] = np.maximum(weights / weights.max(), LEAST_WEIGHT).astype(np.float32)
    return floored
