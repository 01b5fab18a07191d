"""Every way to find a range gives what its definition says, by numpy's order statistics and SciPy's entropy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import entropy

from edge_latup.errors import InputError
from edge_latup.quantize.estimators import (
    ESTIMATORS,
    KL,
    LEVELS,
    MEAN_MIN_MAX,
    MIN_MAX,
    MSE,
    PERCENTILE,
    estimated,
    kl_threshold,
    least_squares_range,
    parse_estimator,
    percentile_threshold,
    slug,
)  # fmt: skip
from edge_latup.quantize.histograms import Histogram, histogram_of
from edge_latup.quantize.range_errors import rounded, tensor_errors

Values = NDArray[np.float32]
DRAWS = {
    "normal": lambda rng: rng.normal(size=200_000),
    "laplace": lambda rng: rng.laplace(size=200_000),
    "skewed": lambda rng: rng.exponential(size=200_000) - 0.2,
    "after a ReLU": lambda rng: np.maximum(rng.normal(size=200_000), 0),
    "far outliers": lambda rng: np.append(rng.normal(size=200_000), [60, -45]),
    "uniform": lambda rng: rng.uniform(-1, 3, size=200_000),
}


def drawn(name: str, seed: int = 0) -> Values:
    return np.asarray(DRAWS[name](np.random.default_rng(seed)), np.float32)


def counted(values: Values) -> Histogram:
    return histogram_of([values], float(np.abs(values).max()))


def ends_of(*inputs: Values) -> NDArray[np.float64]:
    """The ranges that `look` finds of a tensor of one channel."""
    return np.array([[[values.min()], [values.max()]] for values in inputs], np.float64)


@pytest.mark.parametrize("name", DRAWS)
def test_the_percentile_is_numpys_within_a_bin(name: str) -> None:
    values = drawn(name)
    histogram = counted(values)
    expected = np.percentile(np.abs(values).astype(np.float64), 99.999, method="inverted_cdf")
    assert expected - 1e-6 <= percentile_threshold(histogram) <= expected + histogram.width + 1e-6


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40))
def test_of_few_values_the_percentile_clips_none(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert percentile_threshold(counted(array)) >= np.abs(array).max() * (1 - 1e-6)


def brute_force(histogram: Histogram) -> list[float]:
    """KL of every threshold, bin by bin, with SciPy."""
    bins = [float(count) for count in histogram.magnitudes]
    bins[0] -= histogram.zeros
    found = []
    for kept in range(LEVELS, len(bins) + 1):
        p = bins[:kept]
        q = [0.0] * kept
        members: dict[int, list[int]] = {}
        for number in range(kept):
            if p[number]:
                members.setdefault(number * LEVELS // kept, []).append(number)
        for numbers in members.values():
            for number in numbers:
                q[number] = sum(p[other] for other in numbers) / len(numbers)
        found.append(float(entropy([*p[:-1], p[-1] + sum(bins[kept:])], q)) if sum(q) else float("inf"))
    return found


@pytest.mark.parametrize("name", DRAWS)
def test_the_kl_threshold_is_the_one_that_scipy_finds(name: str) -> None:
    values = drawn(name)
    few = counted(values)
    bound, width = few.bound, 16
    small = Histogram(counts=few.counts.reshape(-1, width).sum(axis=1), zeros=few.zeros, bound=bound)
    divergences = brute_force(small)
    found = kl_threshold(small)
    kept = round(found / small.width) - LEVELS
    assert divergences[kept] == pytest.approx(min(divergences), rel=1e-9, abs=1e-12)
    assert found <= bound * (1 + 1e-9)


def test_kl_clips_far_outliers_and_keeps_a_uniform_distribution() -> None:
    assert kl_threshold(counted(drawn("far outliers"))) < 12
    assert kl_threshold(counted(drawn("uniform"))) > 2.9


def test_kl_agrees_with_onnx_runtimes_where_both_must_find_the_same() -> None:
    """Its own pools unevenly and counts zeros, so only what is plain is compared: how much of a heavy tail goes."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    for name in ("normal", "laplace", "far outliers"):
        values = drawn(name)
        bound = np.float32(np.abs(values).max())
        counts, edges = np.histogram(values, 2049, (-bound, bound))
        collector = HistogramCollector("entropy", False, 2049, LEVELS, 99.999, "same")
        _, high = collector.get_entropy_threshold((counts, edges.astype(np.float32), -bound, bound, bound), LEVELS)
        clipped = [float((np.abs(values) > threshold).mean()) for threshold in (kl_threshold(counted(values)), float(high))]
        assert max(clipped) < 0.02, (name, clipped)


@pytest.mark.parametrize("name", DRAWS)
def test_the_least_squares_range_is_the_one_that_trying_every_range_finds(name: str) -> None:
    """By OpenVINO's own arithmetic of eight bits, on the values themselves."""
    values = drawn(name)[:20_000]
    low, high = least_squares_range(counted(values), float(values.min()), float(values.max()))
    exact, shares = values.astype(np.float64), np.arange(30, 101, 5) / 100

    def error(low: float, high: float) -> float:
        return float(((rounded(exact, low, high, "openvino") - exact) ** 2).mean())

    assert error(low, high) <= 1.01 * min(error(exact.min() * one, exact.max() * other) for one in shares for other in shares)
    assert values.min() <= low <= high <= values.max()


def test_least_squares_clips_a_tail_and_leaves_a_uniform_distribution() -> None:
    values = drawn("laplace")
    assert least_squares_range(counted(values), float(values.min()), float(values.max()))[1] < 0.85 * values.max()
    assert error_of(values, MSE) < 0.9 * error_of(values, MIN_MAX)
    even = drawn("uniform")
    assert least_squares_range(counted(even), float(even.min()), float(even.max()))[1] > 0.94 * even.max()


def test_a_tensor_that_was_not_sampled_has_its_usual_range() -> None:
    found = {"x": ends_of(np.array([-1, 2], np.float32), np.array([-3, 10], np.float32))}
    assert estimated(MSE, found, {}) == {"x": (-2, 6)}


def test_min_max_leaves_nothing_out_and_the_mean_weighs_inputs_alike() -> None:
    calm, freak = np.array([-1, 2], np.float32), np.array([-3, 10], np.float32)
    found = {"x": ends_of(calm, freak)}
    assert estimated(MIN_MAX, found, {}) == {"x": (-3, 10)}
    assert estimated(MEAN_MIN_MAX, found, {}) == {"x": (-2, 6)}


@pytest.mark.parametrize("estimator", [PERCENTILE, KL])
@pytest.mark.parametrize("name", DRAWS)
def test_a_clipped_range_stays_inside_what_was_seen(estimator: str, name: str) -> None:
    values = drawn(name)
    low, high = estimated(estimator, {"x": ends_of(values)}, {"x": counted(values)})["x"]
    assert values.min() <= low < high <= values.max()


@settings(max_examples=15)
@given(st.sampled_from(sorted(DRAWS)), st.sampled_from(ESTIMATORS), st.sampled_from(["openvino", "tensorrt"]), st.integers(0, 3))
def test_errors_from_the_histogram_are_those_of_the_values(name: str, estimator: str, runtime: str, seed: int) -> None:
    values = drawn(name, seed)
    histogram, known = counted(values), {"x": ends_of(values)}
    ranges = estimated(estimator, known, {"x": histogram})
    (found,) = tensor_errors({"x": histogram}, ranges, runtime)  # type: ignore[arg-type]
    exact = values.astype(np.float64)
    error = ((rounded(exact, *ranges["x"], runtime) - exact) ** 2).mean() / (exact**2).mean()  # type: ignore[arg-type]
    assert found.relative == pytest.approx(error, rel=0.1, abs=1e-9)
    assert found.clipped == pytest.approx((np.abs(exact) > 1.01 * max(map(abs, ranges["x"]))).mean(), abs=0.02)


def error_of(values: Values, estimator: str) -> float:
    histogram = counted(values)
    ranges = estimated(estimator, {"x": ends_of(values)}, {"x": histogram})
    return tensor_errors({"x": histogram}, ranges, "openvino")[0].relative


def test_the_percentile_beats_min_max_with_a_rare_outlier_and_loses_where_large_values_carry_the_signal() -> None:
    rng = np.random.default_rng(0)
    rare = np.append(rng.normal(size=3_000_000), [30, -30]).astype(np.float32)
    assert error_of(rare, PERCENTILE) < 0.2 * error_of(rare, MIN_MAX)
    carrying = np.append(rng.normal(size=400_000) * 0.01, [1000, 1000]).astype(np.float32)
    assert error_of(carrying, PERCENTILE) > 10 * error_of(carrying, MIN_MAX)


def test_a_tensor_of_zeros_has_no_error_to_tell() -> None:
    zeros = np.zeros(10, np.float32)
    for estimator in ESTIMATORS:
        low, high = estimated(estimator, {"x": ends_of(zeros)}, {"x": counted_zeros()})["x"]
        assert low == high == 0
    assert tensor_errors({"x": counted_zeros()}, {"x": (0, 0)}, "openvino") == []


def counted_zeros() -> Histogram:
    return histogram_of([np.zeros(10, np.float32)], 0.0)


def test_estimators_are_named_with_hyphens_or_spaces() -> None:
    assert [parse_estimator(slug(estimator)) for estimator in ESTIMATORS] == list(ESTIMATORS)
    assert parse_estimator("percentile 99.999") == PERCENTILE
    with pytest.raises(InputError, match="ranges 'percentile' are not known") as refused:
        parse_estimator("percentile")
    assert refused.value.hint == "choose one of: mean-min-max, min-max, percentile-99.999, kl, mse"
