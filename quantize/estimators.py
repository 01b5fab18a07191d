"""How the range of an activation follows from what calibration found in it: the choices, and the arithmetic of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import InputError
from edge_latup.quantize.grids import asymmetric
from edge_latup.quantize.histograms import Histogram
from edge_latup.quantize.ranges import ChannelRanges, Ranges, usual, widest

MEAN_MIN_MAX: Final = "mean min-max"
"""Each input's smallest and largest value, averaged over the inputs, as NNCF does by default."""
MIN_MAX: Final = "min-max"
"""The smallest and the largest value of all inputs: nothing is clipped."""
PERCENTILE: Final = "percentile 99.999"
"""See `percentile_threshold`; MLPerf's 3D-UNet submissions by NVIDIA calibrate so."""
MSE: Final = "mse"
"""See `least_squares_range`."""
KL: Final = "kl"
"""See `kl_threshold`."""
SHARE: Final = 0.99999
KL_BINS: Final = 2048
"""Of |x|, as many as in the source; with more, few values a bin would look like structure."""
LEVELS: Final = 128
"""Of int8 on one side of zero."""
SHARES: Final = np.arange(6, 21) / 20
"""Of either end of a range, among which the one with the least mean squared error is looked for."""


def percentile_threshold(histogram: Histogram) -> float:
    """The magnitude that 99.999 % of a tensor's values, of both signs and over all inputs together, do not exceed.

    It is the order statistic (no interpolation) rounded up to the next edge of a bin.
    """
    reached = np.cumsum(histogram.magnitudes)
    bin_ = int(np.searchsorted(reached, SHARE * histogram.total))
    return (min(bin_, len(reached) - 1) + 1) * histogram.width


def kl_threshold(histogram: Histogram) -> float:
    """The magnitude at which to clip so that 128 levels tell least else about |x|: entropy calibration.

    For every number of bins kept, the distribution P (what lies beyond is added to the last bin kept) is compared with Q (the kept
    bins without it, pooled into 128 levels and spread evenly over those that hold a value): least KL(P || Q), of equals the widest.
    Exact zeros are left out: any scale holds them exactly, and after a ReLU they would outweigh all else.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    counts = histogram.magnitudes.astype(np.float64)
    counts[0] -= histogram.zeros
    if not counts.any():
        return histogram.bound
    counts = counts.reshape(-1, max(1, len(counts) // KL_BINS)).sum(axis=1)
    found = [_divergence(counts, kept) for kept in range(LEVELS, len(counts) + 1)]
    widest_least = len(found) - 1 - int(np.argmin(found[::-1]))
    return (LEVELS + widest_least) * histogram.bound / len(counts)


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    """KL(P || Q) in nats for the first `kept` bins; infinite where Q says that something cannot be that is."""
    inside = counts[:kept]
    holds = inside > 0
    level = np.arange(kept) * LEVELS // kept
    pooled = np.bincount(level, inside, LEVELS) / np.maximum(np.bincount(level, holds, LEVELS), 1)
    spread = np.where(holds, pooled[level], 0)
    clipped = inside.copy()
    clipped[-1] += counts[kept:].sum()
    there = clipped > 0
    if not spread.any() or not spread[there].all():
        return float("inf")
    p, q = clipped[there] / clipped.sum(), spread[there] / spread.sum()
    return float((p * np.log(p / q)).sum())


def least_squares_range(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """The range inside (low, high) whose 256 levels, zero among them, have the least mean squared error: rounding within, clipping beyond.

    Each end is tried at 30 % to 100 % of its distance from zero, in steps of 5 %; of equals the narrowest. Exact zeros cost nothing.
    """
    values, counts = histogram.points(1)
    lows, highs = SHARES * low if low < 0 else [low], SHARES * high if high > 0 else [high]
    return min(((float(one), float(other)) for one in lows for other in highs), key=lambda ends: _squared_error(values, counts, *ends))


def _squared_error(values: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float) -> float:
    start, end, step = asymmetric(low, high)
    return float(counts @ (np.clip(np.rint(values / step) * step, start, end) - values) ** 2)


THRESHOLDS: Final[dict[str, Callable[[Histogram], float]]] = {PERCENTILE: percentile_threshold, KL: kl_threshold}
"""Those that clip both signs at one magnitude."""
COUNTING: Final = (*THRESHOLDS, MSE)
"""Those that need histograms."""
ESTIMATORS: Final = (MEAN_MIN_MAX, MIN_MAX, PERCENTILE, KL, MSE)


def slug(estimator: str) -> str:
    """What an estimator is called on the command line and in a folder's name."""
    return estimator.replace(" ", "-")


def parse_estimator(text: str) -> str:
    """The estimator called `text`, with hyphens or spaces.

    Raises:
        InputError: there is none.
    """
    known = {slug(estimator): estimator for estimator in ESTIMATORS}
    if slug(text) not in known:
        raise InputError(f"ranges {text!r} are not known", f"choose one of: {', '.join(known)}")
    return known[slug(text)]


def estimated(estimator: str, found: ChannelRanges, histograms: Mapping[str, Histogram]) -> Ranges:
    """The range of each tensor; `histograms` of every one where the estimator is among `COUNTING`.

    Where `MSE` has none of a tensor, which could not be sampled, its range is that of `MEAN_MIN_MAX`.
    """
    if estimator == MEAN_MIN_MAX:
        return usual(found)
    ends = widest(found)
    if estimator == MIN_MAX:
        return ends
    if estimator == MSE:
        return dict(usual(found)) | {
            name: least_squares_range(histograms[name], *range_) for name, range_ in ends.items() if name in histograms
        }  # fmt: skip
    bounds = {name: THRESHOLDS[estimator](histograms[name]) for name in ends}
    return {name: (max(low, -bounds[name]), min(high, bounds[name])) for name, (low, high) in ends.items()}
