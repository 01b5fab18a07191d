"""An opened volume, whatever its format, and the limits every format is held to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from edge_latup.cases.orientation import Grid
from edge_latup.errors import CaseError

GIB: Final = 2**30
LARGEST_VOLUME: Final = 2 * GIB
"""Bytes of one 3-D volume as float32: 812 x 812 x 812 voxels. A head of 240 x 240 x 180 mm has 800 x 800 x 600 at 0.3 mm."""
LARGEST_FILE: Final = 8 * GIB
"""Bytes of all voxels in one file as stored: four such volumes, as MSD keeps a case."""
FLATTEST: Final = 1e-3
"""Smallest volume of the parallelepiped spanned by the three unit axes; 1 for orthogonal axes, 0 where two coincide."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An opened file: every byte is there and its geometry is known; the voxels are not yet converted.

    image: nibabel's view of it; `image.dataobj` is the stored array, before scaling.
    scaling: slope and intercept of the stored numbers, or None where they are the intensities.
    """

    path: Path
    grid: Grid
    image: Any
    scaling: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole file: three axes, and those of its channels."""
        return tuple(int(size) for size in self.image.shape)

    def values(self, channel: int | None) -> NDArray[np.float32]:
        """One 3-D volume (x, y, z) as float32 with the file's scaling applied; `channel` is the index in a 4-D file.

        Raises:
            CaseError: the file has other dimensions.
        """
        if channel is None and (len(self.shape) > 4 or math.prod(self.shape[3:]) != 1):
            raise CaseError(f"{self.path} has {len(self.shape)} dimensions {self.shape}, expected 3", "give one 3-D volume per modality")
        if channel is not None and (len(self.shape) != 4 or self.shape[3] <= channel):
            raise CaseError(
                f"{self.path} has shape {self.shape}, expected 4-D with at least {channel + 1} channels",
                "give a folder of 3-D files named by modality, or a 4-D file with the channels its dataset.json names",
            )
        stored: NDArray[Any] = self.image.dataobj[..., channel or 0] if len(self.shape) == 4 else self.image.dataobj
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            if self.scaling is not None:
                return _scaled(stored, *self.scaling)
            # One channel is copied, so that it does not hold the other channels in memory.
            return stored.astype(np.float32, order="F", copy=len(self.shape) == 4)


def _scaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    """Computed in float64 as nibabel does, but slice by slice: no second volume of twice the size."""
    values = np.empty(stored.shape, dtype=np.float32, order="F")
    for index in range(stored.shape[2]):
        values[..., index] = apply_read_scaling(stored[..., index], slope, intercept)
    return values


def check_extent(path: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    """Refuse what is no volume of numbers.

    Raises:
        CaseError: fewer than three axes, an axis without voxels, or not one real number per voxel.
    """
    if len(shape) < 3:
        raise CaseError(f"{path} has {len(shape)} dimensions {shape}, expected 3", "give one 3-D volume per modality")
    if min(shape) < 1:
        raise CaseError(f"{path} is empty: its shape is {shape}", "export the series again")
    if kind.kind not in "iuf":
        raise CaseError(f"{path} holds {kind} values, expected one number per voxel", "export the series as plain intensities")


def check_size(path: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    """Refuse what no exam needs, before memory is taken for it.

    Raises:
        CaseError: one volume or the whole file is larger than its limit.
    """
    volume, whole = math.prod(shape[:3]) * 4, math.prod(shape) * kind.itemsize
    for what, size, limit in (("one volume as float32", volume, LARGEST_VOLUME), ("the file unpacked", whole, LARGEST_FILE)):
        if size > limit:
            raise CaseError(
                f"{path} is too large: with its shape {shape} {what} takes {size / GIB:.1f} GiB, the limit is {limit // GIB} GiB",
                "check what its header says; if it is an exam, resample it to 1 mm first",
            )


def grid_of(path: Path, affine: NDArray[np.float64], shape: tuple[int, ...]) -> Grid:
    """The grid of a file with `affine`, float64 (4, 4), from voxel index to RAS millimetres.

    Raises:
        CaseError: the affine is not finite, or flat.
    """
    with np.errstate(all="ignore"):  # an affine of nonsense is refused here, without numpy's own warnings
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        sound = bool(np.isfinite(affine).all() and np.isfinite(lengths).all() and lengths.min() > 0)
        if not sound or abs(np.linalg.det(affine[:3, :3] / lengths)) < FLATTEST:
            raise CaseError(f"{path} has an affine that gives no orientation", "export the series again with its geometry")
    return Grid(shape=(shape[0], shape[1], shape[2]), affine=affine)
