"""A case in any orientation, spacing, storage and version of NIfTI: read as nibabel reads it, and its result is on its own grid."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.cases.layout import find_cases
from edge_latup.cases.nifti import open_volume
from edge_latup.cases.read import GRID_TOLERANCE_MM, Case, read_case
from edge_latup.cases.write import write_label_map
from edge_latup.errors import CaseError

CODES = ["".join(code) for axes in itertools.permutations(["LR", "PA", "IS"]) for code in itertools.product(*axes)]
KINDS = ("<i2", ">i2", "<u2", "<f4", ">f4", "<f8", "u1", "i1", "<i4", "<u4", "<i8")
shapes = st.tuples(*[st.integers(2, 6)] * 3)
spacings = st.tuples(*[st.floats(0.3, 6)] * 3)
angles = st.tuples(*[st.floats(-0.7, 0.7)] * 3)
"""Radians about the three axes; more turns an axis nearer to another code."""
origins = st.tuples(*[st.floats(-300, 300)] * 3)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any of the 48 axis codes, tilted or not, with any spacing and origin."""
    affine = np.eye(4)
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(draw(st.sampled_from(CODES)))), (1, 1, 1))[:3, :3]
    tilt = nib.eulerangles.euler2mat(*draw(st.one_of(st.just((0.0, 0.0, 0.0)), angles)))
    affine[:3, :3] = tilt @ np.linalg.inv(axes) * np.array(draw(spacings))
    affine[:3, 3] = draw(origins)
    return affine


@st.composite
def scalings(draw: st.DrawFn) -> tuple[float, float]:
    return draw(st.sampled_from([(1.0, 0.0), (0.5, 3.0), (0.1, -7.0), (2.5e-4, 0.0), (1.0, -1024.0)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder whose files every example replaces."""
    return tmp_path_factory.mktemp("case")


def write(path: Path, array: np.ndarray, affine: np.ndarray, make: Any = nib.Nifti1Image, scaling: tuple[float, float] = (1, 0)) -> Any:
    """The stored numbers of `array` under a header that scales them; nibabel's own reading of the file."""
    image = make(array, affine, dtype=array.dtype)
    image.header.set_slope_inter(*scaling)
    image.header["vox_offset"] = 544 if make is nib.Nifti2Image else 352
    header = image.header.as_byteswapped(">" if array.dtype.byteorder == ">" else "<")
    path.write_bytes(header.binaryblock + bytes(4) + array.tobytes(order="F"))
    return nib.load(path)


def read(folder: Path) -> Case:
    return read_case(find_cases(folder)[0], ("flair",))


@given(affines(), shapes, st.sampled_from(KINDS), scalings(), st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]), st.integers(0, 9))
def test_every_storage_is_read_as_nibabel_reads_it(
    folder: Path, affine: np.ndarray, shape: tuple[int, int, int], kind: str, scaling: tuple[float, float], make: Any, seed: int
) -> None:
    array = np.random.default_rng(seed).integers(-100 if np.dtype(kind).kind != "u" else 0, 127, shape).astype(kind)
    expected = write(folder / "a_flair.nii", array, affine, make, scaling)
    case = read(folder)
    assert case.images["flair"].dtype == np.float32
    np.testing.assert_array_equal(case.images["flair"], np.asarray(expected.dataobj, dtype=np.float32))
    np.testing.assert_array_equal(case.grid.affine, expected.affine)
    np.testing.assert_allclose(case.grid.affine, affine, atol=1e-3)
    assert case.grid.shape == shape


@given(affines(), shapes, st.integers(1, 5), st.sampled_from(KINDS), scalings(), st.integers(0, 9))
def test_every_channel_of_a_4d_file_is_read_as_nibabel_reads_it(
    folder: Path, affine: np.ndarray, shape: tuple[int, int, int], channels: int, kind: str, scaling: tuple[float, float], seed: int
) -> None:
    array = np.random.default_rng(seed).integers(0, 127, (*shape, channels)).astype(kind)
    expected = np.asarray(write(folder / "a.nii", array, affine, scaling=scaling).dataobj, dtype=np.float32)
    volume = open_volume(folder / "a.nii")
    (folder / "a.nii").unlink()
    for channel in range(channels):
        # nibabel drops a last axis of one voxel when it writes, not when it reads what another program wrote.
        np.testing.assert_array_equal(volume.values(channel), expected.reshape(array.shape)[..., channel])


@given(affines(), shapes, st.sampled_from([".nii", ".nii.gz", ".mha"]), st.integers(0, 9), st.sampled_from(CODES))
def test_a_result_found_in_any_orientation_lies_on_the_inputs_own_grid(
    folder: Path, affine: np.ndarray, shape: tuple[int, int, int], suffix: str, seed: int, wanted: str
) -> None:
    """What the network marks in its own axes comes back to the voxels it was found in, whatever the file's axes are."""
    random = np.random.default_rng(seed)
    array = random.permutation(np.prod(shape)).reshape(shape).astype(np.int16)  # no two voxels alike
    write(folder / "a_flair.nii", array, affine)
    case = read(folder)
    image = case.grid.reorient(case.images["flair"], wanted)
    found = (image > np.median(image)).astype(np.uint8) * 2
    path = folder / f"result{suffix}"
    write_label_map(case.grid.restore(found, wanted), case, path)
    result = open_volume(path)
    path.unlink()
    assert result.grid.shape == shape
    np.testing.assert_allclose(result.grid.affine, case.grid.affine, atol=1e-4)
    assert result.grid.distance_mm(case.grid) < GRID_TOLERANCE_MM / 100
    np.testing.assert_array_equal(result.values(None), np.where(array > np.median(array), 2, 0))


@given(affines(), shapes)
def test_a_volume_that_lies_elsewhere_is_refused_in_every_orientation(
    folder: Path, affine: np.ndarray, shape: tuple[int, int, int]
) -> None:
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    moved = affine.copy()
    moved[:3, 3] += 2 * GRID_TOLERANCE_MM
    write(folder / "a_flair.nii", array, affine)
    write(folder / "a_t2.nii", array, moved)
    files = find_cases(folder)[0]
    with pytest.raises(CaseError, match="affines disagree"):
        read_case(files, ("flair", "t2"))
    (folder / "a_t2.nii").unlink()
