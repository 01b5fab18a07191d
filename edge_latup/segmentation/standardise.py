"""Whole volumes made alike: histograms matched to a reference, and grids resized. numpy alone: the clinic core has no scipy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_latup.spec import HistogramReference, Modality, Size

Image = NDArray[np.float32]
ScalarT = TypeVar("ScalarT", bound=np.generic)
QUANTILES: Final = (0.0, 0.01, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.98, 0.99, 1.0)
"""Deciles, as is customary, and the tails, where lesions and vessels lie."""


def landmarks_of(image: Image, head: NDArray[np.bool_], quantiles: Sequence[float] = QUANTILES) -> NDArray[np.float64]:
    """Intensities of `image` (x, y, z) at quantiles of the voxels in `head`; zeros where there is no head."""
    values = image[head]
    found: NDArray[np.float64] = np.quantile(values, quantiles).astype(np.float64) if values.size else np.zeros(len(quantiles))
    return found


def match_histogram(image: Image, head: NDArray[np.bool_], reference: HistogramReference, modality: Modality) -> Image:
    """`image` (x, y, z) with its own landmarks moved onto the reference's, linearly in between; voxels outside `head` stay.

    With a landmark at every quantile this is exact histogram matching.
    """
    values = reference.of(modality)
    if values is None or not head.any():
        return image
    own, index = np.unique(landmarks_of(image, head, reference.quantiles), return_inverse=True)
    # Where several quantiles have one intensity, as in a volume with few grey levels, it goes to the middle of their values.
    wanted = np.bincount(index, np.asarray(values, np.float64)) / np.bincount(index)
    matched = image.copy()
    matched[head] = np.interp(image[head], own, wanted)
    return matched


def mean_reference(learnt: Sequence[tuple[Modality, Sequence[NDArray[np.float64]]]]) -> HistogramReference:
    """The reference whose landmarks are, for each modality, the mean of those of several volumes (`landmarks_of`)."""
    means = [{"modality": modality, "values": np.mean(found, axis=0).tolist()} for modality, found in learnt]
    return HistogramReference.model_validate({"quantiles": QUANTILES, "landmarks": means})


def resize_linear(image: Image, size: Size) -> Image:
    """A volume (x, y, z) on a grid of `size` over the same field of view, linear between voxel centres, nothing smoothed before."""
    # The axis that shrinks most comes first: the others then have less to do.
    for axis in sorted(range(3), key=lambda axis: size[axis] / image.shape[axis]):
        image = _lines(image, axis, size[axis])
    return image


def _lines(image: Image, axis: int, count: int) -> Image:
    """`image` with `count` voxels along `axis`."""
    length = image.shape[axis]
    if count == length:
        return image
    places = np.clip((np.arange(count) + 0.5) * (length / count) - 0.5, 0, length - 1)
    low = places.astype(np.intp)
    weight = (places - low).astype(np.float32).reshape([-1 if index == axis else 1 for index in range(3)])
    first: Image = image.take(low, axis)
    second = image.take(np.minimum(low + 1, length - 1), axis)
    second -= first
    second *= weight
    first += second
    return first


def resize_nearest(array: NDArray[ScalarT], size: Size) -> NDArray[ScalarT]:
    """A label map or mask (x, y, z) on a grid of `size`: the voxel in which each new centre lies."""
    indices = [((np.arange(count) + 0.5) * (length / count)).astype(np.intp) for count, length in zip(size, array.shape, strict=True)]
    found: NDArray[ScalarT] = array[np.ix_(*indices)]
    return found
