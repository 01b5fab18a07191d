"""A graft adds one lesion to a real head: inside it, the same every time, and nothing elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edge_latup.cases.cohort import brats_grid
from edge_latup.cases.phantom import make_phantom
from edge_latup.cases.phantom.tumour import Lesion, empty_lesion
from edge_latup.cases.read import Case
from edge_latup.errors import CaseError
from edge_latup.spec import MODALITIES
from edge_latup.training import graft as module
from edge_latup.training.graft import graft

SHAPE = (64, 64, 64)


@pytest.fixture(scope="module")
def healthy() -> Case:
    """A head with no tumour."""
    phantom = make_phantom(1, 0, shape=SHAPE, kind="no-tumour")
    images = {modality: 600 * phantom.images[modality] for modality in MODALITIES}
    return Case(name="head", images=images, label=phantom.label.astype(np.uint8), grid=brats_grid(SHAPE), convention="brats-2023")


def in_head(case: Case) -> np.ndarray:
    inside: np.ndarray = np.any([image > 0 for image in case.images.values()], axis=0)
    return inside


@pytest.mark.parametrize("index", range(4))
def test_the_lesion_is_inside_the_head(healthy: Case, index: int) -> None:
    grafted = graft(healthy, 0, index)
    assert grafted.label is not None
    assert grafted.label.dtype == np.uint8
    assert grafted.label.any()
    assert set(np.unique(grafted.label)) <= {0, 1, 2, 3}
    assert not grafted.label[~in_head(healthy)].any()
    for modality, image in grafted.images.items():
        assert not image[~in_head(healthy)].any()
        assert (image >= 0).all()
        assert not np.allclose(image[grafted.label > 0], healthy.images[modality][grafted.label > 0])


def test_it_is_named_after_its_case(healthy: Case) -> None:
    grafted = graft(healthy, 0, 3)
    assert grafted.name == "head+graft3"
    assert grafted.grid is healthy.grid


def test_the_same_seed_and_index_give_the_same_graft_and_others_another(healthy: Case) -> None:
    first, second, other, third = graft(healthy, 0, 0), graft(healthy, 0, 0), graft(healthy, 1, 0), graft(healthy, 0, 1)
    np.testing.assert_array_equal(first.label, second.label)
    for modality in first.images:
        np.testing.assert_array_equal(first.images[modality], second.images[modality])
    assert not np.array_equal(first.label, other.label)
    assert not np.array_equal(first.label, third.label)


def test_the_case_itself_is_not_changed(healthy: Case) -> None:
    before = {modality: image.copy() for modality, image in healthy.images.items()}
    graft(healthy, 0, 0)
    for modality, image in before.items():
        np.testing.assert_array_equal(healthy.images[modality], image)
    assert healthy.label is not None
    assert not healthy.label.any()


def test_where_there_is_no_lesion_nothing_changes(healthy: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    box = (slice(28, 34), slice(26, 33), slice(30, 36))

    def small_lesion(*_: object, **__: object) -> Lesion:
        rim = np.zeros(SHAPE, np.float32)
        rim[box] = 1
        return dataclasses.replace(empty_lesion(SHAPE), enhancing=rim)

    monkeypatch.setattr(module, "make_lesion", small_lesion)
    grafted = graft(healthy, 0, 0)
    elsewhere = np.ones(SHAPE, bool)
    elsewhere[box] = False
    assert grafted.label is not None
    assert (grafted.label[box] == 3).all()
    assert not grafted.label[elsewhere].any()
    for modality, image in grafted.images.items():
        np.testing.assert_allclose(image[elsewhere], healthy.images[modality][elsewhere], rtol=1e-5)


def test_a_tumour_that_is_there_keeps_its_label_where_the_graft_does_not_reach(healthy: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[30:34, 30:34, 30:34] = 2
    monkeypatch.setattr(module, "make_lesion", lambda *_, **__: empty_lesion(SHAPE))
    grafted = graft(dataclasses.replace(healthy, label=label), 0, 0)
    np.testing.assert_array_equal(grafted.label, label)


def test_an_unlabelled_case_is_handed_back_for_training_to_refuse(healthy: Case) -> None:
    unlabelled = dataclasses.replace(healthy, label=None)
    assert graft(unlabelled, 0, 0) is unlabelled


@pytest.mark.parametrize("tumour", [0, 2])
def test_a_head_too_small_for_a_lesion_is_refused(tumour: int) -> None:
    head = np.pad(np.ones((12, 12, 12), np.float32), 2)
    images = dict.fromkeys(MODALITIES, head)
    label = (tumour * head).astype(np.uint8)
    case = Case(name="mouse", images=images, label=label, grid=brats_grid((16, 16, 16)), convention="brats-2023")
    with pytest.raises(CaseError, match="the head of case mouse is too small") as caught:
        graft(case, 0, 0)
    assert "--grafts" in caught.value.hint
