"""A long pass tells how far it is, a short one nothing."""

from __future__ import annotations

from edge_latup.quantize.pace import paced


def test_the_rest_is_estimated_at_the_pace_so_far() -> None:
    told: list[str] = []
    clock = iter([0.0, 0.0, 4.0, 8.0, 10.0]).__next__
    assert list(paced("abcd", "counting", told.append, clock)) == list("abcd")
    assert told == ["counting: 2 of 4 inputs, about 8 s left"]


def test_a_short_pass_is_silent() -> None:
    told: list[str] = []
    assert list(paced(range(100), "counting", told.append)) == list(range(100))
    assert told == []
