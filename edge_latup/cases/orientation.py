"""Array axes to anatomical directions and back, read from the affine and never assumed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import nibabel.orientations
import numpy as np
from numpy.typing import NDArray

ScalarT = TypeVar("ScalarT", bound=np.generic)
_orientations: Final[Any] = nibabel.orientations  # it has no annotations


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The voxel grid a case came in: shape (x, y, z), affine float64 (4, 4) from voxel index to RAS millimetres."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def orientation(self) -> str:
        """Nearest anatomical code of the array axes, such as "LPS"."""
        return "".join(_orientations.aff2axcodes(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the array axes, in millimetres."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    def distance_mm(self, other: Grid) -> float:
        """Farthest any one voxel of this grid lies from its place on `other`, in millimetres; it is a corner of the volume."""
        corners = np.array([(*corner, 1.0) for corner in itertools.product(*((0, size - 1) for size in self.shape))])
        return float(np.linalg.norm((corners @ (self.affine - other.affine).T)[:, :3], axis=1).max())

    def reorient(self, array: NDArray[ScalarT], orientation: str) -> NDArray[ScalarT]:
        """A view of `array` (on this grid) with its axes in `orientation` order."""
        return _turned(array, self._own(), _named(orientation))

    def restore(self, array: NDArray[ScalarT], orientation: str) -> NDArray[ScalarT]:
        """The inverse of `reorient`: from `orientation` axes back onto this grid."""
        return _turned(array, _named(orientation), self._own())

    def spacing_in(self, orientation: str) -> tuple[float, float, float]:
        """Voxel size in millimetres along the axes of `orientation`."""
        order = _orientations.ornt_transform(self._own(), _named(orientation))[:, 0].astype(int)
        x, y, z = (self.spacing_mm[int(source)] for source in np.argsort(order))
        return x, y, z

    def _own(self) -> NDArray[np.float64]:
        own: NDArray[np.float64] = _orientations.io_orientation(self.affine)
        return own


def _named(orientation: str) -> NDArray[np.float64]:
    named: NDArray[np.float64] = _orientations.axcodes2ornt(tuple(orientation))
    return named


def _turned(array: NDArray[ScalarT], start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[ScalarT]:
    turned: NDArray[ScalarT] = _orientations.apply_orientation(array, _orientations.ornt_transform(start, end))
    return turned
