"""Surface distance and volume."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_latup.metrics.overlap import Mask

Spacing = tuple[float, float, float]
Combine = Literal["larger", "pooled"]


def _surface(mask: Mask) -> Mask:
    """The mask minus its 6-connected erosion; the volume's border counts as outside."""
    from scipy import ndimage

    inner: Mask = mask & ~ndimage.binary_erosion(mask)
    return inner


def _common_box(first: Mask, second: Mask) -> tuple[slice, ...]:
    """The bounding box of both masks: distances are measured only inside it."""
    either = first | second
    lines = [np.flatnonzero(either.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines)


def _directed(start: Mask, end: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Distance in mm of every surface voxel of `start` to the surface of `end`."""
    from scipy import ndimage

    distances: NDArray[np.float64] = ndimage.distance_transform_edt(~end, sampling=spacing_mm)[start]
    return distances


def hd95(first: Mask, second: Mask, spacing_mm: Spacing, *, combine: Combine = "larger") -> float | None:
    """95th percentile Hausdorff distance in mm.

    Args:
        first: boolean (x, y, z).
        second: boolean, same shape.
        spacing_mm: voxel size along the array axes.
        combine: "larger" of the two directed percentiles (MONAI, BraTS 2023), or the percentile of both directions
            "pooled" (LATUP-Net's code).

    Returns:
        0 where both masks are empty; None where just one is, because no distance exists.
    """
    if not first.any() and not second.any():
        return 0.0
    if not first.any() or not second.any():
        return None
    box = _common_box(first, second)
    a, b = _surface(np.pad(first[box], 1))[1:-1, 1:-1, 1:-1], _surface(np.pad(second[box], 1))[1:-1, 1:-1, 1:-1]
    there, back = _directed(a, b, spacing_mm), _directed(b, a, spacing_mm)
    if combine == "pooled":
        return float(np.percentile(np.concatenate([there, back]), 95))
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def volume_ml(mask: Mask, spacing_mm: Spacing) -> float:
    """Volume in millilitres."""
    return float(np.count_nonzero(mask)) * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] / 1000
