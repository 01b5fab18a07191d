"""How 8 bits lie over a range: the levels, zero among them."""

from __future__ import annotations

from typing import Final

UNSIGNED: Final = 255
"""Steps of uint8."""
SMALLEST_STEP: Final = 1e-6
"""For a tensor that is zero everywhere."""


def zero_aligned(low: float, high: float, levels: int = 256) -> tuple[float, float]:
    """The range widened to hold zero, and moved by less than one step so that zero is one of its levels."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (levels - 1) or SMALLEST_STEP
    start = round(-low / step) * step
    return -start, (levels - 1) * step - start


def asymmetric(low: float, high: float) -> tuple[float, float, float]:
    """First level, last level and step of uint8 over a range."""
    start, end = zero_aligned(low, high)
    return start, end, (end - start) / UNSIGNED
