"""Read a case into memory and refuse what cannot be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.labels import Convention, convention_of, to_canonical
from edge_latup.cases.layout import CaseFiles, Source
from edge_latup.cases.nifti import Volume, open_volume
from edge_latup.cases.orientation import Grid
from edge_latup.errors import CaseError
from edge_latup.spec import Modality

GRID_TOLERANCE_MM = 0.1
"""Farthest one voxel may lie apart in two volumes of one case; header rounding moves it by a few hundredths."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One exam in memory, on its own grid.

    images: float32 (x, y, z) by modality, in the file's own intensity units.
    label: canonical uint8 (x, y, z) or None.
    convention: the numbers a label map of this case is written in.
    """

    name: str
    images: dict[Modality, NDArray[np.float32]]
    label: NDArray[np.uint8] | None
    grid: Grid
    convention: Convention


def _check_finite(values: NDArray[np.float32], path: Path, what: str) -> None:
    if not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise CaseError(f"{path} ({what}) holds {count} voxels that are NaN or infinite", "repair the volume; they are not guessed at")


def _check_not_constant(values: NDArray[np.float32], path: Path, what: str) -> None:
    if float(values.max()) == float(values.min()):
        raise CaseError(f"{path} ({what}) is empty: every voxel is {float(values.flat[0]):g}", "export the series again")


def _check_same_grid(first: Volume, other: Volume) -> None:
    hint = "co-register and resample all volumes of the case to one grid"
    if first.grid.shape != other.grid.shape:
        raise CaseError(f"shapes disagree: {first.path.name} is {first.grid.shape}, {other.path} is {other.grid.shape}", hint)
    distance = first.grid.distance_mm(other.grid)
    if distance > GRID_TOLERANCE_MM:
        raise CaseError(f"affines disagree: a voxel lies {distance:.3g} mm apart in {first.path.name} and {other.path}", hint)


def _wanted(files: CaseFiles, modalities: tuple[Modality, ...]) -> dict[Modality, Source]:
    if not modalities:
        raise CaseError(f"no modality asked of case {files.name}", "name at least one modality in the model spec")
    missing = [modality for modality in modalities if modality not in files.images]
    if missing:
        raise CaseError(
            f"case {files.name} in {files.folder} has no {' and no '.join(missing)} volume (found: {', '.join(files.images)})",
            "add the file, named for example NAME_flair.nii.gz, NAME_t1ce.nii.gz, NAME_t2.nii.gz",
        )
    return {modality: files.images[modality] for modality in modalities}


def _read_label(files: CaseFiles, path: Path, reference: Volume) -> tuple[NDArray[np.uint8], Convention]:
    volume = open_volume(path)
    _check_same_grid(reference, volume)
    values = volume.values(None)
    _check_finite(values, path, "label")
    convention = convention_of({int(value) for value in np.unique(values)}, files.convention)
    return to_canonical(values, convention, str(path)), convention


def read_case(files: CaseFiles, modalities: tuple[Modality, ...], *, with_label: bool = True) -> Case:
    """Read the named modalities (and the label where there is one) and check that they belong together.

    Raises:
        CaseError: a modality is missing, a file is truncated or not NIfTI, shapes or affines disagree, a volume holds
            NaN or is empty, or a label value is unknown. The message names the file.
    """
    sources = _wanted(files, modalities)
    reference = volume = open_volume(next(iter(sources.values())).path)
    images: dict[Modality, NDArray[np.float32]] = {}
    for modality, source in sources.items():
        # The channels of one 4-D file follow each other: it is opened once. No more than two files are held at a time.
        volume = volume if volume.path == source.path else open_volume(source.path)
        _check_same_grid(reference, volume)
        images[modality] = volume.values(source.channel)
        _check_finite(images[modality], source.path, modality)
        _check_not_constant(images[modality], source.path, modality)
    label, convention = None, files.convention
    if with_label and files.label is not None:
        label, convention = _read_label(files, files.label, reference)
    return Case(name=files.name, images=images, label=label, grid=reference.grid, convention=convention)
