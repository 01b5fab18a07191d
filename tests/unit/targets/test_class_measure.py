"""Class rates are measured on small operations; their records say what was executed, and in which precision."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.targets import class_measure
from edge_latup.targets.class_graphs import IN_A_BLOCK, block_probe, convolution_probe
from edge_latup.targets.class_measure import copy_bandwidth, last_level_bytes, measure_class_rates
from edge_latup.targets.isa import LEVELS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_measure, "CONVOLUTIONS", ((8, 16, 3, 8), (16, 8, 1, 8)))
    monkeypatch.setattr(class_measure, "TRANSPOSED", ((16, 8, 2, 4),))
    monkeypatch.setattr(class_measure, "BLOCKS", ((16, 8),))
    monkeypatch.setattr(class_measure, "COPIED_BYTES", 1 << 20)


@pytest.mark.usefixtures("small")
def test_every_class_is_measured_in_the_precision_it_was_executed_in() -> None:
    rates = class_measure._measure_here("native", threads=2, runs=3)
    assert (rates.label, rates.isa, rates.emulated, rates.threads) == ("measured", "native", False, 2)
    fp32 = {rate.kind: rate for rate in rates.rates if rate.precision == "fp32"}
    assert set(fp32) >= {"convolution", "transposed convolution", "norm", "pooling", "resampling", "reduction", "elementwise", "softmax"}
    assert any(rate.precision == "int8" and rate.macs for rate in rates.rates)
    first = next(rate for rate in rates.rates if rate.kind == "convolution" and rate.precision == "fp32")
    assert (first.macs, first.voxels, first.channels, first.kernel) == (8 * 16 * 27 * 512, 512, (8, 16), 3)
    assert all(len(rate.microseconds) == 3 and rate.seconds > 0 and rate.implementation for rate in rates.rates)
    assert rates.machine.gmacs["fp32"] > 0
    assert rates.bandwidth_gb_s > 0


@pytest.mark.usefixtures("small")
def test_bytes_are_those_of_what_was_read_and_left() -> None:
    rates = class_measure._measure_here("native", threads=2, runs=1)
    norm = next(rate for rate in rates.rates if rate.kind == "norm" and rate.precision == "fp32")
    assert 0 <= norm.bytes_moved - 2 * 4 * 16 * 8**3 < 64, "and the axes"
    pooling = next(rate for rate in rates.rates if rate.kind == "pooling" and rate.precision == "fp32")
    assert 0 <= pooling.bytes_moved - 4 * 16 * (8**3 + 4**3) < 64


@pytest.mark.parametrize("int8", [False, True])
def test_probes_have_the_shapes_they_say(int8: bool) -> None:
    probe = convolution_probe((8, 4, 2, 6), int8=int8, transposed=True)
    assert list(probe.model.output(0).get_shape()) == [1, 4, 12, 12, 12]
    assert list(convolution_probe((8, 4, 3, 6), int8=int8, transposed=True).model.output(0).get_shape()) == [1, 4, 12, 12, 12]
    assert list(convolution_probe((8, 4, 2, 6), int8=int8).model.output(0).get_shape()) == [1, 4, 6, 6, 6]
    block = block_probe(8, 4, int8=int8)
    names = {node.get_friendly_name() for node in block.model.get_ordered_ops()}
    assert {watched.name for watched in block.watched} == set(IN_A_BLOCK) <= names


def test_an_instruction_set_the_host_lacks_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_measure, "cpu_flags", frozenset)
    with pytest.raises(InputError, match="AVX2 cannot be emulated: this CPU lacks avx2, fma"):
        measure_class_rates("avx2")


def test_a_process_that_dies_is_an_error_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_measure, "START", "import sys; sys.stderr.write('first\\nout of luck\\n'); sys.exit(3)")
    with pytest.raises(EdgeLatupError, match="under native ended with code 3: out of luck"):
        measure_class_rates("native")


def test_the_last_level_cache_is_the_largest(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "1024K", "32M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert last_level_bytes(tmp_path) == 32 << 20
    assert last_level_bytes(tmp_path / "nowhere") == 0


def test_a_copy_has_a_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_measure, "COPIED_BYTES", 1 << 20)
    assert math.isfinite(copy_bandwidth(2, runs=2))


@pytest.mark.slow
@pytest.mark.parametrize("isa", LEVELS)
def test_emulated_sets_run_no_kernel_above_themselves(isa: str) -> None:
    from edge_latup.targets.host import cpu_flags
    from edge_latup.targets.isa import refusal

    if reason := refusal(isa, "openvino", cpu_flags()):  # type: ignore[arg-type]
        pytest.skip(reason)
    rates = measure_class_rates(isa, runs=1)  # type: ignore[arg-type]  # check_dispatch is inside
    assert rates.emulated
    assert rates.machine.gmacs["fp32"] > 0
