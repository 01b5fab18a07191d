"""How many times as fast one row of a run is as another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge_latup.bench.records import TimingRow
from edge_latup.bench.store import LoadedRun

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """`interval`: of the median, at a confidence of 95 %; None where rows were not run in turns, or too few of them."""

    times: float
    interval: tuple[float, float] | None


def times_as_fast(run: LoadedRun, row: TimingRow, than: TimingRow) -> float:
    """The latency of `than` divided by that of `row`.

    Of rows run in turns it is the median of that ratio over the rounds, else the ratio of the medians.
    """
    if run.record.turns is None:
        return than.p50_ms / row.p50_ms
    return float(np.median(_by_round(row, than)))


def speed_up(run: LoadedRun, row: TimingRow, than: TimingRow) -> SpeedUp:
    """`times_as_fast`, and between which values it lies.

    The interval is that of order statistics (Hoefler and Belli, Scientific Benchmarking of Parallel Computing Systems, SC 2015, 3.1.3):
    it holds for ratios of any distribution, as far as rounds are independent of each other.
    """
    times = times_as_fast(run, row, than)
    if run.record.turns is None or row is than:
        return SpeedUp(times=times, interval=None)
    from scipy import stats

    test: Any = stats.quantile_test(_by_round(row, than), p=0.5)
    low, high = test.confidence_interval(CONFIDENCE)
    return SpeedUp(times=times, interval=None if np.isnan([low, high]).any() else (float(low), float(high)))


def _by_round(row: TimingRow, than: TimingRow) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(than.samples_ms, np.float64) / np.asarray(row.samples_ms, np.float64)
