"""Lesion-wise scores of cases made by hand, worked out in the comments from the rules of BraTS 2023."""

from __future__ import annotations

import numpy as np
import pytest
from monai.metrics import compute_hausdorff_distance

from edge_latup.metrics.lesionwise import LesionScores, lesionwise
from edge_latup.metrics.overlap import dice
from edge_latup.metrics.surface import Spacing

SHAPE = (40, 30, 30)
UNIT: Spacing = (1.0, 1.0, 1.0)


def boxes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of boxes (x, y, z, size); a size of 4 is 64 voxels, of 3 is 27."""
    mask = np.zeros(SHAPE, np.bool_)
    for x, y, z, size in corners:
        mask[x : x + size, y : y + size, z : z + size] = True
    return mask


def scores(**fields: float) -> LesionScores:
    values: dict[str, float] = {"dice": 1.0, "hd95_mm": 0.0, "lesions": 0, "missed": 0, "false_positives": 0} | fields
    return LesionScores.model_validate(values)


NOTHING = boxes()
ONE, FAR = (5, 5, 5, 4), (25, 5, 5, 4)
CASES: dict[str, tuple[np.ndarray, np.ndarray, LesionScores]] = {
    # Both empty: Dice 1, HD95 0.
    "nothing to find, nothing found": (NOTHING, NOTHING, scores()),
    "found exactly": (boxes(ONE), boxes(ONE), scores(lesions=1)),
    # One lesion found exactly, one missed: Dice (1 + 0) / 2, HD95 (0 + 374) / 2.
    "one of two missed": (boxes(ONE), boxes(ONE, FAR), scores(dice=0.5, hd95_mm=187, lesions=2, missed=1)),
    # One find near no lesion: the same in the mean of lesion and false find.
    "a false find": (boxes(ONE, FAR), boxes(ONE), scores(dice=0.5, hd95_mm=187, lesions=1, false_positives=1)),
    # A single voxel counts as much as a large false find.
    "a speck": (boxes(ONE, (25, 5, 5, 1)), boxes(ONE), scores(dice=0.5, hd95_mm=187, lesions=1, false_positives=1)),
    "three specks": (
        boxes(ONE, (25, 5, 5, 1), (25, 10, 5, 1), (25, 15, 5, 1)), boxes(ONE),
        scores(dice=0.25, hd95_mm=374 * 0.75, lesions=1, false_positives=3),
    ),
    "only false": (boxes(ONE), NOTHING, scores(dice=0, hd95_mm=374, false_positives=1)),
    "all missed": (NOTHING, boxes(ONE), scores(dice=0, hd95_mm=374, lesions=1, missed=1)),
    # 27 voxels are no lesion: not scored where missed, nothing false where found; so there is nothing to average.
    "a small lesion missed": (NOTHING, boxes((5, 5, 5, 3)), scores()),
    "a small lesion found": (boxes((5, 5, 5, 3)), boxes((5, 5, 5, 3)), scores()),
    # x 9 to 11 lies between: gaps of 3 voxels close when each side grows by 3, so the two boxes are one lesion of 128 voxels.
    # The first box alone is found: Dice 2 * 64 / (64 + 128). Of the lesion's 112 surface voxels the 16 of the far face are 7 mm away.
    "two boxes near each other are one": (
        boxes(ONE), boxes(ONE, (12, 5, 5, 4)), scores(dice=2 / 3, hd95_mm=7, lesions=1),
    ),
    # Two small boxes (27 voxels each) near each other make one lesion of 54, which is scored.
    "two small boxes add up": (NOTHING, boxes((5, 5, 5, 3), (11, 5, 5, 3)), scores(dice=0, hd95_mm=374, lesions=1, missed=1)),
    # A find whose first voxel is 3 steps from the lesion's last touches it once widened: it belongs to it (Dice 0, but a true
    # distance), and is not false. Of its 56 surface voxels the 16 of its far face are 6 mm from the lesion: the 95th percentile.
    "near, but beside it": (boxes((11, 5, 5, 4)), boxes(ONE), scores(dice=0, hd95_mm=6, lesions=1)),
    # One voxel further it is a false find, and the lesion is missed.
    "too far": (boxes((12, 5, 5, 4)), boxes(ONE), scores(dice=0, hd95_mm=374, lesions=1, missed=1, false_positives=1)),
    # One find that reaches two lesions counts, whole, for both: x 5..28 by 4 by 4 is 384 voxels; each Dice 2 * 64 / (384 + 64).
    # Of its 296 surface voxels the 16 of either end are 20 mm from the other end's lesion: more than 5 %.
    "one find for two lesions": (
        np.logical_or.reduce([boxes((x, 5, 5, 4)) for x in range(5, 26)]), boxes(ONE, FAR),
        scores(dice=2 / 7, hd95_mm=20, lesions=2),
    ),
    # Corners connect finds: two single voxels at a corner are one false find, not two.
    "connected through a corner": (
        boxes(ONE, (25, 5, 5, 1), (26, 6, 6, 1)), boxes(ONE), scores(dice=0.5, hd95_mm=187, lesions=1, false_positives=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cases_worked_out_by_hand(name: str) -> None:
    predicted, label, expected = CASES[name]
    found = lesionwise(predicted, label, UNIT)
    assert found.model_dump() == pytest.approx(expected.model_dump())


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
def test_one_lesion_and_one_find_are_scored_as_a_whole_and_as_monai_does() -> None:
    import torch

    rng = np.random.default_rng(5)
    predicted, label = boxes((4, 5, 6, 9)) & (rng.random(SHAPE) < 0.9), boxes((6, 5, 5, 8))
    spacing = (0.5, 1.0, 3.0)
    found = lesionwise(predicted, label, spacing)
    pair = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, label)]
    monai = compute_hausdorff_distance(*pair, include_background=True, percentile=95, directed=False, spacing=list(spacing))
    assert (found.lesions, found.missed, found.false_positives) == (1, 0, 0)
    assert found.dice == pytest.approx(dice(predicted, label))
    assert found.hd95_mm == pytest.approx(float(monai), rel=1e-4)


def test_the_smallest_scored_lesion_is_just_above_50_cubic_millimetres() -> None:
    """A row of 50 voxels of 1 mm is dropped, of 51 is scored; of voxels of 2 mm3, 26 are enough."""
    for voxels, spacing, lesions in ((50, UNIT, 0), (51, UNIT, 1), (25, (1.0, 1.0, 2.0), 0), (26, (1.0, 1.0, 2.0), 1)):
        label = np.zeros((60, 3, 3), np.bool_)
        label[1 : 1 + voxels, 1, 1] = True
        assert lesionwise(np.zeros_like(label), label, spacing).lesions == lesions


def test_where_the_lesion_lies_does_not_matter() -> None:
    """Neither the border nor a large empty volume around it changes a score."""
    predicted, label, _ = CASES["two boxes near each other are one"]
    inside = lesionwise(predicted, label, UNIT)
    cut = (slice(5, 16), slice(5, 9), slice(5, 9))
    assert lesionwise(predicted[cut], label[cut], UNIT) == lesionwise(np.pad(predicted, 7), np.pad(label, 7), UNIT) == inside


def test_noise_is_punished_for_each_of_its_specks() -> None:
    label = boxes((10, 10, 10, 8))
    noise = np.random.default_rng(0).random(SHAPE) < 0.02
    found = lesionwise(label | noise, label, UNIT)
    assert found.false_positives > 300
    assert found.dice < 0.01
    assert found.hd95_mm > 370


def test_the_masks_are_not_changed() -> None:
    predicted, label = boxes(ONE, FAR), boxes(ONE)
    lesionwise(predicted, label, UNIT)
    np.testing.assert_array_equal(predicted, boxes(ONE, FAR))
    np.testing.assert_array_equal(label, boxes(ONE))
