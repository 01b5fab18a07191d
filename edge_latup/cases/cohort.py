"""Write a seeded cohort of phantoms to disk as BraTS 2023 folders."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np

from edge_latup.cases.identity import PHANTOM_MARK
from edge_latup.cases.layout import CaseFiles, files_in
from edge_latup.cases.nifti import open_volume
from edge_latup.cases.orientation import Grid
from edge_latup.cases.phantom import Phantom, make_phantom
from edge_latup.cases.phantom.anatomy import BRATS_SHAPE
from edge_latup.cases.write import write_case
from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.spec import MODALITIES

WHITE_MATTER_INTENSITY: Final = 600.0
"""Scanner units that white matter gets; BraTS volumes are of this order."""


def brats_grid(shape: tuple[int, int, int]) -> Grid:
    """The BraTS geometry for any shape: 1 mm, array axes L, P, S, origin as in the SRI24 atlas files."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = shape[1] - 1
    return Grid(shape=shape, affine=affine)


def _scaled(image: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = np.clip(np.rint(image * WHITE_MATTER_INTENSITY), 0, 32767).astype(np.int16)
    return scaled


def write_phantom(phantom: Phantom, out: Path, name: str) -> CaseFiles:
    """Write one phantom to out/name/ and return its files.

    Raises:
        InputError: a file cannot be written.
    """
    images = {modality: _scaled(image) for modality, image in phantom.images.items()}
    grid = brats_grid(phantom.label.shape)
    write_case(out / name, name, images, phantom.label, grid, description=PHANTOM_MARK)
    files = files_in(out / name)
    if files is None:
        raise InputError(f"{out / name} was written but holds no case")
    return files


def _kept(folder: Path, shape: tuple[int, int, int]) -> CaseFiles | None:
    """The complete case already in `folder`, or None where it is to be written."""
    files = files_in(folder) if folder.is_dir() else None
    if files is None or files.label is None or len(files.images) < len(MODALITIES):
        return None
    found = open_volume(files.first_file).shape
    if found != shape:
        raise InputError(f"{folder} already holds a case of shape {found}, not {shape}", "choose another --out, or remove that folder")
    return files


def _land(out: Path, seed: int, shape: tuple[int, int, int], index: int) -> CaseFiles:
    name = f"phantom-{seed:04d}-{index:04d}"
    return _kept(out / name, shape) or write_phantom(make_phantom(seed, index, shape=shape), out, name)


def _leave_interrupts_to_the_caller() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _side_by_side(land: Callable[[int], CaseFiles], indices: Sequence[int], workers: int) -> Iterator[CaseFiles]:
    """In processes, because drawing a phantom is mostly Python's and SciPy's work on one processor."""
    # Not forked: a runtime's threads may be holding locks.
    pool = ProcessPoolExecutor(min(workers, len(indices)), mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_caller)
    try:
        yield from pool.map(land, indices)
    except BrokenProcessPool as error:
        raise EdgeLatupError("a process that drew phantoms was ended: the machine may have run out of memory", "run it again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def write_cohort(
    out: Path, *, cases: int, seed: int, first: int = 0, shape: tuple[int, int, int] = BRATS_SHAPE, workers: int = 1
) -> Iterator[CaseFiles]:  # fmt: skip
    """Write phantoms `first` .. `first + cases - 1` of cohort `seed` into `out`, one folder each, yielding in that order as they land.

    Of every eight cases one has no tumour and one no enhancing tumour. A case that is already complete is kept. `workers` is how many are
    drawn side by side, each in a process of its own; the voxels are the same.

    Raises:
        InputError: `cases` is not positive, `shape` is too small, a case of another shape is there, or a file cannot be written.
        EdgeLatupError: one of the processes was ended.
    """
    if cases < 1:
        raise InputError(f"--cases must be at least 1, got {cases}", "give the number of cases to write, such as --cases 8")
    indices, land = range(first, first + cases), partial(_land, out, seed, shape)
    missing = sum(not (out / f"phantom-{seed:04d}-{index:04d}").is_dir() for index in indices)
    yield from _side_by_side(land, indices, workers) if min(workers, missing) > 1 else map(land, indices)
