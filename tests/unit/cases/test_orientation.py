"""Orientation comes from the affine: all 48 axis-aligned ones, checked against the affine itself and against nibabel."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.cases.orientation import Grid

CODES = ["".join(code) for axes in itertools.permutations(["LR", "PA", "IS"]) for code in itertools.product(*axes)]
DIRECTIONS = {"R": (0, 1.0), "L": (0, -1.0), "A": (1, 1.0), "P": (1, -1.0), "S": (2, 1.0), "I": (2, -1.0)}
"""Letter to (world axis, sign) in nibabel's RAS millimetres."""
codes = st.sampled_from(CODES)
shapes = st.tuples(*[st.integers(1, 6)] * 3)
spacings = st.tuples(*[st.floats(0.3, 6)] * 3)


def affine_of(code: str, spacing: tuple[float, ...] = (1, 1, 1), origin: tuple[float, ...] = (5, -7, 11)) -> np.ndarray:
    """Affine whose array axes run towards the letters of `code`; written out here, independent of nibabel."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (letter, size) in enumerate(zip(code, spacing, strict=True)):
        world, sign = DIRECTIONS[letter]
        affine[world, axis] = sign * size
    affine[:3, 3] = origin
    return affine


def grid_of(code: str, shape: tuple[int, ...] = (3, 4, 5), spacing: tuple[float, ...] = (1, 1, 1)) -> Grid:
    return Grid(shape=(shape[0], shape[1], shape[2]), affine=affine_of(code, spacing))


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape)


def test_there_are_48() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("code", CODES)
def test_the_code_is_read_from_the_affine(code: str) -> None:
    assert grid_of(code).orientation == code


@given(codes, codes, shapes)
def test_reorient_then_restore_is_the_identity(own: str, wanted: str, shape: tuple[int, int, int]) -> None:
    grid, array = grid_of(own, shape), numbered(shape)
    np.testing.assert_array_equal(grid.restore(grid.reorient(array, wanted), wanted), array)


@given(codes, shapes)
def test_its_own_orientation_changes_nothing(own: str, shape: tuple[int, int, int]) -> None:
    np.testing.assert_array_equal(grid_of(own, shape).reorient(numbered(shape), own), numbered(shape))


@given(codes, codes, shapes, spacings, st.data())
def test_a_voxel_stays_where_the_affine_says(
    own: str, wanted: str, shape: tuple[int, int, int], spacing: tuple[float, float, float], data: st.DataObject
) -> None:
    """Along each reoriented axis the world coordinate grows towards the letter asked for, by the spacing, from the volume's edge."""
    grid = grid_of(own, shape, spacing)
    marked = data.draw(st.tuples(*(st.integers(0, size - 1) for size in shape)))
    array = np.zeros(shape)
    array[marked] = 1
    turned = np.argwhere(grid.reorient(array, wanted))[0]
    world = grid.affine @ [*marked, 1]
    corners = np.array([grid.affine @ [*corner, 1] for corner in itertools.product(*((0, size - 1) for size in shape))])
    for index, letter, size in zip(turned, wanted, grid.spacing_in(wanted), strict=True):
        axis, sign = DIRECTIONS[letter]
        assert sign * world[axis] == pytest.approx((sign * corners[:, axis]).min() + index * size)


@given(codes, shapes)
def test_ras_agrees_with_nibabels_closest_canonical(own: str, shape: tuple[int, int, int]) -> None:
    grid, array = grid_of(own, shape), numbered(shape)
    reference = nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.int16), grid.affine))
    np.testing.assert_array_equal(grid.reorient(array, "RAS"), np.asarray(reference.dataobj))
    assert grid.spacing_in("RAS") == pytest.approx(reference.header.get_zooms())


@given(st.tuples(*[st.floats(-0.4, 0.4)] * 3), codes)
def test_an_oblique_volume_has_the_nearest_code(angles: tuple[float, float, float], own: str) -> None:
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    affine = affine_of(own, (1, 2, 3))
    affine[:3, :3] = rotation @ affine[:3, :3]
    grid = Grid(shape=(3, 4, 5), affine=affine)
    assert grid.orientation == "".join(nib.aff2axcodes(affine))
    assert grid.spacing_mm == pytest.approx((1, 2, 3))
    np.testing.assert_array_equal(grid.restore(grid.reorient(numbered((3, 4, 5)), "LPS"), "LPS"), numbered((3, 4, 5)))


@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(x * x for x in q) > 0.1), codes, shapes, spacings)
def test_any_rotation_and_spacing_goes_to_any_orientation_and_back(
    quaternion: tuple[float, float, float, float], wanted: str, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    """Also where two codes are as near, at 45 degrees: some code is taken, and it is taken both ways."""
    affine = np.eye(4)
    affine[:3, :3] = nib.quaternions.quat2mat(quaternion) * np.array(spacing)
    grid = Grid(shape=shape, affine=affine)
    assert grid.orientation in CODES
    turned = grid.reorient(numbered(shape), wanted)
    assert sorted(turned.shape) == sorted(shape)
    np.testing.assert_array_equal(grid.restore(turned, wanted), numbered(shape))
    assert grid.spacing_mm == pytest.approx(spacing)
    assert sorted(grid.spacing_in(wanted)) == pytest.approx(sorted(spacing))


def test_spacing_follows_its_axis() -> None:
    grid = grid_of("SAL", (3, 4, 5), (5.0, 0.5, 0.9))
    assert grid.spacing_mm == pytest.approx((5.0, 0.5, 0.9))
    assert grid.spacing_in("LPS") == pytest.approx((0.9, 0.5, 5.0))
    assert grid.spacing_in("PSR") == pytest.approx((0.5, 5.0, 0.9))


def test_distance_between_grids_is_that_of_the_farthest_corner() -> None:
    first, second = grid_of("RAS", (11, 11, 11)), grid_of("RAS", (11, 11, 11), (1, 1, 1.01))
    assert first.distance_mm(second) == pytest.approx(0.1)
    assert first.distance_mm(first) == 0
    shifted = Grid(shape=first.shape, affine=affine_of("RAS", origin=(8, -3, 11)))
    assert first.distance_mm(shifted) == pytest.approx(5)
