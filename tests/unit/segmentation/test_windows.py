"""The sampler and the aggregator, each alone: every voxel covered, and the mean that a naive float64 sum gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_latup.segmentation.blend import Slab, SlabBlender
from edge_latup.segmentation.prepare import CropBox
from edge_latup.segmentation.windows import importance, window_boxes, with_head
from edge_latup.spec import Blending, Size, SlidingWindow

shapes = st.tuples(*[st.integers(1, 18)] * 3)
windows = st.tuples(*[st.integers(1, 9)] * 3)
small_shapes = st.tuples(*[st.integers(2, 12)] * 3)
small_windows = st.tuples(*[st.integers(2, 6)] * 3)
overlaps = st.floats(0, 0.9)
blendings = st.sampled_from(["constant", "gaussian"])


def policy_of(size: Size, overlap: float, blending: Blending = "constant") -> SlidingWindow:
    return SlidingWindow(size=size, overlap=overlap, blending=blending)


@given(shapes, windows, overlaps)
def test_every_voxel_lies_in_a_window(shape: Size, size: Size, overlap: float) -> None:
    covered = np.zeros(shape, bool)
    for box in window_boxes(shape, policy_of(size, overlap)):
        box.view(covered)[...] = True
    assert covered.all()


@given(shapes, windows, overlaps, st.integers(0, 99))
def test_every_voxel_of_the_head_lies_in_a_window_that_is_kept(shape: Size, size: Size, overlap: float, seed: int) -> None:
    head = np.random.default_rng(seed).random(shape) < 0.03
    boxes = window_boxes(shape, policy_of(size, overlap))
    kept = with_head(boxes, head)
    assert kept == [box for box in boxes if box.cut(head).any()]
    covered = np.zeros(shape, bool)
    for box in kept:
        box.view(covered)[...] = True
    assert covered[head].all()


def naive(shape: Size, boxes: list[CropBox], outputs: list[np.ndarray], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean in float64, voxel by voxel, and the summed weight."""
    total, weight = np.zeros((outputs[0].shape[0], *shape)), np.zeros(shape)
    for box, output in zip(boxes, outputs, strict=True):
        for inside in np.ndindex(box.size):
            where = tuple(start + step for start, step in zip(box.start, inside, strict=True))
            if all(0 <= index < length for index, length in zip(where, shape, strict=True)):
                total[(slice(None), *where)] += output[(slice(None), *inside)].astype(np.float64) * float(weights[inside])
                weight[where] += float(weights[inside])
    return total / np.where(weight > 0, weight, 1), weight


def blended(shape: Size, boxes: list[CropBox], outputs: list[np.ndarray], weights: np.ndarray) -> list[Slab]:
    blender = SlabBlender(shape, weights, outputs[0].shape[0])
    slabs = [slab for box, output in zip(boxes, outputs, strict=True) for slab in blender.add(box, output)]
    return [*slabs, *blender.finish()]


@settings(max_examples=40, deadline=None)
@given(small_shapes, small_windows, st.floats(0, 0.8), blendings, st.floats(0, 1), st.integers(0, 99))
def test_slabs_hold_the_float64_mean_to_1e_5(shape: Size, size: Size, overlap: float, blending: Blending, share: float, seed: int) -> None:
    """Also when windows are left out, so that whole planes may be covered by none."""
    rng = np.random.default_rng(seed)
    every = window_boxes(shape, policy_of(size, overlap))
    boxes = [box for box in every if rng.random() <= share] or every
    weights = importance(size, blending)
    outputs = [rng.random((3, *size), dtype=np.float32) for _ in boxes]
    expected, weight = naive(shape, boxes, outputs, weights)
    mean, covered = np.zeros((3, *shape), np.float32), np.zeros(shape, bool)
    last = 0
    for slab in blended(shape, boxes, outputs, weights):
        assert last <= slab.first < slab.last <= shape[0], "slabs follow each other"
        mean[:, slab.first : slab.last], covered[slab.first : slab.last] = slab.mean, slab.covered
        last = slab.last
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    np.testing.assert_array_equal(covered, weight > 0)


def test_no_more_is_held_than_one_window_is_deep() -> None:
    blender = SlabBlender((240, 24, 15), importance((64, 24, 15), "constant"), 4)
    held = blender._sum.nbytes + blender._weight.nbytes
    assert held == 4 * (4 + 1) * 64 * 24 * 15
    released = 0
    for box in window_boxes((240, 24, 15), policy_of((64, 24, 15), 0.25)):
        for slab in blender.add(box, np.ones((4, 64, 24, 15), np.float32)):
            released += slab.last - slab.first
            assert slab.mean.shape[1] <= 48
    assert released == 176, "all but the last window's planes were let go of before the end"


def test_a_window_out_of_order_is_refused() -> None:
    blender = SlabBlender((20, 4, 4), importance((4, 4, 4), "constant"), 1)
    ones = np.ones((1, 4, 4, 4), np.float32)
    list(blender.add(CropBox(start=(8, 0, 0), size=(4, 4, 4), shape=(20, 4, 4)), ones))
    with pytest.raises(ValueError, match="comes after"):
        list(blender.add(CropBox(start=(4, 0, 0), size=(4, 4, 4), shape=(20, 4, 4)), ones))


@given(windows, blendings)
def test_weights_are_positive_symmetric_and_largest_in_the_middle(size: Size, blending: Blending) -> None:
    weights = importance(size, blending)
    assert weights.shape == size
    assert weights.dtype == np.float32
    assert weights.max() == 1 or (blending == "gaussian" and weights.max() < 1)
    assert weights.min() > 0
    for axis in range(3):
        np.testing.assert_allclose(weights, np.flip(weights, axis), rtol=1e-6)
    middle = tuple((side - 1) // 2 for side in size)
    assert weights[middle] == weights.max()


@pytest.mark.parametrize("size", [(16, 16, 16), (24, 16, 9)])
def test_gaussian_weights_are_monais(size: Size) -> None:
    from monai.data.utils import compute_importance_map

    theirs = compute_importance_map(size, mode="gaussian", sigma_scale=0.125).numpy()
    np.testing.assert_allclose(importance(size, "gaussian"), theirs, rtol=1e-5)


def test_windows_come_in_raster_order() -> None:
    starts = [box.start for box in window_boxes((20, 20, 20), policy_of((8, 8, 8), 0.25))]
    assert starts == sorted(starts)
    assert len(set(starts)) == len(starts) == len(list(itertools.product(range(3), repeat=3)))


# A network whose output is smaller than its input: what is predicted covers the volume, windows reach beyond its border.

margins = st.tuples(*[st.integers(0, 3)] * 3)


@given(shapes, windows, margins, overlaps)
def test_what_windows_predict_covers_the_volume(shape: Size, predicted: Size, margin: Size, overlap: float) -> None:
    size: Size = tuple(side + 2 * lost for side, lost in zip(predicted, margin, strict=True))  # type: ignore[assignment]
    boxes = window_boxes(shape, policy_of(size, overlap), margin)
    assert all(box.size == size for box in boxes)
    inner = [tuple(start + lost for start, lost in zip(box.start, margin, strict=True)) for box in boxes]
    assert inner == [box.start for box in window_boxes(shape, policy_of(predicted, overlap))]
    covered = np.zeros(shape, bool)
    for box in boxes:
        box.within(margin).view(covered)[...] = True
    assert covered.all()


def test_slabs_of_19_slices_predict_11_of_them() -> None:
    starts = [box.start for box in window_boxes((24, 24, 155), policy_of((24, 24, 19), 0.0), (0, 0, 4))]
    assert [z for _, _, z in starts] == [*range(-4, 140, 11), 140]
    assert {(x, y) for x, y, _ in starts} == {(0, 0)}


@given(small_shapes, small_windows, margins, st.integers(0, 99))
def test_a_window_is_kept_for_the_head_it_predicts(shape: Size, predicted: Size, margin: Size, seed: int) -> None:
    head = np.random.default_rng(seed).random(shape) < 0.05
    size: Size = tuple(side + 2 * lost for side, lost in zip(predicted, margin, strict=True))  # type: ignore[assignment]
    kept = with_head(window_boxes(shape, policy_of(size, 0.3), margin), head, margin)
    seen = np.zeros(shape, bool)
    for box in kept:
        assert box.within(margin).view(head).any()
        box.within(margin).view(seen)[...] = True
    assert seen[head].all()
