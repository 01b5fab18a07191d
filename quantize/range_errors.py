"""What 8 bits with a given range cost a tensor, computed from its histogram."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.manifest import RuntimeName
from edge_latup.quantize.explicit_qdq import LARGEST
from edge_latup.quantize.grids import asymmetric
from edge_latup.quantize.histograms import Histogram
from edge_latup.quantize.ranges import Ranges
from edge_latup.records import Record


class TensorError(Record):
    """Of one activation with a range of its own: tensors that share one in a concat may do worse."""

    tensor: str
    clipped: float
    """Share of its values that lie outside the range by more than a bin of the histogram."""
    relative: float
    """Mean squared error of 8 bits, as a share of the tensor's mean square."""


def _symmetric(low: float, high: float) -> tuple[float, float, float]:
    """The same of int8 without -128."""
    bound = max(abs(low), abs(high)) or 1.0
    return -bound, bound, bound / LARGEST


GRIDS: Final[dict[RuntimeName, Callable[[float, float], tuple[float, float, float]]]] = {
    "openvino": asymmetric, "onnxruntime": asymmetric, "tensorrt": _symmetric,
}  # fmt: skip
"""How each runtime lays 256 levels over a range."""


def rounded(values: NDArray[np.float64], low: float, high: float, runtime: RuntimeName) -> NDArray[np.float64]:
    """Values after 8 bits."""
    start, end, step = GRIDS[runtime](low, high)
    result: NDArray[np.float64] = np.clip(np.rint(values / step) * step, start, end)
    return result


def tensor_errors(histograms: Mapping[str, Histogram], ranges: Ranges, runtime: RuntimeName) -> list[TensorError]:
    """The error of each tensor that has a histogram and holds anything but zeros; exact zeros stay exact."""
    return [
        _error(name, histogram, ranges[name], runtime)
        for name, histogram in histograms.items()
        if name in ranges and histogram.zeros < histogram.total
    ]


def _error(name: str, histogram: Histogram, range_: tuple[float, float], runtime: RuntimeName) -> TensorError:
    values, counts = histogram.points()
    start, end, _ = GRIDS[runtime](*range_)
    error = counts @ (rounded(values, *range_, runtime) - values) ** 2
    # Zero among the levels moves the grid by half a step at most, which is rounding still; a bin's end may lie beyond what was seen.
    low, high = min(range_[0], start) - histogram.width, max(range_[1], end) + histogram.width
    outside = counts[(values < low) | (values > high)].sum()
    return TensorError(tensor=name, clipped=float(outside / histogram.total), relative=float(error / (counts @ values**2)))
