"""Open one NIfTI file whole, or refuse it by name: damaged, truncated, without dimensions or without a geometry."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from edge_latup.cases.orientation import Grid
from edge_latup.errors import CaseError

GZIP_MAGIC: Final = b"\x1f\x8b"
BAD_HEADER: Final = (ImageFileError, HeaderDataError, WrapStructError, OSError, ValueError, TypeError, ArithmeticError)
"""What nibabel raises on a header that makes no sense."""
FLATTEST: Final = 1e-3
"""Smallest volume of the parallelepiped spanned by the three unit axes; 1 for orthogonal axes, 0 where two coincide."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An opened file: every byte is there and its geometry is known; the voxels are not yet decoded."""

    path: Path
    shape: tuple[int, ...]
    grid: Grid
    image: Any

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
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            return np.asarray(self.image.dataobj[..., channel or 0] if len(self.shape) == 4 else self.image.dataobj, dtype=np.float32)


def open_volume(path: Path) -> Volume:
    """Open a single-file NIfTI-1 or NIfTI-2, gzipped or not (told by content).

    Raises:
        CaseError: the file is missing, unreadable, damaged, truncated, not NIfTI, holds no voxel or no plain numbers, or does not
            say how it lies in space.
    """
    content = _content(path)
    try:
        with np.errstate(all="ignore"):  # an affine of nonsense is refused below, without numpy's own warnings
            image = _image_class(path, content).from_bytes(content)
        shape = tuple(int(size) for size in image.shape)
        kind = image.get_data_dtype()
        needed = int(image.dataobj.offset) + math.prod(shape) * kind.itemsize
    except BAD_HEADER as error:
        raise CaseError(f"{path} has a NIfTI header that cannot be read ({error})", "convert or copy the file again") from error
    _check_extent(path, shape, kind)
    if len(content) < needed:
        raise CaseError(f"{path} is truncated: {len(content)} bytes of {needed}", "copy the file again and compare checksums")
    return Volume(path=path, shape=shape, grid=_grid(path, image, shape), image=image)


def _content(path: Path) -> bytes:
    """The file's bytes, decompressed. The gzip checksum is verified: a flipped bit must not pass as anatomy."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except FileNotFoundError:
        raise CaseError(f"{path} does not exist", "check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CaseError(f"{path} is truncated or damaged ({error})", "copy the file again and compare checksums") from error
    except OSError as error:
        raise CaseError(f"{path} cannot be read ({error.strerror or error})", "check that it is a file and that you may read it") from error


def _image_class(path: Path, content: bytes) -> Any:
    """The reader for the file's magic number (NIfTI-1: bytes 344-347, NIfTI-2: bytes 4-7)."""
    if content[344:348] == b"n+1\0":
        return nib.Nifti1Image
    if content[4:8] == b"n+2\0":
        return nib.Nifti2Image
    raise CaseError(f"{path} is not a NIfTI file, or is cut inside its header", "convert or copy the file again")


def _check_extent(path: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    if len(shape) < 3:
        raise CaseError(f"{path} has {len(shape)} dimensions {shape}, expected 3", "give one 3-D volume per modality")
    if min(shape) < 1:
        raise CaseError(f"{path} is empty: its shape is {shape}", "export the series again")
    if kind.kind not in "iuf":
        raise CaseError(f"{path} holds {kind} values, expected one number per voxel", "export the series as plain intensities")


def _grid(path: Path, image: Any, shape: tuple[int, ...]) -> Grid:
    header = image.header
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        # nibabel would then assume that the first axis runs to the left.
        raise CaseError(f"{path} has neither qform nor sform: which side is left is unknown", "export the series again with its geometry")
    affine = np.asarray(image.affine, dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < FLATTEST:
        raise CaseError(f"{path} has an affine that gives no orientation", "export the series again with its geometry")
    return Grid(shape=(shape[0], shape[1], shape[2]), affine=affine)
