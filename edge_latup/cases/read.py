"""Read a case into memory and refuse what cannot be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.labels import Convention, convention_of, distinct_values, to_canonical
from edge_latup.cases.layout import CaseFiles, Source
from edge_latup.cases.nifti import open_volume
from edge_latup.cases.orientation import Grid
from edge_latup.errors import CaseError
from edge_latup.spec import Modality

GRID_TOLERANCE_MM = 0.1
"""Farthest one voxel may lie apart in two volumes of one case; header rounding moves it by a few hundredths."""
READERS: Final = 2
"""Files that are unpacked side by side, which zlib allows. Each holds its file's bytes beside the decoded volumes: no more of them."""


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


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What is kept of one file once its bytes are let go: where it lies, and float32 (x, y, z) by what was asked of it."""

    path: Path
    grid: Grid
    values: dict[str, NDArray[np.float32]]


def _check_voxels(values: NDArray[np.float32], path: Path, what: str) -> None:
    """NaN and infinity show in the extremes: a sound volume is looked through without a mask of its size."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise CaseError(f"{path} ({what}) holds {count} voxels that are NaN or infinite", "repair the volume; they are not guessed at")
    if low == high and what != "label":  # a label without tumour is a label
        raise CaseError(f"{path} ({what}) is empty: every voxel is {low:g}", "export the series again")


def _check_same_grid(first: _Read, other: _Read) -> None:
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


def _by_file(sources: dict[Modality, Source]) -> dict[Path, dict[str, int | None]]:
    """Channel by modality of each file, so that a 4-D file is opened once."""
    files: dict[Path, dict[str, int | None]] = {}
    for modality, source in sources.items():
        files.setdefault(source.path, {})[modality] = source.channel
    return files


def _read_file(path: Path, channels: dict[str, int | None]) -> _Read:
    volume = open_volume(path)
    values = {}
    for what, channel in channels.items():
        values[what] = volume.values(channel)
        _check_voxels(values[what], path, what)
    return _Read(path=path, grid=volume.grid, values=values)


@contextmanager
def _readers() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="edge-latup-read")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # after a refusal the files that wait are not read for nothing


def _read_files(files: dict[Path, dict[str, int | None]]) -> list[_Read]:
    """All files, on one grid. They are judged in the order given, whichever is read first: the same case gives the same error."""
    done: list[_Read] = []
    with _readers() as pool:
        for future in [pool.submit(_read_file, path, channels) for path, channels in files.items()]:
            done.append(future.result())
            _check_same_grid(done[0], done[-1])
    return done


def read_case(files: CaseFiles, modalities: tuple[Modality, ...], *, with_label: bool = True) -> Case:
    """Read the named modalities (and the label where there is one) and check that they belong together.

    Raises:
        CaseError: a modality is missing, a file is truncated, too large or of no known format, shapes or affines disagree, a volume
            holds NaN or is empty, or a label value is unknown. The message names the file.
        MissingDependencyError: a file is a MetaImage, and SimpleITK is not installed.
    """
    wanted = _by_file(_wanted(files, modalities))
    marked = files.label if with_label else None
    done = _read_files(wanted | ({marked: {"label": None}} if marked else {}))
    images = {modality: next(read.values[modality] for read in done if modality in read.values) for modality in modalities}
    label, convention = None, files.convention
    if marked:
        values = done[-1].values["label"]
        found = distinct_values(values)
        convention = convention_of({int(value) for value in found}, files.convention)
        label = to_canonical(values, convention, str(marked), found)
    return Case(name=files.name, images=images, label=label, grid=done[0].grid, convention=convention)
