"""Dice and IoU agree with MONAI, and two empty masks agree fully."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_confusion_matrix_metric, compute_dice, compute_iou, get_confusion_matrix

from edge_latup.metrics.overlap import dice, dice_by_region, iou, region_mask, sensitivity, specificity
from edge_latup.spec import REGIONS

SHAPE = (4, 5, 3)
masks = arrays(np.bool_, SHAPE)
labels = arrays(np.uint8, SHAPE, elements=st.integers(0, 3))
EMPTY = np.zeros(SHAPE, np.bool_)


def batched(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask[None, None].astype(np.float32))


@given(masks, masks)
def test_dice_and_iou_agree_with_monai(first: np.ndarray, second: np.ndarray) -> None:
    if first.any() or second.any():
        assert dice(first, second) == pytest.approx(float(compute_dice(batched(first), batched(second), ignore_empty=False)))
        assert iou(first, second) == pytest.approx(float(compute_iou(batched(first), batched(second), ignore_empty=False)))


@given(masks, masks)
def test_sensitivity_and_specificity_agree_with_monai(found: np.ndarray, truth: np.ndarray) -> None:
    counts = get_confusion_matrix(batched(found), batched(truth))
    for metric, name in ((sensitivity, "sensitivity"), (specificity, "specificity")):
        expected, value = float(compute_confusion_matrix_metric(name, counts)), metric(found, truth)
        assert np.isnan(expected) if value is None else value == pytest.approx(expected)


@given(masks)
def test_what_has_nothing_to_find_has_no_sensitivity(mask: np.ndarray) -> None:
    assert sensitivity(mask, EMPTY) is None
    assert specificity(mask, ~EMPTY) is None
    assert sensitivity(~EMPTY, ~EMPTY) == specificity(EMPTY, EMPTY) == 1


@given(masks, masks)
def test_both_are_symmetric_and_tied_to_each_other(first: np.ndarray, second: np.ndarray) -> None:
    """Dice = 2 IoU / (1 + IoU)."""
    assert dice(first, second) == dice(second, first)
    assert dice(first, second) == pytest.approx(2 * iou(first, second) / (1 + iou(first, second)))


@given(masks)
def test_a_mask_agrees_with_itself(mask: np.ndarray) -> None:
    assert dice(mask, mask) == iou(mask, mask) == 1


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    assert dice(EMPTY, EMPTY) == iou(EMPTY, EMPTY) == 1
    assert dice(EMPTY, ~EMPTY) == iou(EMPTY, ~EMPTY) == 0


def test_the_regions_are_those_of_brats() -> None:
    label = np.arange(4, dtype=np.uint8)
    assert region_mask(label, "WT").tolist() == [False, True, True, True]
    assert region_mask(label, "TC").tolist() == [False, True, False, True]
    assert region_mask(label, "ET").tolist() == [False, False, False, True]


@given(labels, labels)
def test_dice_by_region_agrees_with_monai_on_each_region(first: np.ndarray, second: np.ndarray) -> None:
    found = dice_by_region(first, second)
    assert list(found) == list(REGIONS)
    for region, numbers in REGIONS.items():
        a, b = np.isin(first, numbers), np.isin(second, numbers)
        expected = float(compute_dice(batched(a), batched(b), ignore_empty=False)) if (a | b).any() else 1.0
        assert found[region] == pytest.approx(expected)
