"""Small components out, per class or of the whole tumour, by the connectivity asked for; scipy is the reference."""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from edge_latup.errors import MissingDependencyError
from edge_latup.segmentation.postprocess import post_process, remove_small_components
from edge_latup.spec import PostProcess

RANK = {6: 1, 18: 2, 26: 3}


def by_scipy(label: np.ndarray, least: int, connectivity: int) -> np.ndarray:
    kept = np.zeros_like(label)
    for value in (1, 2, 3):
        components, count = ndimage.label(label == value, ndimage.generate_binary_structure(3, RANK[connectivity]))
        for component in range(1, count + 1):
            if np.count_nonzero(components == component) >= least:
                kept[components == component] = value
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.sampled_from([6, 18, 26]), st.floats(0.4, 0.9))
def test_what_is_kept_is_what_scipy_keeps(seed: int, least: int, connectivity: Literal[6, 18, 26], air: float) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(1, 4, (7, 6, 8)).astype(np.uint8) * (rng.random((7, 6, 8)) > air)
    rule = PostProcess(min_component_voxels=least, connectivity=connectivity)
    found = remove_small_components(label, rule)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, by_scipy(label, least, connectivity))


def test_a_component_of_150_voxels_stays_and_one_of_149_goes() -> None:
    label = np.zeros((20, 20, 20), np.uint8)
    label[:5, :5, :6] = 1
    label[10:15, 10:15, 10:16] = 3
    label[14, 14, 15] = 0
    found = remove_small_components(label, PostProcess(min_component_voxels=150))
    assert np.count_nonzero(found == 1) == 150
    assert not (found == 3).any()


def test_without_a_rule_nothing_is_changed_nor_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cc3d", None)
    label = np.ones((2, 2, 2), np.uint8)
    assert post_process(label, PostProcess()) is label
    for rule in (PostProcess(min_component_voxels=2), PostProcess(min_tumour_voxels=2)):
        with pytest.raises(MissingDependencyError, match="connected-components-3d"):
            post_process(label, rule)
    empty = np.zeros((2, 2, 2), np.uint8)
    assert post_process(empty, PostProcess(min_tumour_voxels=2)) is empty


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(0, 40), st.floats(0.5, 0.95))
def test_whole_tumours_are_judged_by_the_voxels_of_all_their_classes(seed: int, least: int, enhancing: int, air: float) -> None:
    rng = np.random.default_rng(seed)
    label = np.pad(rng.integers(1, 4, (7, 6, 8)).astype(np.uint8) * (rng.random((7, 6, 8)) > air), ((2, 1), (0, 3), (4, 0)))
    rule = PostProcess(min_tumour_voxels=least, min_enhancing_voxels=enhancing)
    before = label.copy()
    found = post_process(label, rule)
    np.testing.assert_array_equal(label, before)
    whole = by_scipy((label > 0).astype(np.uint8), least, 26)
    expected = np.where(whole, label, 0)
    if np.count_nonzero(expected == 3) < enhancing:
        expected = np.where(expected == 3, 1, expected)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


def test_a_tumour_with_a_small_core_keeps_it_and_loses_nothing() -> None:
    """Per class the core would go and leave a hole."""
    label = np.zeros((20, 20, 20), np.uint8)
    label[2:12, 2:12, 2:12] = 2
    label[5:7, 5:7, 5:7] = 1
    label[15:17, 15:17, 15:17] = 2
    found = post_process(label, PostProcess(min_tumour_voxels=500))
    assert np.count_nonzero(found == 1) == 8
    assert np.count_nonzero(found) == 1000
