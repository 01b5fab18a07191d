"""HD95 against MONAI and against brute force, with unequal voxel sizes; what happens where a mask is empty; volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from edge_latup.metrics.surface import Spacing, hd95, volume_ml

pytestmark = pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
SPACINGS: list[Spacing] = [(1.0, 1.0, 1.0), (0.5, 1.0, 3.0), (1.2, 0.9, 6.5)]
TOLERANCE = 1e-4
"""Relative. MONAI takes its percentile in float32, with 7 digits; the interpolation between two distances costs one or two."""
masks = arrays(np.bool_, (7, 6, 5))
spacings = st.tuples(*[st.floats(0.3, 8)] * 3)


def monai_hd95(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> float:
    import torch
    from monai.metrics import compute_hausdorff_distance

    pair = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (first, second)]
    return float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, directed=False, spacing=list(spacing)))


def surface_voxels(mask: np.ndarray) -> np.ndarray:
    """Indices of voxels of the mask with one of six neighbours outside it, or outside the volume."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(mask)
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    return np.argwhere(mask & ~inside)


def brute_force(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """All distances in mm from each surface to the other."""
    distances = cdist(surface_voxels(first) * np.array(spacing), surface_voxels(second) * np.array(spacing))
    return distances.min(axis=1), distances.min(axis=0)


def ball(centre: tuple[float, float, float], radius: float, shape: tuple[int, int, int] = (24, 22, 20)) -> np.ndarray:
    grid = np.indices(shape).astype(float)
    return np.asarray(sum((grid[axis] - centre[axis]) ** 2 for axis in range(3)) <= radius**2)


HAND_MADE = {
    "two balls": (ball((11, 10, 9), 6), ball((13, 12, 9), 5)),
    "far apart": (ball((4, 4, 4), 2), ball((20, 18, 16), 3)),
    "one inside the other": (ball((11, 10, 9), 8), ball((11, 10, 9), 3)),
    "at the border": (ball((0, 0, 0), 6), ball((2, 0, 0), 6)),
    "a stray voxel": (ball((11, 10, 9), 6), ball((11, 10, 9), 6) | ball((23, 21, 19), 0)),
    "single voxels": (ball((3, 3, 3), 0), ball((9, 5, 4), 0)),
    "full volume": (np.ones((24, 22, 20), bool), ball((11, 10, 9), 6)),
    "hollow": (ball((11, 10, 9), 8) & ~ball((11, 10, 9), 5), ball((11, 10, 9), 7)),
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", HAND_MADE)
def test_shapes_made_by_hand_get_monais_distance(name: str, spacing: Spacing) -> None:
    first, second = HAND_MADE[name]
    assert hd95(first, second, spacing) == pytest.approx(monai_hd95(first, second, spacing), rel=TOLERANCE)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(5))
def test_random_masks_get_monais_distance(seed: int, spacing: Spacing) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.random((12, 11, 10)) < share for share in (0.02 + 0.2 * seed, 0.3))
    assert hd95(first, second, spacing) == pytest.approx(monai_hd95(first, second, spacing), rel=TOLERANCE)


@given(masks, masks, spacings)
def test_both_variants_are_those_of_brute_force(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> None:
    first[0, 0, 0] = second[-1, -1, -1] = True
    there, back = brute_force(first, second, spacing)
    assert hd95(first, second, spacing) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert hd95(first, second, spacing, combine="pooled") == pytest.approx(np.percentile(np.concatenate([there, back]), 95))


@given(masks, masks, spacings)
def test_distance_is_symmetric_and_grows_with_the_voxel(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> None:
    first[3, 3, 3] = second[3, 3, 3] = True
    distance = hd95(first, second, spacing)
    assert distance is not None
    assert hd95(second, first, spacing) == pytest.approx(distance)
    x, y, z = spacing
    assert hd95(first, second, (2 * x, 2 * y, 2 * z)) == pytest.approx(2 * distance)
    assert hd95(first, first, spacing) == 0


def test_where_a_mask_lies_in_the_volume_does_not_matter() -> None:
    first, second = HAND_MADE["two balls"]
    spacing = (1.2, 0.9, 6.5)
    assert hd95(np.pad(first, 5), np.pad(second, 5), spacing) == hd95(first, second, spacing)


@pytest.mark.parametrize("combine", ["larger", "pooled"])
def test_two_empty_masks_agree_and_one_has_no_distance(combine: str) -> None:
    nothing, something = np.zeros((5, 5, 5), bool), ball((2, 2, 2), 1, (5, 5, 5))
    assert hd95(nothing, nothing, (1, 1, 1), combine=combine) == 0  # type: ignore[arg-type]
    assert hd95(nothing, something, (1, 1, 1), combine=combine) is None  # type: ignore[arg-type]
    assert hd95(something, nothing, (1, 1, 1), combine=combine) is None  # type: ignore[arg-type]


def test_a_distance_known_by_heart() -> None:
    """Two single voxels: 3 steps of 1 mm and 4 of 0.5 mm apart."""
    first, second = np.zeros((8, 8, 8), bool), np.zeros((8, 8, 8), bool)
    first[1, 1, 1] = second[4, 5, 1] = True
    assert hd95(first, second, (1, 0.5, 9)) == pytest.approx(np.hypot(3, 2))


def test_the_masks_are_not_changed() -> None:
    first, second = (mask.copy() for mask in HAND_MADE["two balls"])
    hd95(first, second, (1, 1, 1))
    np.testing.assert_array_equal(first, HAND_MADE["two balls"][0])
    np.testing.assert_array_equal(second, HAND_MADE["two balls"][1])


@given(masks, spacings)
def test_volume_is_voxels_times_their_size(mask: np.ndarray, spacing: Spacing) -> None:
    assert volume_ml(mask, spacing) == pytest.approx(mask.sum() * np.prod(spacing) / 1000)


def test_a_litre_is_a_thousand_millilitres() -> None:
    assert volume_ml(np.ones((100, 100, 100), bool), (1, 1, 1)) == 1000
    assert volume_ml(np.zeros((5, 5, 5), bool), (1, 1, 1)) == 0
