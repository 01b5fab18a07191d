"""The Pareto front: nobody in it is beaten, everybody outside is, and rows whose drift is unknown are not ranked with others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_run import Plan, drift_record, timing_row
from sample_sweep import BF16, INT8, row, sweep_of

from edge_latup.bench.pareto import OBJECTIVES, dominates, drop_of, front, front_of, worst_drop

POINTS = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.tuples(*[st.integers(0, 4).map(float)] * size), max_size=25).map(lambda points: dict(enumerate(points)))
)
"""Few values, so that ties and equal points come up."""


@given(points=POINTS)
def test_nobody_in_the_front_is_beaten_and_everybody_outside_is_by_one_in_it(points: dict[int, tuple[float, ...]]) -> None:
    best = front(points)
    assert bool(best) == bool(points)
    for key, point in points.items():
        beating = [other for other in best if _beats(points[other], point)]
        assert bool(beating) == (key not in best)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """The definition in other words: not equal, and the smaller of both in every coordinate is `one`."""
    return one != other and tuple(map(min, one, other)) == one


def test_points_of_two_lengths_are_not_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        dominates((1, 2), (1, 2, 3))


def test_equal_points_stand_together() -> None:
    assert front({"a": (1, 2), "b": (1, 2), "c": (2, 2)}) == {"a", "b"}


def test_a_row_that_is_worse_in_everything_is_not_in_the_front() -> None:
    rows = [row("fp32", 3000), row("bf16", 1600, **BF16, peak_rss_bytes=8 * 10**8), row("slow", 4000, model_bytes=13_000_000)]
    found = front_of(sweep_of(rows, {"bf16": 0.0, "slow": 0.0}), "native")
    assert [one.artifact for one in found.rows] == ["bf16"], "all else is equal or worse: the reference's drift is 0 too"
    assert found.objectives == OBJECTIVES
    assert not found.without_drift


def test_rows_without_known_drift_are_left_out_and_told() -> None:
    rows = [row("fp32", 3000), row("int8", 900, **INT8), row("bf16", 1600, **BF16)]
    found = front_of(sweep_of(rows, {"bf16": 0.001}), "native")
    assert [one.artifact for one in found.rows] == ["fp32", "bf16"], "the fastest is not ranked: its drift is not known"
    assert [one.artifact for one in found.without_drift] == ["int8"]


def test_without_any_drift_the_other_objectives_are_compared() -> None:
    rows = [row("fp32", 3000), row("int8", 900, **INT8)]
    found = front_of(sweep_of(rows), "native")
    assert [one.artifact for one in found.rows] == ["int8"]
    assert found.objectives == OBJECTIVES[:3]


def test_each_instruction_set_has_a_front_of_its_own() -> None:
    rows = [row("fp32", 3000), row("int8", 900, **INT8), row("fp32", 100, "avx2"), row("int8", 10, "avx2", **INT8)]
    sweep = sweep_of(rows)
    assert [one.p50_ms for one in front_of(sweep, "native").rows] == [900]
    assert [one.p50_ms for one in front_of(sweep, "avx2").rows] == [10]


def test_drift_counts_for_what_it_was_measured_with() -> None:
    """Threads do not change it; another runtime or another float precision would."""
    rows = [
        row("fp32", 3000),
        row("x", 2000),
        row("x", 2500, threads=1),
        row("x", 9000, runtime="onnxruntime"),
        row("x", 1, executed_float="bf16"),
    ]
    sweep = sweep_of(rows, {"x": 0.004})
    assert drop_of(sweep, rows[0]) == 0
    assert drop_of(sweep, rows[1]) == drop_of(sweep, rows[2]) == pytest.approx(0.004, rel=0.5)
    assert drop_of(sweep, rows[3]) is None
    assert drop_of(sweep, rows[4]) is None


def test_a_gain_counts_as_no_drop_and_the_worst_origin_counts() -> None:
    reference = timing_row("fp32")
    assert worst_drop(drift_record(row("x", 1), reference, Plan(drops={"x": -0.01}))) == 0
    assert worst_drop(drift_record(row("x", 1), reference, Plan(drops={"x": 0.01}, labelled=False))) is None
    record = drift_record(row("x", 1), reference, Plan(drops={"x": 0.01}))
    means = [
        sum(case.regions[region].dice_drop or 0 for case in cases) / len(cases)
        for origin in ("phantom", "real", "real, pseudo-label")
        for cases in [[case for case in record.cases if case.origin == origin]]
        for region in cases[0].regions
    ]
    assert worst_drop(record) == pytest.approx(max(means))
