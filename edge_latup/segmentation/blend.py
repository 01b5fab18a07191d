"""The aggregator: averages windows and lets go of every slab of the volume as soon as no further window reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_latup.segmentation.prepare import CropBox
from edge_latup.spec import Size

Probabilities = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Slab:
    """Mean class probabilities float32 (classes, last - first, y, z) of the planes first <= x < last of a volume.

    covered: where any window lay, bool (last - first, y, z); elsewhere the probabilities are 0.
    """

    first: int
    last: int
    mean: Probabilities
    covered: NDArray[np.bool_]


class SlabBlender:
    """Weighted mean of overlapping windows, holding no more of the volume than one window is deep.

    Windows must come in the order of their start along the first axis, as `window_boxes` gives them. Memory is
    (classes + 1) * 4 * window depth * height * width bytes, instead of the whole volume's.

    Args:
        shape: the volume's.
        weights: float32 (D, H, W), the importance of a window's voxels.
        classes: channels of the probabilities.
    """

    def __init__(self, shape: Size, weights: NDArray[np.float32], classes: int) -> None:
        self._weights, self._shape = weights, shape
        depth = min(weights.shape[0], shape[0])
        self._sum = np.zeros((classes, depth, *shape[1:]), dtype=np.float32)
        self._weight = np.zeros((depth, *shape[1:]), dtype=np.float32)
        self._first = 0

    def add(self, box: CropBox, probabilities: Probabilities) -> Iterator[Slab]:
        """Add one window, float32 (classes, D, H, W); first yields the planes that this and later windows cannot reach.

        Raises:
            ValueError: the window starts before one that was added earlier.
        """
        start = max(box.start[0], 0)
        if start < self._first:
            raise ValueError(f"window at {box.start} comes after one that starts at plane {self._first}")
        yield from self._release(start)
        inside = CropBox(start=(box.start[0] - self._first, *box.start[1:]), size=box.size, shape=self._held_shape)
        inside.add(probabilities * self._weights, self._sum)
        inside.add(self._weights, self._weight)

    def finish(self) -> Iterator[Slab]:
        """The planes that are left."""
        yield from self._release(self._shape[0])

    @property
    def _held_shape(self) -> Size:
        return (self._weight.shape[0], *self._shape[1:])

    def _release(self, upto: int) -> Iterator[Slab]:
        """Yield the held planes before `upto`, skip to it, and clear what becomes free."""
        held = self._weight.shape[0]
        if upto > self._first:
            count = min(upto, self._first + held) - self._first
            weight = self._weight[:count]
            covered = weight > 0
            mean: Probabilities = np.divide(self._sum[:, :count], np.where(covered, weight, 1), dtype=np.float32)
            yield Slab(first=self._first, last=self._first + count, mean=mean, covered=covered)
            for array in (self._sum, self._weight):
                # Plane by plane: numpy would copy the whole buffer first, and it is most of the memory.
                for plane in range(held - count):
                    array[..., plane, :, :] = array[..., plane + count, :, :]
                array[..., held - count :, :, :] = 0
            self._first = upto
