"""The sampler: where the windows of a sliding-window policy lie, and how much each of their voxels counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_latup.segmentation.prepare import CropBox
from edge_latup.spec import Blending, Size, SlidingWindow

GAUSSIAN_SIGMA: Final = 0.125
"""Standard deviation of the Gaussian weights, as a share of the window's side (the field's usual choice)."""
LEAST_WEIGHT: Final = 1e-3
"""No voxel of a window counts less, so that a corner covered by one window alone keeps its precision in float32."""


NO_MARGIN: Final[Size] = (0, 0, 0)


def window_starts(length: int, size: int, overlap: float, steps: Literal["fixed", "even"] = "fixed") -> list[int]:
    """Window starts along one axis: a stride of size * (1 - overlap), the last window aligned with the end.

    Even steps are as many as that stride needs, spread over the axis and rounded to voxels (halves to even). An axis shorter than the
    window has one, centred, whose start is negative; where it cannot be centred, the padding is larger at the end.
    """
    if length <= size:
        return [-((size - length) // 2)]
    if steps == "even":
        count = math.ceil((length - size) / (size * (1 - overlap))) + 1
        return sorted({round(step * ((length - size) / (count - 1))) for step in range(count)})
    stride = max(1, size - math.floor(size * overlap + 1e-9))  # 0.29 of 200 is 58, whatever binary fractions make of it
    return [*range(0, length - size, stride), length - size]


def window_boxes(shape: Size, policy: SlidingWindow, margin: Size = NO_MARGIN) -> list[CropBox]:
    """All windows over a volume, in raster order.

    With a `margin`, the network predicts only what is that far inside a window. Then it is the predicted parts that overlap and
    cover the volume, and windows reach beyond its border, where there is nothing but padding.
    """
    axes = [
        [start - lost for start in window_starts(length, size - 2 * lost, policy.overlap, policy.steps)]
        for length, size, lost in zip(shape, policy.size, margin, strict=True)
    ]
    return [CropBox(start=(x, y, z), size=policy.size, shape=shape) for x, y, z in itertools.product(*axes)]


def with_head(boxes: Sequence[CropBox], head: NDArray[np.bool_], margin: Size = NO_MARGIN) -> list[CropBox]:
    """The boxes that predict at least one voxel of the head mask (x, y, z), in their order."""
    return [box for box in boxes if box.within(margin).view(head).any()]


def importance(size: Size, blending: Blending) -> NDArray[np.float32]:
    """Weight of each voxel of a window, float32 (D, H, W), largest 1 (a little less where no voxel lies in the middle)."""
    if blending == "constant":
        return np.ones(size, dtype=np.float32)
    if blending == "gaussian_nnunet":
        return _sampled_gaussian(size)
    lines = [np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (GAUSSIAN_SIGMA * side)) ** 2) for side in size]
    weights = lines[0][:, None, None] * lines[1][None, :, None] * lines[2][None, None, :]
    floored: NDArray[np.float32] = np.maximum(weights, LEAST_WEIGHT).astype(np.float32)
    return floored


def _sampled_gaussian(size: Size) -> NDArray[np.float32]:
    """A Gaussian around voxel size // 2, cut off at four deviations; beyond, the least weight inside (nnU-Net's map, in float32)."""
    lines = []
    for side in size:
        distance = np.arange(side) - side // 2
        line = np.exp(-0.5 * (distance / (GAUSSIAN_SIGMA * side)) ** 2)
        lines.append(np.where(np.abs(distance) <= int(4 * GAUSSIAN_SIGMA * side + 0.5), line, 0))
    weights = (lines[0][:, None, None] * lines[1][None, :, None] * lines[2][None, None, :]).astype(np.float32)
    filled: NDArray[np.float32] = np.where(weights > 0, weights, weights[weights > 0].min())
    return filled
