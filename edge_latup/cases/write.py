"""Write label maps and whole cases: on their own grid, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.labels import from_canonical
from edge_latup.cases.metaimage import save_metaimage, simpleitk_for
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case
from edge_latup.errors import InputError
from edge_latup.records import replacing
from edge_latup.spec import Modality

NIFTI_SUFFIXES: Final = (".nii.gz", ".nii")
METAIMAGE_SUFFIX: Final = ".mha"
"""Not .mhd: header and data cannot be put in place in one step."""
OURS: Final = b"edge-latup label map"
"""In the header of a NIfTI label map, by which one that lost its sidecar is told from another tool's."""
NAMES_2023: Final[dict[Modality, str]] = {"flair": "t2f", "t1ce": "t1c", "t2": "t2w", "t1": "t1n"}


def _nifti(array: NDArray[np.generic], grid: Grid) -> Any:
    image: Any = nib.Nifti1Image(array, grid.affine)  # type: ignore[no-untyped-call]
    image.set_qform(grid.affine, code=1)
    image.set_sform(grid.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    return image


@contextmanager
def _refusal(path: Path) -> Iterator[None]:
    """Turn what the file system says into an error that names `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}", "free space or choose another --out") from error


def _save(array: NDArray[np.generic], grid: Grid, path: Path, description: bytes = b"") -> None:
    suffix = next((suffix for suffix in NIFTI_SUFFIXES if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        known = ", ".join((*NIFTI_SUFFIXES, METAIMAGE_SUFFIX))
        raise InputError(f"cannot write {path}: label maps and volumes are NIfTI, or MetaImage in one file", f"end the name in {known}")
    image = _nifti(array, grid)
    image.header["descrip"] = description
    with _refusal(path), replacing(path, suffix) as temporary:
        nib.save(image, temporary)


def write_label_map(label: NDArray[np.uint8], case: Case, path: Path) -> None:
    """Write a canonical label map (x, y, z) on `case`'s grid, in the numbers of its convention, as uint8 NIfTI or MetaImage (.mha).

    Raises:
        InputError: the shape is not the case's, the name is of no known format, or the file cannot be written. No partial file is left.
        MissingDependencyError: the name ends in .mha and SimpleITK is not installed.
    """
    if label.shape != case.grid.shape:
        raise InputError(f"label map {label.shape} is not on the grid of case {case.name} {case.grid.shape}")
    numbers = from_canonical(label, case.convention)
    if path.name.lower().endswith(METAIMAGE_SUFFIX):
        simpleitk_for(path)  # refuses by the name that was given, not by the temporary one
        with _refusal(path), replacing(path, METAIMAGE_SUFFIX) as temporary:
            save_metaimage(numbers, case.grid, temporary)
    else:
        _save(numbers, case.grid, path, OURS)


def write_case(
    folder: Path,
    name: str,
    images: dict[Modality, NDArray[np.int16]],
    label: NDArray[np.uint8] | None,
    grid: Grid,
    *,
    description: bytes = b"",
) -> None:
    """Write a case with BraTS 2023 names (NAME-t2f.nii.gz ... NAME-seg.nii.gz) into `folder`, which is created.

    `description` (at most 79 bytes) goes into the description field of every image's header.

    Raises:
        InputError: a file or the folder cannot be written.
    """
    with _refusal(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for modality, image in images.items():
        _save(image, grid, folder / f"{name}-{NAMES_2023[modality]}.nii.gz", description)
    if label is not None:
        _save(label, grid, folder / f"{name}-seg.nii.gz")
