"""Lesion-wise Dice and HD95 by the rules of the BraTS 2023 glioma challenge."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.metrics.overlap import Mask, dice
from edge_latup.metrics.surface import Spacing, hd95
from edge_latup.records import Record

DILATIONS: Final = 3
"""Iterations by which the label's lesions are widened: those that then touch are one lesion, and a find this near is theirs."""
SMALLEST_MM3: Final = 50.0
"""A lesion of the label of this volume or less is not scored; on the challenge's grid of 1 mm it is the number of voxels."""
PENALTY_MM: Final = 374.0
"""HD95 of a missed lesion and of a false find: about the diagonal of the BraTS volume of 240 x 240 x 155 mm."""
EDGES: Final = 2
"""Dilation reaches neighbours that share a face or an edge: 18-connected."""
CORNERS: Final = 3
"""Lesions are connected also through a corner: 26-connected."""


class LesionScores(Record):
    """One region of one case, averaged over the label's lesions and the false finds."""

    dice: float
    hd95_mm: float
    lesions: int
    """Lesions of the label that were scored."""
    missed: int
    """Of these, lesions near which nothing was found."""
    false_positives: int
    """Components that were found near no lesion. No size is too small to count."""


def lesionwise(predicted: Mask, label: Mask, spacing_mm: Spacing) -> LesionScores:
    """Score each lesion of the label with the components found near it.

    Every lesion is compared with all predicted components that touch it once it is widened, each of them whole. A missed lesion
    and a false find get Dice 0 and HD95 374 mm; the score is the mean over scored lesions and false finds. Where there is neither,
    it is Dice 1 and HD95 0. A component near an unscored small lesion is neither scored nor false. Rules: Saluja et al., BraTS 2023
    lesion-wise metrics. Distances are those of `surface.hd95`, between voxels; the challenge's tool weighs surface elements.

    Args:
        predicted: boolean (x, y, z).
        label: boolean, same shape.
        spacing_mm: voxel size along the array axes.
    """
    found, lesion, touching = _matched(predicted, label)
    small = SMALLEST_MM3 / float(np.prod(spacing_mm))
    sizes = np.bincount(lesion.ravel())
    scored = [number for number in range(1, sizes.size) if sizes[number] > small]
    pairs = [(np.isin(found, touching.get(number, [])), lesion == number) for number in scored]
    false_positives = int(found.max(initial=0)) - len({number for numbers in touching.values() for number in numbers})
    if not scored and not false_positives:
        return LesionScores(dice=1.0, hd95_mm=0.0, lesions=0, missed=0, false_positives=0)
    distances = [hd95(match, own, spacing_mm) for match, own in pairs]
    number = len(scored) + false_positives
    missed = sum(distance is None for distance in distances)
    return LesionScores(
        dice=sum(dice(match, own) for match, own in pairs) / number,
        hd95_mm=(sum(distance or 0.0 for distance in distances) + PENALTY_MM * (missed + false_positives)) / number,
        lesions=len(scored),
        missed=missed,
        false_positives=false_positives,
    )


def _matched(predicted: Mask, label: Mask) -> tuple[NDArray[np.int32], NDArray[np.int32], dict[int, list[int]]]:
    """Numbered predicted components, numbered lesions of the label, and the components that touch each widened lesion."""
    from scipy import ndimage

    box = _box(predicted | label)
    predicted, label = predicted[box], label[box]
    found = _numbered(predicted)
    wide = ndimage.binary_dilation(label, ndimage.generate_binary_structure(3, EDGES), iterations=DILATIONS)
    extent = _numbered(wide)
    both = (extent > 0) & (found > 0)
    base = int(found.max(initial=0)) + 1  # one number for a pair: far quicker to make unique than rows
    touching: dict[int, list[int]] = {}
    for pair in np.unique(extent[both].astype(np.int64) * base + found[both]).tolist():
        touching.setdefault(pair // base, []).append(pair % base)
    return found, np.where(label, extent, 0).astype(np.int32), touching


def _numbered(mask: Mask) -> NDArray[np.int32]:
    from scipy import ndimage

    numbers, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, CORNERS))
    return np.asarray(numbers, np.int32)


def _box(mask: Mask) -> tuple[slice, ...]:
    """The bounding box of the mask and of all that dilation can reach, inside the volume."""
    if not mask.any():
        return (slice(0, 1),) * 3
    lines = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(max(0, int(line[0]) - DILATIONS), int(line[-1]) + 1 + DILATIONS) for line in lines)
