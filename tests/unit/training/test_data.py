"""Patches are drawn where tumour is, cases by their weight, and unlabelled cases are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import NAMES_2021, canonical_label, write_case
from tiny_network import tiny_spec

from edge_latup.cases.cohort import write_cohort
from edge_latup.cases.read import read_case
from edge_latup.errors import CaseError
from edge_latup.manifest import SeenCase
from edge_latup.training.data import VOXELS_KEPT, TrainingCase, draw_patch, load_cases

SPEC = tiny_spec(32)
PATCH = (8, 8, 8)
UNLABELLED = {key: ending for key, ending in NAMES_2021.items() if key != "label"}


def case_with(label: np.ndarray, weight: float = 1.0, image: float = 0.5) -> TrainingCase:
    voxels = tuple(np.argwhere(label == value) for value in (1, 2, 3) if (label == value).any())
    filled = np.full((3, *label.shape), image, np.float16)
    return TrainingCase(name="case", image=filled, label=label, voxels=voxels, weight=weight, seen=SeenCase(name="case", sha256="0" * 64))


def small_tumour() -> np.ndarray:
    """32^3 with a 3^3 core in one corner region, rim and oedema around it: 0.4 % of the volume."""
    label = np.zeros((32, 32, 32), np.uint8)
    label[4:9, 20:25, 10:15] = 2
    label[5:8, 21:24, 11:14] = 3
    label[6, 22, 12] = 1
    return label


def load(synthetic: list[Path], real: list[Path], *, grafts: int = 0, real_share: float = 0.4) -> list[TrainingCase]:
    return load_cases(synthetic, real, SPEC, grafts=grafts, real_share=real_share, seed=0, progress=lambda _: None)


def test_most_patches_hold_tumour_where_uniform_ones_would_not() -> None:
    case, rng = case_with(small_tumour()), np.random.default_rng(0)
    aware = np.mean([draw_patch([case], PATCH, rng, 0.8)[1].any() for _ in range(400)])
    corners = rng.integers(0, 32 - 8 + 1, (400, 3))
    uniform = np.mean([case.label[tuple(slice(s, s + 8) for s in corner)].any() for corner in corners])
    assert uniform < 0.15
    assert aware > 0.75


def test_every_class_is_looked_for_even_where_it_is_one_voxel() -> None:
    case, rng = case_with(small_tumour()), np.random.default_rng(1)
    held = [set(np.unique(draw_patch([case], PATCH, rng, 0.8)[1])) for _ in range(200)]
    for value in (1, 2, 3):
        assert np.mean([value in values for values in held]) > 0.5


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.02, 0.2), (0.6, 0.5, 0.75), (1.0, 0.97, 1.0)])
def test_the_share_of_tumour_aware_patches_is_the_one_asked_for(share: float, least: float, most: float) -> None:
    case, rng = case_with(small_tumour()), np.random.default_rng(2)
    assert least <= np.mean([draw_patch([case], PATCH, rng, share)[1].any() for _ in range(400)]) <= most


def test_a_case_without_tumour_gives_patches_too() -> None:
    image, label = draw_patch([case_with(np.zeros((32, 32, 32), np.uint8))], PATCH, np.random.default_rng(0))
    assert (image.shape, image.dtype) == ((3, 8, 8, 8), np.float32)
    assert (label.shape, label.dtype) == ((8, 8, 8), np.uint8)


@pytest.mark.parametrize("seed", range(20))
def test_image_and_label_are_cut_at_the_same_place_inside_the_volume(seed: int) -> None:
    label = np.zeros((16, 24, 32), np.uint8)
    label[0, 0, 0] = label[-1, -1, -1] = 3
    places = np.indices(label.shape).astype(np.float16)
    case = case_with(label)
    case = TrainingCase(name="case", image=places, label=label, voxels=case.voxels, weight=1.0, seen=case.seen)
    image, cut = draw_patch([case], (8, 16, 8), np.random.default_rng(seed))
    assert cut.shape == (8, 16, 8)
    x, y, z = (int(start) for start in image[:, 0, 0, 0])
    np.testing.assert_array_equal(cut, label[x : x + 8, y : y + 16, z : z + 8])


def test_cases_are_drawn_by_their_weight() -> None:
    light, heavy = (case_with(np.zeros((8, 8, 8), np.uint8), weight, image) for weight, image in ((1.0, 0.25), (3.0, 0.75)))
    rng = np.random.default_rng(0)
    drawn = [draw_patch([light, heavy], PATCH, rng)[0][0, 0, 0, 0] for _ in range(400)]
    assert np.mean(np.array(drawn) == 0.75) == pytest.approx(0.75, abs=0.07)


def test_a_case_is_read_as_the_spec_says(tmp_path: Path) -> None:
    (case,) = load([write_case(tmp_path / "case")], [])
    assert (case.image.shape, case.image.dtype) == ((3, 32, 32, 32), np.float16)
    assert (case.image.min(), case.image.max()) == (0, 1)
    np.testing.assert_array_equal(np.bincount(case.label.ravel())[1:], np.bincount(canonical_label().ravel())[1:])
    for value, voxels in zip((1, 2, 3), case.voxels, strict=True):
        assert (case.label[tuple(voxels.T)] == value).all()
        assert len(voxels) == min(VOXELS_KEPT, np.count_nonzero(case.label == value))


def test_real_and_synthetic_cases_share_the_patches_as_asked(tmp_path: Path) -> None:
    list(write_cohort(tmp_path / "phantoms", cases=3, seed=0, shape=(16, 16, 16)))
    real = write_case(tmp_path / "real")
    cases = load([tmp_path / "phantoms"], [real], real_share=0.4)
    assert [case.name for case in cases] == [*(f"phantom-0000-000{k}" for k in range(3)), "real"]
    np.testing.assert_allclose([case.weight for case in cases], [0.2, 0.2, 0.2, 0.4])
    assert sum(case.weight for case in load([tmp_path / "phantoms"], [])) == pytest.approx(1)
    assert sum(case.weight for case in load([], [real])) == pytest.approx(1)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("grafts", [0, 2])
def test_an_unlabelled_case_is_refused(tmp_path: Path, real: bool, grafts: int) -> None:
    folder = [write_case(tmp_path / "case", UNLABELLED)]
    with pytest.raises(CaseError, match="case case has no label, training needs one") as caught:
        load([] if real else folder, folder if real else [], grafts=grafts)
    assert caught.value.hint


def test_no_case_at_all_is_refused() -> None:
    with pytest.raises(CaseError, match="no training case given"):
        load([], [])


def test_a_share_of_the_steps_is_on_the_whole_head_normalised_as_such(tmp_path: Path) -> None:
    (files,) = write_cohort(tmp_path, cases=1, seed=1, shape=(72, 72, 56))
    found = load_cases([tmp_path], [], SPEC, grafts=0, real_share=0.4, seed=0, progress=lambda _: None, head_share=0.25)
    deployed, head = found
    assert (deployed.weight, head.weight) == pytest.approx((0.75, 0.25))
    assert deployed.seen == head.seen
    assert deployed.label.shape == (32, 32, 32)
    # No tumour and no tissue of the case lies outside.
    case = read_case(files, SPEC.modalities)
    assert case.label is not None
    assert [int((head.label == value).sum()) for value in (1, 2, 3)] == [int((case.label == value).sum()) for value in (1, 2, 3)]
    for channel, modality in zip(head.image, SPEC.modalities, strict=True):
        assert (channel.min(), channel.max()) == (0, 1)
        whole = case.images[modality]
        assert int((channel > 0.01).sum()) == pytest.approx(int((whole > 0.01 * whole.max()).sum()), rel=0.01)
    assert all(side % SPEC.divisor == 0 for side in head.label.shape)
    # Shown as the policy brain-crop shows it: whole, beside patches of the deployed crop.
    rng = np.random.default_rng(0)
    drawn = [draw_patch(found, (16, 16, 16), rng) for _ in range(200)]
    heads = [(image, label) for image, label in drawn if label.shape != (16, 16, 16)]
    assert len(heads) == pytest.approx(50, abs=20)
    for image, label in heads:
        np.testing.assert_array_equal(label, head.label)
        np.testing.assert_array_equal(image, head.image.astype(np.float32))
