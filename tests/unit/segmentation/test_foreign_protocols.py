"""How nnU-Net places and weighs windows, against scipy and its definition; logits recovered from probabilities; voxel sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, special

from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case
from edge_latup.errors import InputError
from edge_latup.segmentation.engine import labels_of, prepare
from edge_latup.segmentation.prepare import nonzero_box, nonzero_mask, normalise_before_crop
from edge_latup.segmentation.views import TURNS, as_logits, as_probabilities
from edge_latup.segmentation.windows import importance, window_starts
from edge_latup.spec import ModelSpec, PostProcess, RegionHead, SlidingWindow


@pytest.mark.parametrize("size", [(16, 24, 20), (8, 9, 32), (1, 16, 12)])
def test_nnunets_weights_are_a_filtered_point(size: tuple[int, int, int]) -> None:
    point = np.zeros(size)
    point[tuple(side // 2 for side in size)] = 1
    expected = ndimage.gaussian_filter(point, [side / 8 for side in size], mode="constant")
    expected /= expected.max()
    expected[expected == 0] = expected[expected > 0].min()
    np.testing.assert_allclose(importance(size, "gaussian_nnunet"), expected, rtol=1e-4)


@given(st.integers(1, 300), st.integers(1, 64), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_even_steps_cover_the_axis_and_differ_by_one_at_most(length: int, size: int, overlap: float) -> None:
    starts = window_starts(length, size, overlap, "even")
    if length <= size:
        assert starts == [-((size - length) // 2)]
        return
    assert starts[0] == 0
    assert starts[-1] == length - size
    steps = np.diff(starts)
    assert steps.max() <= math.ceil(size * (1 - overlap))
    assert steps.max() - steps.min() <= 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.floats(0.2, 0.8))
def test_the_mask_is_scipys_with_holes_filled(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    channels = [np.where(rng.random((6, 7, 8)) < share, rng.normal(size=(6, 7, 8)), 0).astype(np.float32) for _ in range(2)]
    union = (channels[0] != 0) | (channels[1] != 0)
    np.testing.assert_array_equal(nonzero_mask(channels), ndimage.binary_fill_holes(union))
    box = nonzero_box(channels)
    expected = ndimage.find_objects(union.astype(int))[0]
    assert [(start, start + side) for start, side in zip(box.start, box.size, strict=True)] == [(s.start, s.stop) for s in expected]


def test_scores_over_a_mask_and_over_all_voxels() -> None:
    image = np.random.default_rng(0).normal(5, 2, (2, 6, 7, 8)).astype(np.float32)
    image[:, :2] = 0
    image[0, 3] = 0
    masked = normalise_before_crop(image, "z_score_mask")
    for raw, scaled in zip(image, masked, strict=True):
        np.testing.assert_allclose(scaled[2:], (raw[2:] - raw[2:].mean()) / raw[2:].std(), atol=1e-5)
        assert not scaled[:2].any()
    whole = normalise_before_crop(image, "z_score_volume")
    np.testing.assert_allclose(whole[1], (image[1] - image[1].mean()) / image[1].std(), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.booleans())
def test_averaging_recovered_logits_decides_as_the_logits_do(seed: int, regions: bool) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, (3, 4, 5, 6, 7))
    probabilities = [(special.expit(one) if regions else special.softmax(one, axis=0)).astype(np.float32) for one in logits]
    mean = np.mean([as_logits(one, regions=regions) for one in probabilities], axis=0)
    exact = logits.mean(axis=0)
    if regions:
        clear = np.abs(exact) > 1e-3
        np.testing.assert_array_equal((mean > 0)[clear], (exact > 0)[clear])
    else:
        top = np.sort(exact, axis=0)
        clear = top[-1] - top[-2] > 1e-3
        np.testing.assert_array_equal(mean.argmax(axis=0)[clear], exact.argmax(axis=0)[clear])
    back = as_probabilities(as_logits(probabilities[0], regions=regions), regions=regions)
    np.testing.assert_allclose(back, probabilities[0], atol=1e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_labels_of_a_sessions_output_are_those_of_its_probabilities_whatever_is_averaged(regions: bool) -> None:
    """A session gives probabilities; "logits" says what overlapping windows average, and one output has nothing to average with."""
    output = np.random.default_rng(0).random((3, 4, 5, 6), dtype=np.float32)
    output = output if regions else output / output.sum(axis=0)
    spec = ModelSpec(name="n", modalities=("t1",), divisor=1, spatial=SlidingWindow(size=(4, 4, 4)))
    head = RegionHead(order=("WT", "TC", "ET"))
    changes = {"regions": head} if regions else {"labels": (0, 2, 3), "post_process": PostProcess(threshold=0.4)}
    spec = spec.model_copy(update=changes)
    expected = labels_of(spec, output)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(labels_of(spec.model_copy(update={"averaging": "logits"}), output), expected)


@pytest.mark.parametrize("view", TURNS)
def test_every_view_is_undone(view: str) -> None:
    array = np.random.default_rng(1).random((2, 4, 4, 6), dtype=np.float32)
    turn = TURNS[view]  # type: ignore[index]
    np.testing.assert_array_equal(turn.invert(turn.apply(array)), array)
    assert view == "identity" or not np.array_equal(turn.apply(array), array)


def test_a_case_of_another_voxel_size_is_refused() -> None:
    spec = ModelSpec(name="n", modalities=("t1",), divisor=1, spatial=SlidingWindow(size=(4, 4, 4)), spacing=(1.0, 2.0, 3.0))
    for sides, fits in (((-1, -2, 3), True), ((-1.01, -2, 3), True), ((-1, -3, 2), False)):
        grid = Grid(shape=(8, 8, 8), affine=np.diag([*sides, 1.0]))
        case = Case(name="c", images={"t1": np.ones((8, 8, 8), np.float32)}, label=None, grid=grid, convention="brats-2023")
        if fits:
            assert prepare(case, spec).windows > 1
        else:
            with pytest.raises(InputError, match="1 x 3 x 2 mm"):
                prepare(case, spec)
