"""Drift of a case: nothing against itself, known figures on known masks, no figure where none exists."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support import canonical_label

from edge_latup.bench.drift import case_drifts, read_prediction
from edge_latup.bench.records import CaseDrift
from edge_latup.cases.identity import CaseOrigin
from edge_latup.cases.labels import Convention
from edge_latup.cases.orientation import Grid
from edge_latup.cases.read import Case
from edge_latup.cases.write import write_label_map
from edge_latup.errors import CaseError
from edge_latup.spec import REGIONS

SHAPE = (16, 18, 20)
AFFINE = np.diag([-2.0, -1.0, 3.0, 1.0])
VOXEL_ML = 2 * 1 * 3 / 1000


def case_with(label: np.ndarray | None, convention: Convention = "brats-2023") -> Case:
    return Case(name="case", images={}, label=label, grid=Grid(shape=SHAPE, affine=AFFINE), convention=convention)


def block(value: int, start: int, stop: int) -> np.ndarray:
    """A label map of one block of one class: 4 x 4 voxels wide, from `start` to `stop` along the last axis."""
    label = np.zeros(SHAPE, np.uint8)
    label[4:8, 4:8, start:stop] = value
    return label


def one_drift(case: Case, origin: CaseOrigin, reference: np.ndarray, candidate: np.ndarray) -> CaseDrift:
    """The drift of one candidate."""
    return case_drifts(case, origin, reference, {"candidate": candidate})["candidate"]


def test_a_model_does_not_drift_from_itself() -> None:
    label = canonical_label()
    predicted = np.roll(label, 1, axis=0)
    drift = one_drift(case_with(label), "real", predicted, predicted.copy())
    assert (drift.case, drift.origin) == ("case", "real")
    assert set(drift.regions) == set(REGIONS)
    for region in drift.regions.values():
        assert region.agreement == 1
        assert region.dice_drop == 0
        assert region.iou_drop == 0
        assert region.hd95_candidate_mm == region.hd95_reference_mm
        assert region.volume_candidate_ml == region.volume_reference_ml
        assert 0 < (region.dice_reference or 0) < 1


def test_figures_of_known_masks() -> None:
    """Label, reference and candidate: 10, 8 and 5 slices of one column; dice is 2 x common / sum."""
    drift = one_drift(case_with(block(3, 0, 10)), "phantom", block(3, 0, 8), block(3, 5, 10))
    for region in drift.regions.values():
        assert region.dice_reference == pytest.approx(2 * 8 / 18)
        assert region.dice_candidate == pytest.approx(2 * 5 / 15)
        assert region.iou_reference == pytest.approx(8 / 10)
        assert region.iou_candidate == pytest.approx(5 / 10)
        assert region.agreement == pytest.approx(2 * 3 / 13)
        assert region.dice_drop == pytest.approx(16 / 18 - 10 / 15)
        assert region.iou_drop == pytest.approx(0.3)
        assert region.volume_reference_ml == pytest.approx(16 * 8 * VOXEL_ML)
        assert region.volume_candidate_ml == pytest.approx(16 * 5 * VOXEL_ML)
        assert region.hd95_reference_mm == pytest.approx(2 * 3), "two slices of 3 mm: the case's spacing counts"


def test_sensitivity_and_specificity_of_known_masks() -> None:
    """The label has 160 voxels; the reference finds 128 of them, the candidate 80 and 48 outside."""
    drift = one_drift(case_with(block(3, 0, 10)), "phantom", block(3, 0, 8), block(3, 5, 13)).regions["ET"]
    outside = 16 * 18 * 20 - 160
    assert (drift.sensitivity_reference, drift.specificity_reference) == (0.8, 1)
    assert drift.sensitivity_candidate == 0.5
    assert drift.specificity_candidate == pytest.approx((outside - 48) / outside)


def test_regions_are_those_of_brats() -> None:
    """A candidate that calls the enhancing tumour necrosis loses ET, and nothing of TC or WT."""
    drift = one_drift(case_with(block(3, 0, 10)), "phantom", block(3, 0, 10), block(1, 0, 10))
    assert {name: region.dice_candidate for name, region in drift.regions.items()} == {"WT": 1, "TC": 1, "ET": 0}
    assert drift.regions["ET"].hd95_candidate_mm is None
    assert drift.regions["ET"].volume_candidate_ml == 0


def test_without_a_label_there_is_agreement_and_volume_only() -> None:
    drift = one_drift(case_with(None), "real", block(3, 0, 8), block(3, 0, 4))
    for region in drift.regions.values():
        assert region.agreement == pytest.approx(2 * 4 / 12)
        assert region.volume_candidate_ml > 0
        assert region.dice_reference is region.dice_candidate is region.dice_drop is None
        assert region.iou_reference is region.iou_candidate is region.iou_drop is None
        assert region.hd95_reference_mm is region.hd95_candidate_mm is None


def test_a_case_without_tumour_on_which_both_find_nothing_is_perfect() -> None:
    nothing = np.zeros(SHAPE, np.uint8)
    for region in one_drift(case_with(nothing), "phantom", nothing, nothing).regions.values():
        assert (region.dice_reference, region.dice_candidate, region.agreement) == (1, 1, 1)
        assert (region.hd95_reference_mm, region.hd95_candidate_mm) == (0, 0)


@pytest.mark.parametrize("convention", ["brats-2023", "brats-2021", "brats-2013", "msd"])
def test_a_prediction_is_read_back_in_canonical_labels(convention: Convention, tmp_path: Path) -> None:
    case = case_with(None, convention)
    write_label_map(canonical_label(), case, tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(read_prediction(tmp_path / "out.nii.gz", case), canonical_label())


def test_a_prediction_in_other_numbers_is_refused_by_name(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full(SHAPE, 9, np.uint8), AFFINE), tmp_path / "out.nii.gz")
    with pytest.raises(CaseError, match=r"out\.nii\.gz holds label values \[9\.0\]"):
        read_prediction(tmp_path / "out.nii.gz", case_with(None))
