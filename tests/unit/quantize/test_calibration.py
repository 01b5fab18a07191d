"""Static quantization looks at the crop that is deployed first, then at crops that hold tumour; the same ones every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import write_case
from tiny_models import tiny_spec

from edge_latup.cases.identity import case_digest
from edge_latup.cases.layout import find_cases
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case, read_case
from edge_latup.errors import CaseError, InputError
from edge_latup.quantize.calibration import crops_of, make_calibration
from edge_latup.segmentation.engine import prepare
from edge_latup.segmentation.prepare import crop_input
from edge_latup.spec import CentreCrop, SlidingWindow

SPEC = tiny_spec(spatial=CentreCrop(size=(8, 8, 8)))
LPS, RAS = np.diag([-1.0, -1, 1, 1]), np.diag([1.0, 1, 1, 1])
SAR = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def case_with(mask: np.ndarray, label: np.ndarray | None, affine: np.ndarray = LPS) -> Case:
    """A case whose every image is 1 in `mask` and 0 elsewhere, so that a normalised crop reaches 1 just where it holds some of it."""
    images = {modality: mask.astype(np.float32) for modality in SPEC.modalities}
    return Case(name="case", images=images, label=label, grid=Grid(shape=mask.shape, affine=affine), convention="brats-2023")


def corner(shape: tuple[int, int, int]) -> np.ndarray:
    """A small label in a corner that the centre crop does not hold."""
    label = np.zeros(shape, np.uint8)
    label[:2, -2:, :2] = 3
    return label


@pytest.mark.parametrize("affine", [LPS, RAS, SAR], ids=["LPS", "RAS", "SAR"])
def test_the_first_crop_is_the_deployed_one_and_the_others_hold_tumour(affine: np.ndarray) -> None:
    label = corner((20, 22, 24))
    crops = crops_of(case_with(label > 0, label, affine), SPEC, (8, 8, 8), 12, np.random.default_rng(0))
    np.testing.assert_array_equal(crops[0][0], crop_input(case_with(label > 0, label, affine), SPEC)[0])
    assert crops[0].max() == 0
    assert all(crop.max() == 1 for crop in crops[1:])
    assert {crop.shape for crop in crops} == {(1, 3, 8, 8, 8)}
    assert {crop.dtype for crop in crops} == {np.dtype(np.float32)}


@pytest.mark.parametrize("label", [None, np.zeros((20, 22, 24), np.uint8)], ids=["no label", "no tumour"])
def test_without_a_tumour_the_crops_hold_head(label: np.ndarray | None) -> None:
    head = corner((20, 22, 24)) > 0
    crops = crops_of(case_with(head, label), SPEC, (8, 8, 8), 6, np.random.default_rng(0))
    assert all(crop.max() == 1 for crop in crops[1:])


def test_a_head_without_positive_intensities_is_found_too() -> None:
    crops = crops_of(case_with((corner((20, 22, 24)) > 0) - np.float32(5), None), SPEC, (8, 8, 8), 6, np.random.default_rng(0))
    assert all(crop.max() == 1 for crop in crops[1:])


@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 8, 8), (9, 30, 4)])
def test_a_volume_smaller_than_the_crop_is_padded(shape: tuple[int, int, int]) -> None:
    label = np.zeros(shape, np.uint8)
    label[-1, -1, -1] = 1
    crops = crops_of(case_with(label > 0, label), SPEC, (8, 8, 8), 4, np.random.default_rng(0))
    assert {crop.shape for crop in crops} == {(1, 3, 8, 8, 8)}
    assert all(crop.max() == 1 for crop in crops[1:])


def test_the_same_cases_give_the_same_crops(calibration_cases: Path) -> None:
    first, second = (make_calibration([calibration_cases], SPEC, crops_per_case=3) for _ in range(2))
    other = make_calibration([calibration_cases], SPEC, crops_per_case=3, seed=1)
    assert len(first.inputs) == 6
    assert all(np.array_equal(a, b) for a, b in zip(first.inputs, second.inputs, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first.inputs, other.inputs, strict=True))
    np.testing.assert_array_equal(first.inputs[3], other.inputs[3])  # the deployed crop owes nothing to chance


def test_the_cases_are_listed_by_the_hash_of_their_voxels(calibration_cases: Path) -> None:
    made = make_calibration([calibration_cases], SPEC)
    expected = [(files.name, case_digest(read_case(files, SPEC.modalities))) for files in find_cases(calibration_cases)]
    assert [(seen.name, seen.sha256) for seen in made.cases] == expected


def test_several_folders_are_read_in_their_order(calibration_cases: Path, tmp_path: Path) -> None:
    write_case(tmp_path / "case")
    made = make_calibration([tmp_path, calibration_cases], SPEC)
    assert [seen.name for seen in made.cases] == ["case", *(files.name for files in find_cases(calibration_cases))]


def test_crops_are_normalised_over_what_segmenting_sees() -> None:
    """Of a policy whose windows stay inside the voxels that are not zero, air does not move mean and deviation."""
    rng = np.random.default_rng(3)
    image = np.zeros((20, 18, 16), np.float32)
    image[4:14, 5:15, 3:13] = rng.normal(100, 20, (10, 10, 10))
    images = dict.fromkeys(SPEC.modalities, image)
    label = np.zeros(image.shape, np.uint8)
    label[5:7, 6:8, 4:6] = 1
    case = Case(name="case", images=images, label=label, grid=Grid(shape=image.shape, affine=LPS), convention="brats-2023")
    policy = SlidingWindow(size=(8, 8, 8), inside="nonzero")
    spec = tiny_spec(spatial=policy, normalisation="z_score_volume")
    seen = np.stack(prepare(case, spec).channels)
    mean, deviation = seen.mean(), seen.std()
    assert abs(mean) < 1e-5
    assert deviation == pytest.approx(1, abs=1e-3)
    for crop in crops_of(case, spec, (8, 8, 8), 3, np.random.default_rng(0)):
        inside = crop[0, 0][crop[0, 0] != 0]
        assert {round(float(value), 3) for value in inside} <= {round(float(value), 3) for value in seen.ravel()}


def test_a_case_of_another_voxel_size_is_refused() -> None:
    thick = np.diag([-1.0, -1, 3, 1])
    case = case_with(np.ones((8, 8, 8), bool), None, thick)
    with pytest.raises(InputError, match="has voxels of 1 x 1 x 3 mm"):
        crops_of(case, tiny_spec(spatial=CentreCrop(size=(8, 8, 8)), spacing=(1, 1, 1)), (8, 8, 8), 1, np.random.default_rng(0))


def test_no_case_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="no case found"):
        make_calibration([tmp_path], SPEC)
    with pytest.raises(CaseError, match="needs calibration cases") as caught:
        make_calibration([], SPEC)
    assert "--calibration" in caught.value.hint
