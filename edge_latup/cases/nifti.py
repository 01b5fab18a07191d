"""Open one volume file whole, or refuse it by name: damaged, truncated, without dimensions or without a geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from edge_latup.cases.metaimage import METAIMAGE_SUFFIXES, open_metaimage
from edge_latup.cases.orientation import Grid
from edge_latup.cases.stream import unpacked
from edge_latup.cases.volume import Volume, check_extent, check_size, grid_of
from edge_latup.errors import CaseError

BAD_HEADER: Final = (ImageFileError, HeaderDataError, WrapStructError, OSError, ValueError, TypeError, ArithmeticError)
"""What nibabel raises on a header that makes no sense."""
NIFTI1_BYTES: Final = 348
NIFTI2_BYTES: Final = 540


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What a header says of its file; not yet believed. `start`: the byte at which the voxels begin."""

    image_class: Any
    header: Any
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    start: int
    scaling: tuple[float, float] | None
    affine: NDArray[np.float64]

    @property
    def size(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.shape) * self.kind.itemsize


def open_volume(path: Path) -> Volume:
    """Open a single-file NIfTI-1 or NIfTI-2, gzipped or not (told by content), or a MetaImage (told by its ending).

    The header is read first and held against the size of the file and the limits in `edge_latup.cases.volume`; then no more is
    unpacked than it promises. All checksums are verified: a flipped bit must not pass as anatomy.

    Raises:
        CaseError: the file is missing, unreadable, damaged, truncated, too large, longer than its header says, of another format, holds
            no voxel or no plain numbers, or does not say how it lies in space.
        MissingDependencyError: it is a MetaImage, and SimpleITK is not installed.
    """
    if path.name.lower().endswith(METAIMAGE_SUFFIXES):
        return open_metaimage(path)
    with unpacked(path) as stream:
        header = _read_header(path, stream.file.read(NIFTI2_BYTES))
        check_extent(path, header.shape, header.kind)
        stream.expect(header.start + header.size)
        check_size(path, header.shape, header.kind)
        grid = _grid(path, header)
        stored = stream.block(header.start, header.size).view(header.kind).reshape(header.shape, order="F")
    return Volume(path=path, grid=grid, image=header.image_class(stored, None, header.header), scaling=header.scaling)


def _read_header(path: Path, head: bytes) -> _Header:
    image_class, size = _format(path, head)
    try:
        with np.errstate(all="ignore"):  # an affine of nonsense is refused below, without numpy's own warnings
            # The header's own bytes only: given more, nibabel reads the extensions, as long as they say they are.
            header = image_class.header_class(head[:size])
            slope, intercept = header.get_slope_inter()
            return _Header(
                image_class=image_class,
                header=header,
                shape=tuple(int(length) for length in header.get_data_shape()),
                kind=header.get_data_dtype(),
                start=int(header.get_data_offset()),
                scaling=None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept),
                affine=np.asarray(header.get_best_affine(), dtype=np.float64),
            )
    except BAD_HEADER as error:
        raise CaseError(f"{path} has a NIfTI header that cannot be read ({error})", "convert or copy the file again") from error


def _format(path: Path, head: bytes) -> tuple[Any, int]:
    """Reader and length of the header, by the file's magic number (NIfTI-1: bytes 344-347, NIfTI-2: bytes 4-7)."""
    if head[344:348] == b"n+1\0":
        return nib.Nifti1Image, NIFTI1_BYTES
    if head[4:8] == b"n+2\0":
        return nib.Nifti2Image, NIFTI2_BYTES
    raise CaseError(f"{path} is not a NIfTI file, or is cut inside its header", "convert or copy the file again")


def _grid(path: Path, header: _Header) -> Grid:
    if header.header["qform_code"] == 0 and header.header["sform_code"] == 0:
        # nibabel would then assume that the first axis runs to the left.
        raise CaseError(f"{path} has neither qform nor sform: which side is left is unknown", "export the series again with its geometry")
    return grid_of(path, header.affine, header.shape)
