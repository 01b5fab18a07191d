"""Amounts of memory as people write them, what tensors take at once, and which policies are tried against a budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.errors import InputError
from edge_latup.runtimes.base import peak_of_lifetimes
from edge_latup.segmentation.memory import forecast, parse_bytes, process_bytes, smaller_policies
from edge_latup.spec import BrainCrop, CentreCrop, ModelSpec, SlidingWindow


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GiB", 2 << 30), ("900 MB", 900_000_000), ("1.5gib", 3 << 29), ("4096", 4096), (" 7 KiB ", 7168), ("1B", 1)],
)
def test_amounts_are_read_as_written(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-2GiB", "2 gigs", "0", "1e9", "2GiB extra", "nan"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not an amount of memory"):
        parse_bytes(text)


def test_the_process_knows_its_own_size() -> None:
    before = process_bytes("VmRSS")
    held = np.ones(40 << 20, np.uint8)
    assert process_bytes("VmRSS") - before > 35 << 20
    assert process_bytes("VmHWM") >= process_bytes("VmRSS") > 0
    assert held.any()
    assert process_bytes("NoSuchLine") == 0


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(0, 100)), max_size=12))
def test_the_peak_is_that_of_counting_step_by_step(drawn: list[tuple[int, int, int]]) -> None:
    lifetimes = [(made, made + more, size) for made, more, size in drawn]
    by_hand = [sum(size for made, last, size in lifetimes if made <= step <= last) for step in range(20)]
    assert peak_of_lifetimes(lifetimes) == max(by_hand)


def test_smaller_windows_are_tried_after_the_declared_policy_largest_first() -> None:
    tried = list(smaller_policies(BrainCrop(), 8))
    assert tried[0] == BrainCrop()
    assert [policy.size[0] for policy in tried[1:]] == [128, 96, 64, 48, 32]
    assert all(isinstance(policy, SlidingWindow) for policy in tried[1:])
    own = SlidingWindow(size=(64, 64, 64), overlap=0.5, blending="constant")
    assert list(smaller_policies(own, 8)) == [own, own.model_copy(update={"size": (48,) * 3}), own.model_copy(update={"size": (32,) * 3})]
    assert [policy.size[0] for policy in list(smaller_policies(CentreCrop(), 32))[1:]] == [128, 96, 64, 32], "only what the network divides"


def test_a_forecast_is_never_less_than_what_was_taken_already() -> None:
    spec = ModelSpec(name="test")
    small = forecast(spec, (8, 8, 8), (8, 8, 8), activations=0)
    assert small.total >= process_bytes("VmRSS")
    large = forecast(spec, (8, 8, 8), (8, 8, 8), activations=1 << 34)
    assert large.total > 1 << 34
