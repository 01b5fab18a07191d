"""Histograms are matched as sorting would, grids are resized as PyTorch does it, and label maps come back onto the case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F  # noqa: N812

from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case
from edge_latup.runtimes.base import Batch
from edge_latup.segmentation.engine import prepare, segment
from edge_latup.segmentation.prepare import crop_input, onto_network_grid, whole_volumes
from edge_latup.segmentation.standardise import QUANTILES, landmarks_of, match_histogram, mean_reference, resize_linear, resize_nearest
from edge_latup.segmentation.windows import window_boxes
from edge_latup.spec import CentreCrop, HistogramReference, ModelSpec, PostProcess, Size, SlidingWindow

sizes = st.tuples(*[st.integers(1, 12)] * 3)
MODALITIES = ("flair", "t1ce", "t2")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
RAS = np.diag([1.0, 1.0, 1.0, 1.0])
SAR = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def reference(quantiles: Sequence[float], values: Sequence[float]) -> HistogramReference:
    landmarks = [{"modality": modality, "values": tuple(values)} for modality in MODALITIES]
    return HistogramReference.model_validate({"quantiles": tuple(quantiles), "landmarks": landmarks})


def head_and_air(seed: int, shape: Size = (6, 7, 8)) -> tuple[np.ndarray, np.ndarray]:
    """Skewed intensities inside a box, 0 around it, and the box."""
    rng = np.random.default_rng(seed)
    head = np.zeros(shape, bool)
    head[1:-1, 1:-1, 1:-1] = True
    return np.where(head, rng.gamma(2.0, 30.0, shape) + 1, 0).astype(np.float32), head


# Histogram matching


def test_with_a_landmark_at_every_quantile_it_is_exact_matching() -> None:
    """The voxel of rank k takes the reference's value of rank k: what sorting both gives."""
    image, head = head_and_air(0)
    wanted = np.sort(np.random.default_rng(1).normal(size=head.sum()))
    matched = match_histogram(image, head, reference(np.linspace(0, 1, len(wanted)), wanted), "flair")
    expected = np.zeros_like(image)
    expected[head] = wanted[image[head].argsort().argsort()]
    np.testing.assert_allclose(matched, expected, atol=2e-5)


def test_the_own_landmarks_change_nothing() -> None:
    image, head = head_and_air(2)
    own = reference(QUANTILES, landmarks_of(image, head))
    np.testing.assert_allclose(match_histogram(image, head, own, "t2"), image, rtol=1e-6)


@given(st.integers(0, 50), st.floats(0.1, 20), st.floats(-500, 500))
def test_another_gain_and_offset_of_the_scanner_do_not_matter(seed: int, gain: float, offset: float) -> None:
    image, head = head_and_air(seed)
    wanted = reference(QUANTILES, np.linspace(-2, 3, len(QUANTILES)))
    other = np.where(head, image * gain + offset, 0).astype(np.float32)
    first, second = (match_histogram(values, head, wanted, "flair") for values in (image, other))
    np.testing.assert_allclose(second, first, atol=2e-3)
    assert (first[~head] == 0).all()


def test_landmarks_lie_where_the_reference_has_them_and_the_order_of_voxels_stays() -> None:
    image, head = head_and_air(3, (12, 13, 14))
    wanted = np.array([-3, -2, -1.8, -1.5, *np.linspace(-1, 1, 9), 1.4, 2, 2.5, 6])
    matched = match_histogram(image, head, reference(QUANTILES, wanted), "flair")
    np.testing.assert_allclose(landmarks_of(matched, head), wanted, atol=0.02)
    order = image[head].argsort()
    assert (np.diff(matched[head][order]) >= 0).all()


def test_few_grey_levels_are_mapped_each_to_one_value() -> None:
    image = np.repeat(np.array([0, 5, 5, 5, 9], np.float32), 4).reshape(5, 2, 2)
    matched = match_histogram(image, image > 0, reference((0, 0.25, 0.5, 1), (10, 20, 30, 60)), "flair")
    assert np.unique(matched[image == 5]).tolist() == [20.0]
    assert np.unique(matched[image == 9]).tolist() == [60.0]


def test_a_volume_without_head_stays() -> None:
    image = np.zeros((3, 3, 3), np.float32)
    assert not match_histogram(image, image > 0, reference((0, 1), (1, 2)), "flair").any()
    assert not landmarks_of(image, image > 0).any()


def test_a_reference_is_the_mean_of_landmarks() -> None:
    first, second = np.arange(17.0), np.arange(17.0) * 3
    made = mean_reference([("flair", [first, second]), ("t2", [first])])
    assert made.quantiles == QUANTILES
    assert made.of("flair") == tuple(np.arange(17.0) * 2)
    assert made.of("t2") == tuple(first)
    assert made.of("t1") is None


@pytest.mark.parametrize(
    ("quantiles", "values", "told"),
    [
        ((0, 0.5, 0.4, 1), (1, 2, 3, 4), "ascend from 0 to 1"), ((0.1, 1), (1, 2), "ascend from 0 to 1"),
        ((0, 1), (1, 2, 3), "3 values for 2 quantiles"), ((0, 1), (2, 1), "never descend"), ((0, 1), (1, float("inf")), "finite"),
    ],
)  # fmt: skip
def test_a_reference_that_is_none_is_refused(quantiles: tuple[float, ...], values: tuple[float, ...], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        reference(quantiles, values)


def test_a_spec_needs_landmarks_of_each_modality() -> None:
    with pytest.raises(ValidationError, match="no t1,"):
        ModelSpec(name="x", modalities=("flair", "t1"), histogram=reference((0, 1), (0, 1)))


# Resizing


@given(sizes, sizes, st.integers(0, 99))
def test_linear_is_what_pytorch_interpolates(shape: Size, size: Size, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(image)[None, None], size=size, mode="trilinear", align_corners=False)[0, 0].numpy()
    found = resize_linear(image, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@given(sizes, sizes, st.integers(0, 99))
def test_nearest_is_what_pytorch_picks(shape: Size, size: Size, seed: int) -> None:
    label = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    expected = F.interpolate(torch.from_numpy(label.astype(np.float32))[None, None], size=size, mode="nearest-exact")[0, 0].numpy()
    found = resize_nearest(label, size)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_straight_slope_stays_one() -> None:
    """On the grid of the case, position is what is interpolated: the field of view is kept, not the first voxel's centre."""
    slope = np.broadcast_to((np.arange(15.0) + 0.5) / 15, (4, 4, 15)).astype(np.float32)
    found = resize_linear(slope, (4, 4, 10))[0, 0]
    np.testing.assert_allclose(found, (np.arange(10) + 0.5) / 10, atol=1e-6)


def test_the_source_is_not_touched() -> None:
    image = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    kept = image.copy()
    resize_linear(image[::-1].transpose(2, 0, 1), (3, 9, 4))
    np.testing.assert_array_equal(image, kept)


# The whole protocol


@pytest.mark.parametrize(
    ("shape", "overlap", "count"),
    [((192, 192, 128), 0.25, 48), ((240, 240, 155), 0.25, 75), ((192, 192, 128), 0.75, 405), ((240, 240, 155), 0.75, 1008)],
)
def test_windows_of_64_at_a_stride_of_48_and_16(shape: Size, overlap: float, count: int) -> None:
    policy = SlidingWindow(size=(64, 64, 64), overlap=overlap)
    assert len(window_boxes(shape, policy)) == count


def spec_of(**changes: object) -> ModelSpec:
    fields = {"name": "test", "divisor": 4, "spatial": CentreCrop(size=(16, 12, 8)), "resize": (16, 12, 8), "normalisation": "none"}
    return ModelSpec.model_validate(fields | changes)


def case_of(shape: Size, affine: np.ndarray = LPS) -> Case:
    """Head in a box; flair doubles in a smaller box, which a threshold finds again."""
    images = {modality: np.zeros(shape, np.float32) for modality in MODALITIES}
    for image in images.values():
        image[tuple(slice(side // 8, side - side // 8) for side in shape)] = 100
    images["flair"][tuple(slice(side // 4, side // 2) for side in shape)] = 200
    return Case(name="case", images=images, label=None, grid=Grid(shape=shape, affine=affine), convention="brats-2021")


class Threshold:
    """A session that calls oedema what is brighter than 150 in the first modality."""

    float_precision = "f32"

    def __init__(self, *shape: int) -> None:
        self.input_shape: tuple[int, ...] = shape
        self.batches: list[Batch] = []

    def infer(self, batch: Batch) -> Batch:
        self.batches.append(batch)
        bright = batch[:, :1] > 150
        zero = np.zeros_like(batch[:, :1])
        return np.concatenate([~bright, zero, bright, zero], axis=1).astype(np.float32)


@pytest.mark.parametrize("affine", [LPS, RAS, SAR], ids=["LPS", "RAS", "SAR"])
@pytest.mark.parametrize(
    "spatial", [CentreCrop(size=(16, 12, 8)), SlidingWindow(size=(8, 8, 8), overlap=0.25)], ids=["one pass", "windows"]
)
def test_what_was_found_on_the_network_s_grid_lies_at_its_place_on_the_case_s(affine: np.ndarray, spatial: object) -> None:
    shape = (24, 20, 16)
    spec = spec_of(spatial=spatial)
    stub = Threshold(1, 3, *spec.spatial.size)
    found = segment(stub, spec, case_of(shape, affine)).label  # type: ignore[arg-type]
    truth = case_of(shape).images["flair"] > 150
    assert found.shape == shape
    overlap = (found == 2) & truth
    # Grids of two thirds keep a box of whole voxels up to one voxel at its faces.
    assert 2 * overlap.sum() / ((found == 2).sum() + truth.sum()) > 0.75
    centre = [round(float(np.mean(line))) for line in np.nonzero(found)]
    assert all(abs(value - (side * 3 / 8 - 0.5)) <= 1 for value, side in zip(centre, shape, strict=True))


def test_a_grid_of_the_case_s_own_size_changes_nothing() -> None:
    case = case_of((16, 12, 8))
    with_size, without = (segment(Threshold(1, 3, 16, 12, 8), spec, case).label for spec in (spec_of(), spec_of(resize=None)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(with_size, without)


def test_small_components_are_counted_on_the_case_s_grid() -> None:
    case = case_of((32, 24, 16))  # the bright box has 8 x 6 x 4 = 192 voxels there, 24 on the network's grid
    kept, removed = (spec_of(post_process=PostProcess(min_component_voxels=count)) for count in (192, 193))
    stub = Threshold(1, 3, 16, 12, 8)
    assert np.count_nonzero(segment(stub, kept, case).label) == 192  # type: ignore[arg-type]
    assert np.count_nonzero(segment(stub, removed, case).label) == 0  # type: ignore[arg-type]


def test_windows_without_head_are_left_out_on_the_network_s_grid() -> None:
    case = case_of((24, 20, 16))
    for image in case.images.values():
        image[12:] = 0
    spec = spec_of(spatial=SlidingWindow(size=(8, 8, 8), overlap=0.0), normalisation="z_score_nonzero")
    task = prepare(case, spec)
    assert (task.windows, task.shape) == (4, (16, 12, 8))
    assert {box.start[0] for box in task.boxes} == {0}


def test_steps_come_in_order_normalise_match_resize() -> None:
    case = case_of((24, 20, 16))
    spec = spec_of(normalisation="z_score_nonzero", histogram=reference((0, 0.5, 1), (7, 7, 9)))
    head = case.images["t2"] != 0
    expected = resize_linear(
        np.where(head, 8.0 if len(np.unique(case.images["t2"][head])) == 1 else 7.0, 0).astype(np.float32), (16, 12, 8)
    )
    found = whole_volumes(case, spec)
    np.testing.assert_allclose(found[2], np.where(expected > 0, expected * 23 / 24, 0), atol=1e-4)  # one grey level: mean of 7, 7 and 9
    np.testing.assert_array_equal(crop_input(case, spec)[0], np.stack(found))


def test_labels_follow_the_images_onto_the_network_s_grid() -> None:
    case = case_of((24, 20, 16), RAS)
    label = (case.images["flair"] > 150).astype(np.uint8)
    moved = onto_network_grid(label, case, spec_of())
    assert moved.shape == (16, 12, 8)
    bright = whole_volumes(case, spec_of())[0] > 150
    assert 2 * (bright & (moved > 0)).sum() / (bright.sum() + moved.sum()) > 0.75
