"""Class rates: the nearest measured operation lends its rate, sizes between two are interpolated, other peaks scale."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from target_profiles import class_rates, rate

from edge_latup.errors import SpecError
from edge_latup.records import read_record, write_record
from edge_latup.targets.class_rates import ClassRates, likely_seconds, shipped_rates
from edge_latup.targets.roofline import Machine, Operation, OperationKind, bound_seconds

NARROW = rate("convolution", channels=(4, 32), macs=10**8, microseconds=(2000.0,))
WIDE = rate("convolution", channels=(128, 128), macs=10**8, microseconds=(500.0,))
SMALL, LARGE = rate("norm", bytes_moved=10**6), rate("norm", bytes_moved=10**8, microseconds=(400_000.0,))


def operation(kind: OperationKind = "convolution", **changes: object) -> Operation:
    fields: dict[str, object] = {"precision": "fp32", "macs": 10**9, "needed_macs": 10**9, "kernel": 3, "channels": (3, 32), "voxels": 4096}
    return Operation(name="o", kind=kind, **(fields | changes))  # type: ignore[arg-type]


def test_the_nearest_channels_lend_their_rate() -> None:
    """10^9 MACs at 5e10 a second are 20 ms, at 2e11 they are 5 ms."""
    rates = class_rates(NARROW, WIDE)
    assert likely_seconds(operation(), rates) == pytest.approx(0.020)
    assert likely_seconds(operation(channels=(96, 64)), rates) == pytest.approx(0.005)


def test_precision_goes_before_shape() -> None:
    quick = rate("convolution", "int8", channels=(128, 128), microseconds=(100.0,))
    assert likely_seconds(operation(precision="int8"), class_rates(NARROW, quick)) == pytest.approx(0.001)


def test_bytes_are_interpolated_between_measured_sizes() -> None:
    """1 GB/s at 1 MB, 0.25 GB/s at 100 MB: half-way in logarithms, 10 MB, is 0.5 GB/s."""
    rates = class_rates(NARROW, SMALL, LARGE)
    for moved, speed in ((10**5, 1e9), (10**6, 1e9), (10**7, 5e8), (10**8, 2.5e8), (10**9, 2.5e8)):
        norm = operation("norm", macs=0, needed_macs=0, reads=(moved // 2,), writes=moved - moved // 2)
        assert likely_seconds(norm, rates) == pytest.approx(moved / speed)


def test_another_machine_scales_by_the_ratio_of_the_peaks() -> None:
    rates = class_rates(NARROW, WIDE, SMALL)
    twice = Machine(gmacs={"fp32": 2 * rates.machine.gmacs["fp32"]}, bandwidth_gb_s=2 * rates.bandwidth_gb_s)
    norm = operation("norm", macs=0, needed_macs=0, reads=(10**6,))
    for one in (operation(), norm):
        assert likely_seconds(one, rates, twice) == pytest.approx(likely_seconds(one, rates) / 2)
        assert likely_seconds(one, rates, rates.machine) == pytest.approx(likely_seconds(one, rates))


def test_the_peak_is_the_best_run_of_the_best_operation() -> None:
    rates = class_rates(rate("convolution", macs=10**8, microseconds=(900.0, 500.0, 1000.0)), rate("norm"))
    assert rates.machine.gmacs == {"fp32": pytest.approx(200.0)}
    assert rates.rates[0].seconds == pytest.approx(9e-4), "the median"


@given(
    macs=st.integers(10**3, 10**12), channels=st.tuples(st.integers(1, 512), st.integers(1, 512)), kernel=st.integers(1, 7),
    voxels=st.integers(1, 10**7), runs=st.lists(st.floats(1.0, 1e6), min_size=2, max_size=4),
)  # fmt: skip
def test_the_likely_value_is_never_below_the_arithmetic_bound(
    macs: int, channels: tuple[int, int], kernel: int, voxels: int, runs: list[float]
) -> None:
    """A peak is the best of all runs, so no median can beat it."""
    rates = class_rates(*(rate("convolution", channels=(2**n, 2**n), microseconds=(run,)) for n, run in enumerate(runs)))
    one = operation(macs=macs, needed_macs=macs, channels=channels, kernel=kernel, voxels=voxels)
    assert bound_seconds(one, rates.machine) <= likely_seconds(one, rates) * (1 + 1e-9)


def test_what_comes_with_the_package_is_read_or_missing() -> None:
    for isa in ("native", "avx2", "avx2-vnni", "avx512", "avx512-vnni"):
        found = shipped_rates(isa)  # type: ignore[arg-type]
        assert found is None or (found.isa == isa and found.label == "measured")


def test_the_record_survives_the_disk_and_refuses_another_label(tmp_path: Path) -> None:
    path, rates = tmp_path / "rates.json", class_rates()
    write_record(rates, path)
    assert read_record(ClassRates, path) == rates
    path.write_text(path.read_text().replace('"measured"', '"predicted"', 1))
    with pytest.raises(SpecError, match="label"):
        read_record(ClassRates, path)
