"""Test-time augmentation: views are undone exactly, and the vote is the majority's, ties to the mean probability."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_latup.segmentation.views import TURNS, paint, vote
from edge_latup.spec import ModelSpec, Region, RegionHead, View


def test_every_view_of_the_spec_has_a_turn() -> None:
    assert set(TURNS) == set(get_args(View))


@pytest.mark.parametrize("view", get_args(View))
@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (5, 3, 4), (1, 2, 6, 5, 4)])
def test_a_view_is_undone_exactly(view: View, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    np.testing.assert_array_equal(TURNS[view].invert(TURNS[view].apply(array)), array)


def test_the_views_are_the_protocols() -> None:
    """Of (x, y, z), x runs between left and right; the axial plane is (x, y)."""
    array = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    np.testing.assert_array_equal(TURNS["mirror"].apply(array), array[::-1])
    np.testing.assert_array_equal(TURNS["rotate"].apply(array)[:, :, 0], np.rot90(array[:, :, 0]))
    np.testing.assert_array_equal(TURNS["identity"].apply(array), array)


@given(arrays(np.uint8, (3, 2, 2, 2), elements=st.integers(0, 3)), st.integers(0, 99))
def test_the_vote_is_that_of_counting_by_hand(choices: np.ndarray, seed: int) -> None:
    mean = np.random.default_rng(seed).random((4, 2, 2, 2)).astype(np.float32)
    found = vote(list(choices), mean)
    for where in np.ndindex(2, 2, 2):
        votes = np.bincount(choices[(slice(None), *where)], minlength=4)
        leading = np.flatnonzero(votes == votes.max())
        assert found[where] == max(leading, key=lambda label: mean[(label, *where)])


def test_one_view_alone_decides() -> None:
    choice = np.array([[[2, 0]]])
    np.testing.assert_array_equal(vote([choice], np.zeros((4, 1, 1, 2), np.float32)), choice)


def test_a_view_is_named_once() -> None:
    with pytest.raises(ValueError, match="views must be distinct"):
        ModelSpec(name="test", views=("mirror", "mirror"))


def painted_by_hand(outputs: list[np.ndarray], head: RegionHead, threshold: float) -> np.ndarray:
    """Voxel by voxel: count the views, then paint."""
    labels = np.zeros(outputs[0].shape[1:], np.uint8)
    for voxel in np.ndindex(labels.shape):
        holds = {}
        for channel, region in enumerate(head.order):
            values = [float(output[(channel, *voxel)]) for output in outputs]
            above = sum(value > threshold for value in values)
            mean = np.float32(np.mean(np.array(values, np.float32), dtype=np.float32))
            holds[region] = above > len(values) / 2 or (above == len(values) / 2 and mean > threshold)
        outer = True
        for region, label in head.paint:
            if region in holds:
                if holds[region] and (outer or not head.nested):
                    labels[voxel] = label
                outer = outer and holds[region]
    return labels


@given(
    st.integers(1, 3),
    st.permutations(["WT", "TC", "ET"]),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([0.25, 0.5]),
    st.integers(0, 99),
)
def test_regions_are_painted_from_the_outside_in(
    views: int, order: list[Region], count: int, nested: bool, threshold: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    head = RegionHead(order=tuple(order[:count]), nested=nested)
    outputs = [rng.choice(np.float32([0.125, 0.25, 0.4375, 0.5, 0.5625, 0.875]), (count, 3, 4, 2)) for _ in range(views)]
    np.testing.assert_array_equal(paint(outputs, head, threshold), painted_by_hand(outputs, head, threshold))


def test_the_regions_of_nnu_net_become_the_labels_of_brats() -> None:
    """WT alone is oedema, within TC necrotic core, within ET enhancing; ET outside of TC stays ET unless regions are nested."""
    columns = {"nothing": (0, 0, 0), "WT": (1, 0, 0), "WT, TC": (1, 1, 0), "all": (1, 1, 1), "ET alone": (0, 0, 1), "TC alone": (0, 1, 0)}
    output = np.array(list(columns.values()), np.float32).T[:, :, None, None]
    assert paint([output], RegionHead(order=("WT", "TC", "ET")), 0.5).ravel().tolist() == [0, 2, 1, 3, 3, 1]
    assert paint([output], RegionHead(order=("WT", "TC", "ET"), nested=True), 0.5).ravel().tolist() == [0, 2, 1, 3, 0, 0]


def test_half_is_not_above_a_half() -> None:
    """A logit of exactly 0, which padding may give, is no tumour."""
    assert not paint([np.full((1, 2, 2, 2), 0.5, np.float32)], RegionHead(order=("WT",)), 0.5).any()
