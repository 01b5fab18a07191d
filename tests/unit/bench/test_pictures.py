"""The slice a report shows: the one with most tumour, as a radiologist holds it, whichever way the case is stored."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import tiny_spec

from edge_latup.bench.pictures import cut_picture
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case

SHAPE = (30, 34, 12)
LPS = np.diag([-1.0, -1, 1, 1])
SPEC = tiny_spec()


def head() -> np.ndarray:
    """Zero outside a box, brighter towards the back (LPS: y grows to the back), with one bright voxel on the patient's right."""
    image = np.zeros(SHAPE, np.float32)
    image[6:24, 8:26, :] = np.linspace(100, 300, 18)[None, :, None]
    image[7, 9, 5] = 5000
    return image


def label_at(z: int, voxels: int = 9) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[10 : 10 + voxels, 12, z] = 3
    return label


def case_of(label: np.ndarray | None, orientation: str = "LPS") -> Case:
    """A case in LPS, or the same anatomy stored otherwise."""
    lps = Grid(shape=SHAPE, affine=LPS)
    volumes = [np.ascontiguousarray(lps.reorient(head() * factor, orientation)) for factor in (1, 2, 3)]
    axes = {"LPS": LPS, "RAS": np.array([[1.0, 0, 0, -29], [0, 1, 0, -33], [0, 0, 1, 0], [0, 0, 0, 1]])}
    turned = None if label is None else np.ascontiguousarray(lps.reorient(label, orientation))
    grid = Grid(shape=SHAPE, affine=axes[orientation])
    return Case(name="case", images=dict(zip(SPEC.modalities, volumes, strict=True)), label=turned, grid=grid, convention="brats-2023")


def test_the_slice_with_most_tumour_in_the_label_is_shown() -> None:
    label = label_at(3, 4) + label_at(8, 9)
    picture = cut_picture(case_of(label), SPEC, {"a": label_at(1)})
    assert (picture.case, picture.slice_index) == ("case", 8)
    assert picture.label is not None
    assert np.count_nonzero(picture.label) == 9
    assert np.count_nonzero(picture.predictions["a"]) == 0


@pytest.mark.parametrize("label", [None, np.zeros(SHAPE, np.uint8)], ids=["no label", "no tumour in it"])
def test_without_tumour_in_a_label_the_first_prediction_decides(label: np.ndarray | None) -> None:
    picture = cut_picture(case_of(label), SPEC, {"first": label_at(2), "second": label_at(9)})
    assert picture.slice_index == 2
    assert (picture.label is None) == (label is None)


def test_where_nobody_finds_a_tumour_the_middle_is_shown() -> None:
    nothing = np.zeros(SHAPE, np.uint8)
    assert cut_picture(case_of(None), SPEC, {"a": nothing}).slice_index == SHAPE[2] // 2


@pytest.mark.parametrize("orientation", ["LPS", "RAS"])
def test_anterior_is_up_and_the_patients_right_is_on_the_left(orientation: str) -> None:
    case = case_of(label_at(5), orientation)
    predicted = np.ascontiguousarray(Grid(shape=SHAPE, affine=LPS).reorient(label_at(5), orientation))
    picture = cut_picture(case, SPEC, {"a": predicted})
    image = picture.images["flair"]
    inside = image[5:-5, 5:-5]
    assert inside[-1].mean() > inside[0].mean(), "the back, which is brighter, is below"
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    assert (row, column) == (5, 5), "the bright voxel, in front on the right, is in the upper left corner, four voxels from the edge"
    assert picture.label is not None
    np.testing.assert_array_equal(picture.label, picture.predictions["a"])
    assert picture.label[8, 8:17].all(), "4 + 12 - 8 rows and 4 + 10 - 6 columns from the window's corner"


def test_air_is_cut_away_with_a_small_margin() -> None:
    picture = cut_picture(case_of(None), SPEC, {"a": label_at(5)})
    assert picture.images["flair"].shape == (18 + 8, 18 + 8)


def test_images_span_black_to_white_without_being_ruled_by_one_voxel() -> None:
    picture = cut_picture(case_of(None), SPEC, {"a": label_at(5)})
    assert list(picture.images) == ["flair", "t1ce", "t2"]
    for image in picture.images.values():
        assert image.dtype == np.float32
        assert (image.min(), image.max()) == (0, 1)
        assert np.median(image[image > 0]) > 0.5
    np.testing.assert_allclose(picture.images["flair"], picture.images["t2"], atol=1e-6)


def test_an_empty_slice_is_shown_whole() -> None:
    case = case_of(None)
    for image in case.images.values():
        image[:, :, 5] = 0
    picture = cut_picture(case, SPEC, {"a": label_at(5)})
    assert picture.images["flair"].shape == (SHAPE[1], SHAPE[0])
    assert not picture.images["flair"].any()
