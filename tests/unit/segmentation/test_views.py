"""Test-time augmentation: views are undone exactly, and the vote is the majority's, ties to the mean probability."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_latup.segmentation.views import TURNS, vote
from edge_latup.spec import ModelSpec, View


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
