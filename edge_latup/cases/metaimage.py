"""MetaImage (.mha; .mhd beside its .raw or .zraw), the format of BRATS 2012-2015, with the geometry that SimpleITK reads.

SimpleITK is asked for the geometry alone. The voxels are read here, because it takes a damaged or short packed stream without a word,
reserves the memory that a header asks for before it looks at the file, and follows a data file's name out of the folder.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.metaheader import CONVERT, MetaHeader, read_metaheader
from edge_latup.cases.orientation import Grid
from edge_latup.cases.stream import COPY_AGAIN, DEFLATE_RATIO, TRAILING_BYTES, Inflated, Stream, reading, size_of
from edge_latup.cases.volume import Volume, check_extent, check_size, grid_of
from edge_latup.errors import CaseError, MissingDependencyError, install_hint

METAIMAGE_SUFFIXES: Final = (".mha", ".mhd")
LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""SimpleITK's world runs to the patient's left, back and head, `Grid`'s to the right, front and head."""


def simpleitk_for(path: Path) -> Any:
    """The optional package that `path` needs.

    Raises:
        MissingDependencyError: SimpleITK is not installed.
    """
    try:
        return importlib.import_module("SimpleITK")  # so that the core imports without it
    except ImportError as error:
        raise MissingDependencyError(f"{path} is a MetaImage, which needs SimpleITK", install_hint("metaimage")) from error


def open_metaimage(path: Path) -> Volume:
    """Open a MetaImage whole; its data file, if it has one, must lie beside it.

    Raises:
        CaseError: the file or its data is missing, damaged, truncated, too large, longer than its header says, not a 3-D volume of one
            number per voxel, or without a geometry.
        MissingDependencyError: SimpleITK is not installed.
    """
    sitk = simpleitk_for(path)
    header = read_metaheader(path)
    check_extent(path, header.shape, header.kind)
    with _voxels(header) as stream:
        stream.expect(header.size)
        check_size(path, header.shape, header.kind)
        grid = grid_of(path, _affine(sitk, header), header.shape)
        stored = stream.block(0, header.size).view(header.kind).reshape(header.shape, order="F")
    # NIfTI-2 in memory alone: its header has no limit of 32767 voxels on an axis.
    return Volume(path=path, grid=grid, image=nib.Nifti2Image(stored, grid.affine, dtype=header.kind))  # type: ignore[no-untyped-call]


def save_metaimage(array: NDArray[np.uint8], grid: Grid, path: Path) -> None:
    """Write (x, y, z) as a packed .mha and read it back, since SimpleITK does not notice a disk that is full.

    Raises:
        MissingDependencyError: SimpleITK is not installed.
        OSError: the file cannot be written.
    """
    sitk = simpleitk_for(path)
    affine = LPS_TO_RAS @ grid.affine
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(grid.spacing_mm)
    image.SetDirection((affine[:3, :3] / grid.spacing_mm).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        written = open_metaimage(path).image.dataobj
    except (RuntimeError, CaseError) as error:
        raise OSError(f"SimpleITK could not write it whole ({error})") from error
    if not np.array_equal(written, array):
        raise OSError("what SimpleITK wrote is not what it was given")


@contextmanager
def _voxels(header: MetaHeader) -> Iterator[Stream]:
    with reading(header.data) as file:
        stored = size_of(file) - header.start
        file.seek(header.start)
        if not header.packed:
            yield Stream(path=header.data, file=file, stored=stored, ratio=1)  # from where it stands
            return
        size = stored if header.packed_size is None else header.packed_size
        if stored < size:
            raise CaseError(f"{header.data} is truncated: {stored} packed bytes of {size}", COPY_AGAIN)
        if stored > size + TRAILING_BYTES or size < 0:
            raise CaseError(f"{header.data} has {stored} packed bytes, its header says {size}", CONVERT)
        plain = BufferedReader(Inflated(file, size))
        yield Stream(path=header.data, file=plain, stored=size, ratio=DEFLATE_RATIO)


def _affine(sitk: Any, header: MetaHeader) -> NDArray[np.float64]:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(header.path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CaseError(f"{header.path} has a MetaImage header that cannot be read ({reason})", CONVERT) from error
    if tuple(reader.GetSize()) != header.shape:
        raise CaseError(f"{header.path} has shape {header.shape}, or {tuple(reader.GetSize())} as SimpleITK reads it", CONVERT)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * np.asarray(reader.GetSpacing())
    affine[:3, 3] = reader.GetOrigin()
    return np.asarray(LPS_TO_RAS @ affine, dtype=np.float64)
