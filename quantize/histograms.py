"""Histograms of activations: fixed bins once the largest magnitudes are known, filled tensor by tensor, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.quantize.pace import Tell, silent
from edge_latup.quantize.segments import BUDGET, for_each_tensor

BINS: Final = 8192
"""Over both signs; a power of two, so that zero is an edge. 8 bits over the full range have 32 bins a step."""
PARTS: Final = 8
"""Of a bin, at whose middles its values are taken to lie."""
SMALLEST: Final = 1e-30
"""Bound for a tensor that is zero everywhere."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """How often which values occur in a tensor over all calibration inputs.

    counts: int64 (BINS,), bins of one width from -bound to bound. zeros: how many values are exactly zero; they are in `counts` too.
    """

    counts: NDArray[np.int64]
    zeros: int
    bound: float

    @property
    def width(self) -> float:
        """Of a bin."""
        return 2 * self.bound / len(self.counts)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def magnitudes(self) -> NDArray[np.int64]:
        """int64 (BINS / 2,): counts of |x|, from zero to the bound."""
        half = len(self.counts) // 2
        folded: NDArray[np.int64] = self.counts[half:] + self.counts[:half][::-1]
        return folded

    def __add__(self, other: Histogram) -> Histogram:
        """Of both together; they have the same bound."""
        return Histogram(counts=self.counts + other.counts, zeros=self.zeros + other.zeros, bound=self.bound)

    def points(self, parts: int = PARTS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values and how often each occurs, without exact zeros: a bin's lie evenly in it, at the middles of its `parts`."""
        counts = self.counts.astype(np.float64)
        counts[len(counts) // 2] -= self.zeros
        held = np.flatnonzero(counts)
        offsets = (np.arange(parts) + 0.5) / parts
        values = (held[:, None] + offsets) * self.width - self.bound
        return values.ravel(), np.repeat(counts[held] / parts, parts)


def count_values(values: NDArray[np.float32], bound: float) -> NDArray[np.int64]:
    """`numpy.histogram` over `BINS` from -bound to bound; what lies beyond, by rounding, is counted at the ends."""
    counts = np.histogram(values, BINS, (-bound, bound))[0].astype(np.int64)
    if counts.sum() != values.size:
        counts[0] += np.count_nonzero(values < -bound)
        counts[-1] += np.count_nonzero(values > bound)
    return counts


def histogram_of(arrays: Iterable[NDArray[np.float32]], bound: float) -> Histogram:
    """The histogram of some arrays together, of which `bound` is the largest magnitude."""
    counts, zeros, bound = np.zeros(BINS, np.int64), 0, bound or SMALLEST
    for values in arrays:
        counts += count_values(values, bound)
        zeros += values.size - int(np.count_nonzero(values))
    return Histogram(counts=counts, zeros=zeros, bound=bound)


def find_histograms(
    onnx_path: Path, bounds: Mapping[str, float], inputs: Sequence[NDArray[np.float32]], *, budget: int = BUDGET, tell: Tell = silent
) -> dict[str, Histogram]:  # fmt: skip
    """A histogram of each tensor over all inputs, which costs one inference of each.

    Args:
        onnx_path: FP32 ONNX file with one input.
        bounds: largest magnitude of each tensor to look at.
        inputs: float32 (1, C, D, H, W), all of one shape.
        budget, tell: see `for_each_tensor`.

    Raises:
        InputError: there are no inputs, or a tensor is not in the graph.
    """
    found = {name: histogram_of([], bound) for name, bound in bounds.items()}

    def see(name: str, values: NDArray[np.float32]) -> None:
        found[name] += histogram_of([values], found[name].bound)

    for_each_tensor(onnx_path, tuple(found), inputs, see, budget=budget, tell=tell)
    return found
