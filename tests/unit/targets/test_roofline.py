"""The roofline against sums done by hand, and what must hold of any target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from target_profiles import figure, gpu, x86

from edge_latup.errors import InputError
from edge_latup.targets.profile import PowerMode
from edge_latup.targets.roofline import Machine, Operation, bound_of, bound_seconds, inside_share, machine_of

MACHINE = Machine(gmacs={"fp32": 100.0, "int8": 400.0}, bandwidth_gb_s=10.0)
CONVOLUTION = Operation(
    name="c", kind="convolution", precision="fp32", macs=3 * 10**9, needed_macs=2 * 10**9, reads=(30 * 10**6,), writes=60 * 10**6,
    weight_bytes=10**7,
)  # fmt: skip


def test_arithmetic_and_traffic_by_hand() -> None:
    """2e9 needed MACs at 1e11 a second are 20 ms; 30 + 60 + 10 MB at 10 GB/s are 10 ms."""
    assert bound_seconds(CONVOLUTION, MACHINE) == pytest.approx(0.020)
    assert bound_seconds(CONVOLUTION, Machine(gmacs={"fp32": 1000.0}, bandwidth_gb_s=10.0)) == pytest.approx(0.010)
    assert bound_of([CONVOLUTION, CONVOLUTION], MACHINE) == pytest.approx(0.040)


def test_what_a_cache_holds_is_not_charged() -> None:
    fast = Machine(gmacs={"fp32": 1e6}, bandwidth_gb_s=10.0, cached_bytes=30 * 10**6)
    assert bound_seconds(CONVOLUTION, fast) == pytest.approx(0.006), "only the 60 MB it writes leave the cache"


def test_what_does_not_multiply_may_be_fused_and_costs_nothing() -> None:
    for kind in ("norm", "pooling", "concatenation", "elementwise", "softmax"):
        assert bound_seconds(Operation(name="n", kind=kind, precision="fp32", reads=(10**9,), writes=10**9), MACHINE) == 0  # type: ignore[arg-type]


def test_a_precision_without_a_rate_is_refused() -> None:
    with pytest.raises(InputError, match="no peak rate is known for bf16"):
        MACHINE.rate("bf16")


def test_threads_and_power_modes_scale_the_peak() -> None:
    assert machine_of(x86(100.0), threads=1).gmacs["fp32"] == 50.0
    assert machine_of(x86(100.0), threads=64).gmacs["fp32"] == 100.0, "there are two cores"
    mode = PowerMode(name="15W", watts=figure(15), gpu_share=figure(0.6), bandwidth_gb_s=figure(5.0))
    slowed = machine_of(gpu(1000.0), mode=mode)
    assert (slowed.gmacs["fp32"], slowed.bandwidth_gb_s) == (600.0, 5.0)


def test_fp32_may_be_tf32_on_tensor_cores() -> None:
    """TensorRT takes TF32 unless told otherwise, so a bound at the FP32 rate would not hold."""
    assert machine_of(gpu(1000.0, tf32_gmacs=figure(4000.0))).gmacs["fp32"] == 4000.0
    assert machine_of(gpu(1000.0, tf32_gmacs=figure(500.0))).gmacs["fp32"] == 1000.0


rates = st.floats(1.0, 1e6)


@given(macs=st.integers(0, 10**12), moved=st.integers(0, 10**10), slow=rates, fast=rates, narrow=rates, wide=rates)
def test_a_faster_machine_is_never_slower(macs: int, moved: int, slow: float, fast: float, narrow: float, wide: float) -> None:
    operation = Operation(name="o", kind="convolution", precision="fp32", macs=macs, needed_macs=macs, reads=(moved,))
    worse = Machine(gmacs={"fp32": min(slow, fast)}, bandwidth_gb_s=min(narrow, wide))
    better = Machine(gmacs={"fp32": max(slow, fast)}, bandwidth_gb_s=max(narrow, wide))
    assert bound_seconds(operation, better) <= bound_seconds(operation, worse)


@given(
    read=st.integers(1, 9), kernel=st.integers(1, 5), stride=st.integers(1, 3), dilation=st.integers(1, 2), pad=st.integers(0, 3)
)  # fmt: skip
def test_taps_on_data_are_counted_as_a_convolution_of_ones_counts_them(
    read: int, kernel: int, stride: int, dilation: int, pad: int
) -> None:
    padded = np.concatenate([np.zeros(pad), np.ones(read), np.zeros(pad)])
    reach = (kernel - 1) * dilation + 1
    if reach > len(padded):
        return
    starts = range(0, len(padded) - reach + 1, stride)
    taps = sum(padded[start : start + reach : dilation].sum() for start in starts)
    assert inside_share(read, len(starts), kernel, stride, dilation, pad) == pytest.approx(taps / (len(starts) * kernel))
