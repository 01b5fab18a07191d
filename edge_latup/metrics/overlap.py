"""Overlap metrics per region."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge_latup.spec import REGIONS, Region

Mask = NDArray[np.bool_]


def region_mask(label: NDArray[np.uint8], region: Region) -> Mask:
    """Boolean mask of a BraTS region in a canonical label map."""
    # Value by value: `numpy.isin` copies a map that does not lie in C order, and takes many times as long.
    first, *others = REGIONS[region]
    mask: Mask = label == first
    for value in others:
        mask |= label == value
    return mask


def dice(first: Mask, second: Mask) -> float:
    """2|A and B| / (|A| + |B|); two empty masks agree fully: 1."""
    size = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / size if size else 1.0


def iou(first: Mask, second: Mask) -> float:
    """|A and B| / |A or B|; two empty masks agree fully: 1."""
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0


def sensitivity(found: Mask, truth: Mask) -> float | None:
    """Share of the voxels of `truth` that were found; None where it has none."""
    size = int(np.count_nonzero(truth))
    return int(np.count_nonzero(found & truth)) / size if size else None


def specificity(found: Mask, truth: Mask) -> float | None:
    """Share of the voxels outside `truth` that were not found; None where it fills the volume. Air counts, so it is near 1."""
    outside = int(truth.size - np.count_nonzero(truth))
    return int(np.count_nonzero(~(found | truth))) / outside if outside else None


def dice_by_region(
    first: NDArray[np.uint8], second: NDArray[np.uint8], regions: Iterable[Region] = tuple(REGIONS)
) -> dict[Region, float]:  # fmt: skip
    """Dice of each region between two canonical label maps of one shape."""
    return {region: dice(region_mask(first, region), region_mask(second, region)) for region in regions}
