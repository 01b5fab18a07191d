"""Paired statistics of a mean drop: three upper bounds, the tests that belong to them, and Holm's correction.

A drop is reference minus candidate: positive is worse. All functions take drops of shape (..., n), n cases on the last axis, so that
thousands of simulated cohorts are judged at once; tests/unit/metrics/test_statistics.py measures how often each bound holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import InputError

Values = NDArray[np.float64]
Method = Literal["t", "hall", "bca"]
METHODS: Final[tuple[Method, ...]] = ("t", "hall", "bca")
Key = TypeVar("Key")

NO_SPREAD: Final = 1e-12
"""Standard deviation below which drops count as equal: Dice is a quotient of integers, its rounding is about 1e-16."""


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How often and from which seed the cases are drawn again: the same drops give the same bound."""

    resamples: int = 10_000
    seed: int = 0


def upper_bounds(drops: Values, alpha: float, bootstrap: Bootstrap) -> dict[Method, Values]:
    """One-sided upper bounds of the mean at confidence 1 - alpha, by method.

    t: mean + t(n - 1) s / sqrt(n), exact where drops are normal. hall: the same after Hall's transformation (J. R. Stat. Soc. B 54, 1992,
    221-228), which takes out most of what skewness does to t, with Student's quantile in place of the normal one. bca: Efron's
    bias-corrected and accelerated bootstrap (J. Am. Stat. Assoc. 82, 1987, 171-185). Where all drops are equal, each is the mean.

    Raises:
        InputError: fewer than two cases, or a drop that is not a finite number.
    """
    from scipy import special

    sample = _sample(drops)
    quantile = float(special.stdtrit(sample.n - 1, alpha))
    bounds: dict[Method, Values] = {
        "t": sample.mean - quantile * sample.error,
        "hall": sample.mean - _hall_inverse(quantile, sample.slant) * sample.error,
        "bca": _bca_bound(sample, alpha, bootstrap),
    }
    return {method: np.where(sample.equal, sample.mean, bound) for method, bound in bounds.items()}


def p_values(drops: Values, margin: float, bootstrap: Bootstrap) -> dict[Method, Values]:
    """One-sided p-values of the non-inferiority test, by method: H0 is a mean drop of `margin` or more.

    Each is the alpha at which the bound of the same method meets the margin; that of bca is at least 1 / (resamples + 1). Where all
    drops are equal there is nothing to test: 0 below the margin, else 1.

    Raises:
        InputError: fewer than two cases, or a drop that is not a finite number.
    """
    from scipy import special

    sample = _sample(drops)
    statistic = (sample.mean - margin) / np.where(sample.equal, 1.0, sample.error)
    p: dict[Method, Values] = {
        "t": special.stdtr(sample.n - 1, statistic),
        "hall": special.stdtr(sample.n - 1, _hall(statistic, sample.slant)),
        "bca": _bca_p(sample, margin, bootstrap),
    }
    return {method: np.where(sample.equal, np.where(sample.mean < margin, 0.0, 1.0), value) for method, value in p.items()}


def holm(p: Mapping[Key, float]) -> dict[Key, float]:
    """P-values adjusted for their number (Holm, Scand. J. Stat. 6, 1979, 65-70); the order of `p` is kept.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none gets smaller than the one before it, none exceeds 1.
    """
    adjusted: dict[Key, float] = {}
    largest = 0.0
    for tested, key in enumerate(sorted(p, key=lambda key: p[key])):
        largest = max(largest, min(1.0, (len(p) - tested) * p[key]))
        adjusted[key] = largest
    return {key: adjusted[key] for key in p}


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """What all methods need of the drops. error: standard error of the mean. slant: skewness / sqrt(n). equal: no spread."""

    drops: Values
    mean: Values
    error: Values
    slant: Values
    equal: NDArray[np.bool_]

    @property
    def n(self) -> int:
        return int(self.drops.shape[-1])


def _sample(drops: Values) -> _Sample:
    drops = np.asarray(drops, np.float64)
    n = drops.shape[-1] if drops.ndim else 0
    if n < 2:
        raise InputError(f"a bound of a mean needs at least 2 cases, not {n}", "evaluate on more cases")
    if not np.isfinite(drops).all():
        raise InputError("a drop is not a finite number", "compare the candidate with its reference again")
    mean, spread = drops.mean(axis=-1), drops.std(axis=-1, ddof=1)
    equal = spread < NO_SPREAD
    scaled = (drops - mean[..., None]) / np.where(equal, 1.0, spread)[..., None]
    skewness = (scaled**3).sum(axis=-1) * n / ((n - 1) * max(n - 2, 1))  # unbiased for a normal sample; 0 for two cases
    return _Sample(drops=drops, mean=mean, error=spread / np.sqrt(n), slant=skewness / np.sqrt(n), equal=equal)


def _hall(statistic: Values, slant: Values) -> Values:
    """Hall's monotone cubic: nearly free of the skewness that the t statistic has."""
    return statistic + slant * (statistic**2 / 3 + 1 / 6) + slant**2 * statistic**3 / 27


def _hall_inverse(value: float, slant: Values) -> Values:
    """The statistic that `_hall` takes to `value`."""
    straight = np.abs(slant) < 1e-9  # the cubic is then the identity, and its inverse is 0 / 0
    safe = np.where(straight, 1.0, slant)
    inverse: Values = np.where(straight, value, 3 / safe * (np.cbrt(1 + safe * (value - safe / 6)) - 1))
    return inverse


def bootstrap_means(drops: Values, bootstrap: Bootstrap) -> Values:
    """Means of resampled cohorts, shape (..., resamples). All cohorts of one call are drawn by the same pattern of cases."""
    n = drops.shape[-1]
    counts = np.random.default_rng(bootstrap.seed).multinomial(n, np.full(n, 1 / n), size=bootstrap.resamples)
    means: Values = drops @ (counts.T / n)
    return means


def _normal_share_below(means: Values, value: Values, resamples: int) -> Values:
    """Normal quantile of the share of `means` below `value`; ties count half, and no share is quite 0 or 1."""
    from scipy import special

    share = ((means < value[..., None]).mean(axis=-1) + (means <= value[..., None]).mean(axis=-1)) / 2
    quantile: Values = special.ndtri(np.clip(share, 1 / (resamples + 1), resamples / (resamples + 1)))
    return quantile


def _bca_parts(sample: _Sample, bootstrap: Bootstrap) -> tuple[Values, Values, Values]:
    """Bootstrap means; Efron's bias correction z0; his acceleration a, from the jackknife."""
    means = bootstrap_means(sample.drops, bootstrap)
    away = sample.drops - sample.mean[..., None]  # leaving a case out moves the mean by away / (n - 1): the factor cancels
    power = np.where(sample.equal, 1.0, (away**2).sum(axis=-1)) ** 1.5
    return means, _normal_share_below(means, sample.mean, bootstrap.resamples), (away**3).sum(axis=-1) / (6 * power)


def _bca_bound(sample: _Sample, alpha: float, bootstrap: Bootstrap) -> Values:
    from scipy import special

    means, bias, acceleration = _bca_parts(sample, bootstrap)
    z = bias + special.ndtri(1 - alpha)
    level = special.ndtr(bias + z / (1 - acceleration * z))
    means.sort(axis=-1)
    place = level * (bootstrap.resamples - 1)
    below = np.floor(place).astype(np.intp)
    low, high = (
        np.take_along_axis(means, index[..., None], axis=-1)[..., 0] for index in (below, np.minimum(below + 1, bootstrap.resamples - 1))
    )
    bound: Values = low + (place - below) * (high - low)
    return bound


def _bca_p(sample: _Sample, margin: float, bootstrap: Bootstrap) -> Values:
    """The bound's formula solved for alpha."""
    from scipy import special

    means, bias, acceleration = _bca_parts(sample, bootstrap)
    away = _normal_share_below(means, np.full_like(sample.mean, margin), bootstrap.resamples) - bias
    z = away / np.maximum(1 + acceleration * away, 1e-9) - bias
    p: Values = np.clip(special.ndtr(-z), 1 / (bootstrap.resamples + 1), 1.0)
    return p
