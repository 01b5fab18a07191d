"""From a case to the network's input: where the crop lies, what comes back, and what the normalisations do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import write_case

from edge_latup.cases.layout import find_cases
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case, read_case
from edge_latup.segmentation.prepare import (
    CropBox,
    brain_box,
    centre_box,
    crop_input,
    head_mask,
    min_max,
    normalise_after_crop,
    normalise_before_crop,
    oriented,
)  # fmt: skip
from edge_latup.spec import CentreCrop, ModelSpec, Size, SlidingWindow

sizes = st.tuples(*[st.integers(1, 9)] * 3)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def spec_of(**changes: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "test", "spatial": CentreCrop(size=(8, 8, 8)), **changes})


def case_of(shape: Size, affine: np.ndarray = LPS, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    images = {modality: rng.normal(5, 2, shape).astype(np.float32) for modality in ("flair", "t1ce", "t2")}
    return Case(name="case", images=images, label=None, grid=Grid(shape=shape, affine=affine), convention="brats-2023")


def test_on_the_brats_grid_the_crop_is_the_published_one() -> None:
    box = centre_box((3, 240, 240, 155), (128, 128, 128))
    assert box == CropBox(start=(56, 56, 13), size=(128, 128, 128), shape=(240, 240, 155))
    volume = np.zeros((240, 240, 155), np.uint8)
    volume[56:184, 56:184, 13:141] = 1
    assert box.cut(volume).all()
    np.testing.assert_array_equal(box.paste(np.ones(box.size, np.uint8)), volume)


@given(sizes, sizes)
def test_paste_of_cut_is_the_volume_inside_the_box_and_zero_outside(shape: Size, size: Size) -> None:
    box = centre_box(shape, size)
    volume = np.arange(1, np.prod(shape) + 1).reshape(shape)
    inside = np.zeros(shape, bool)
    inside[
        tuple(slice(max(start, 0), max(start, 0) + min(part, length)) for start, part, length in zip(box.start, size, shape, strict=True))
    ] = True
    cut = box.cut(volume)
    assert cut.shape == size
    assert np.count_nonzero(cut) == inside.sum()
    np.testing.assert_array_equal(box.paste(cut), np.where(inside, volume, 0))


@given(sizes, sizes)
def test_cut_of_paste_is_the_crop_where_the_volume_is_and_zero_in_the_padding(shape: Size, size: Size) -> None:
    box = centre_box(shape, size)
    crop = np.arange(1, np.prod(size) + 1).reshape(size)
    np.testing.assert_array_equal(box.cut(box.paste(crop)), np.where(box.cut(np.ones(shape)), crop, 0))


@given(sizes, sizes)
def test_add_is_paste_onto_what_is_there(shape: Size, size: Size) -> None:
    box = centre_box(shape, size)
    crop = np.arange(2 * np.prod(size), dtype=np.float32).reshape(2, *size)
    total = np.ones((2, *shape), np.float32)
    box.add(crop, total)
    np.testing.assert_array_equal(total, 1 + box.paste(crop))


@given(sizes, sizes)
def test_the_margins_differ_by_one_voxel_at_most(shape: Size, size: Size) -> None:
    for start, part, length in zip(centre_box(shape, size).start, size, shape, strict=True):
        assert (length - part - start) - start in (0, 1)


def test_channels_and_dtype_are_kept() -> None:
    box = centre_box((5, 6, 7), (4, 8, 4))
    volume = np.arange(2 * 210, dtype=np.int16).reshape(2, 5, 6, 7)
    cut = box.cut(volume)
    assert cut.shape == (2, 4, 8, 4)
    assert cut.dtype == box.paste(cut).dtype == np.int16
    np.testing.assert_array_equal(cut[1], box.cut(volume[1]))


images = arrays(np.float32, st.tuples(st.integers(1, 3), *[st.integers(1, 5)] * 3), elements=st.floats(-1e4, 1e4, width=32))


@given(images)
def test_each_axial_slice_that_is_not_constant_spans_0_to_1_before_the_crop(image_cxyz: np.ndarray) -> None:
    scaled = normalise_before_crop(image_cxyz, "per_slice_precrop")
    assert scaled.dtype == np.float32
    for channel in range(image_cxyz.shape[0]):
        for z in range(image_cxyz.shape[3]):
            before, after = image_cxyz[channel, :, :, z], scaled[channel, :, :, z]
            constant = before.min() == before.max()
            assert (after.min(), after.max()) == (0, 0 if constant else 1)


@given(images)
def test_each_modality_of_the_crop_that_is_not_constant_spans_0_to_1(image_cxyz: np.ndarray) -> None:
    scaled = normalise_after_crop(image_cxyz, "per_volume_postcrop")
    for before, after in zip(image_cxyz, scaled, strict=True):
        assert (after.min(), after.max()) == (0, 0 if before.min() == before.max() else 1)


@given(images)
def test_each_normalisation_acts_on_its_own_side_of_the_crop_only(image_cxyz: np.ndarray) -> None:
    np.testing.assert_array_equal(normalise_before_crop(image_cxyz, "per_volume_postcrop"), image_cxyz)
    np.testing.assert_array_equal(normalise_after_crop(image_cxyz, "per_slice_precrop"), image_cxyz)


@given(images)
def test_scaling_keeps_the_order_of_intensities(image_cxyz: np.ndarray) -> None:
    scaled = min_max(image_cxyz, (0, 1, 2, 3)).ravel()
    assert (np.diff(scaled[np.argsort(image_cxyz.ravel(), kind="stable")]) >= 0).all()


@pytest.mark.parametrize("value", [0, 7, -3])
def test_a_constant_crop_becomes_0_and_not_nan(value: float) -> None:
    np.testing.assert_array_equal(min_max(np.full((2, 3, 3, 3), value, np.float32), (1, 2, 3)), 0)


@pytest.mark.parametrize("normalisation", ["per_volume_postcrop", "per_slice_precrop"])
@pytest.mark.parametrize("shape", [(16, 18, 20), (5, 6, 20), (7, 7, 7)])
def test_the_input_is_the_specs_size_within_0_to_1_for_any_volume(shape: Size, normalisation: str) -> None:
    image, box = crop_input(case_of(shape), spec_of(normalisation=normalisation))
    assert image.shape == (3, 8, 8, 8)
    assert image.dtype == np.float32
    assert box.shape == shape
    assert (image.min(), image.max()) == (0, 1) or normalisation == "per_slice_precrop"
    assert 0 <= image.min() <= image.max() <= 1


def test_channels_are_in_the_order_of_the_spec() -> None:
    case = case_of((8, 8, 8))
    image = oriented(case, spec_of(modalities=("t2", "flair")))
    np.testing.assert_array_equal(image, np.stack([case.images["t2"], case.images["flair"]]))


def test_a_case_with_other_axes_gives_the_same_input() -> None:
    """The same head stored with axes S, A, R instead of L, P, S reaches the network voxel for voxel the same."""
    case = case_of((9, 10, 11))
    turned = {modality: np.ascontiguousarray(image[::-1, ::-1].transpose(2, 1, 0)) for modality, image in case.images.items()}
    affine = np.array([[0.0, 0, 1, -8], [0, 1, 0, -9], [1, 0, 0, 0], [0, 0, 0, 1]])
    other = Case(name="case", images=turned, label=None, grid=Grid(shape=(11, 10, 9), affine=affine), convention="brats-2023")
    assert other.grid.orientation == "SAR"
    for normalisation in ("per_volume_postcrop", "per_slice_precrop"):
        spec = spec_of(normalisation=normalisation)
        np.testing.assert_array_equal(crop_input(case, spec)[0], crop_input(other, spec)[0])


def test_a_size_asked_for_goes_before_the_specs() -> None:
    image, box = crop_input(case_of((20, 20, 20)), spec_of(), (16, 8, 4))
    assert image.shape == (3, 16, 8, 4)
    assert box.start == (2, 6, 8)


def test_a_sliding_window_spec_crops_one_window() -> None:
    image, _ = crop_input(case_of((20, 20, 20)), spec_of(spatial=SlidingWindow(size=(16, 16, 16))))
    assert image.shape == (3, 16, 16, 16)


def test_the_case_is_not_changed(tmp_path: Path) -> None:
    (files,) = find_cases(write_case(tmp_path / "case"))
    case = read_case(files, ("flair", "t1ce", "t2"))
    before = {modality: image.copy() for modality, image in case.images.items()}
    for normalisation in ("per_volume_postcrop", "per_slice_precrop"):
        crop_input(case, spec_of(normalisation=normalisation))
    for modality, image in before.items():
        np.testing.assert_array_equal(case.images[modality], image)


heads = st.tuples(*[st.integers(1, 30)] * 3).flatmap(lambda shape: arrays(np.bool_, shape, elements=st.booleans(), fill=st.just(False)))


@given(heads, st.sampled_from([1, 2, 8, 16]), st.booleans())
def test_the_brain_box_holds_the_whole_head_in_multiples_of_the_divisor(head: np.ndarray, divisor: int, square: bool) -> None:
    box = brain_box(head, divisor, square=square)
    np.testing.assert_array_equal(box.paste(box.cut(head)), head)
    assert all(size % divisor == 0 and size > 0 for size in box.size)
    assert not square or box.size[0] == box.size[1]
    if head.any() and not square:
        spans = [np.flatnonzero(head.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        assert all(size - divisor < line[-1] - line[0] + 1 <= size for size, line in zip(box.size, spans, strict=True)), "and no more"


def test_the_brain_box_is_widened_into_the_volume_and_padded_only_where_there_is_no_more() -> None:
    head = np.zeros((20, 20, 5), bool)
    head[:3, 12:, :] = True
    assert brain_box(head, 8) == CropBox(start=(0, 12, -2), size=(8, 8, 8), shape=(20, 20, 5))


def test_ringing_around_the_head_is_air() -> None:
    volume = np.zeros((9, 9, 9), np.float32)
    volume[3:6, 3:6, 3:6] = 1000
    expected = volume > 0
    volume[~expected] = np.random.default_rng(0).uniform(-8, 8, np.count_nonzero(~expected))
    np.testing.assert_array_equal(head_mask([volume, np.zeros_like(volume)]), expected)
    np.testing.assert_array_equal(head_mask([np.zeros_like(volume), volume * 0.001]), expected)


def test_z_scores_over_voxels_that_are_not_zero_are_monais() -> None:
    from monai.transforms.intensity.array import NormalizeIntensity

    rng = np.random.default_rng(0)
    image = rng.normal(300, 80, (3, 6, 5, 4)).astype(np.float32)
    image[rng.random(image.shape) < 0.4] = 0
    image[2] = np.where(image[2] > 0, 7, 0)  # constant where it is not zero
    expected = np.asarray(NormalizeIntensity(nonzero=True, channel_wise=True)(image))
    found = normalise_before_crop(image, "z_score_nonzero")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (found[image == 0] == 0).all()
    np.testing.assert_array_equal(normalise_after_crop(found, "z_score_nonzero"), found)


def test_a_channel_of_zeros_has_no_z_score() -> None:
    image = np.zeros((1, 2, 2, 2), np.float32)
    np.testing.assert_array_equal(normalise_before_crop(image, "z_score_nonzero"), image)


def test_without_normalisation_intensities_go_in_as_they_are() -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(normalise_after_crop(normalise_before_crop(image, "none"), "none"), image)
