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
from edge_latup.cases.layout import SUFFIXES
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case
from edge_latup.errors import InputError
from edge_latup.records import replacing
from edge_latup.spec import Modality

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


def _save(image: Any, path: Path) -> None:
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"cannot write {path}: label maps and volumes are NIfTI", f"end the name in {' or '.join(SUFFIXES)}")
    with _refusal(path), replacing(path, suffix) as temporary:
        nib.save(image, temporary)


def write_label_map(label: NDArray[np.uint8], case: Case, path: Path) -> None:
    """Write a canonical label map (x, y, z) on `case`'s grid, in the numbers of its convention, as uint8 NIfTI.

    Raises:
        InputError: the shape is not the case's, the name is not a NIfTI file's, or the file cannot be written. No partial file is left.
    """
    if label.shape != case.grid.shape:
        raise InputError(f"label map {label.shape} is not on the grid of case {case.name} {case.grid.shape}")
    _save(_nifti(from_canonical(label, case.convention), case.grid), path)


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
        nifti = _nifti(image, grid)
        nifti.header["descrip"] = description
        _save(nifti, folder / f"{name}-{NAMES_2023[modality]}.nii.gz")
    if label is not None:
        _save(_nifti(label, grid), folder / f"{name}-seg.nii.gz")
