"""The bounds on INT8: each within its instruction set, runtime and threads, and only at the size they were set for."""

from __future__ import annotations

import pytest
from sample_run import HOST
from sample_sweep import BF16, INT8, row, sweep_of

from edge_latup.bench.sweep_bounds import BOUNDS, check_bounds
from edge_latup.targets.isa import IsaName

REQUIRED: dict[IsaName, float] = {"avx2": 1.8, "avx2-vnni": 3.2, "avx512": 1.5, "avx512-vnni": 3.2}


def test_the_bounds_are_those_that_were_agreed() -> None:
    assert {bound.isa: bound.ratio for bound in BOUNDS if bound.over == "fp32"} == REQUIRED
    assert [(bound.isa, bound.ratio, bound.needs) for bound in BOUNDS if bound.over == "bf16"] == [("native", 1.4, "AMX-INT8")]


@pytest.mark.parametrize(("isa", "ratio"), REQUIRED.items())
@pytest.mark.parametrize(("factor", "status"), [(1.0, "PASS"), (1.2, "PASS"), (0.99, "FAIL")])
def test_int8_over_fp32_of_the_same_set(isa: IsaName, ratio: float, factor: float, status: str) -> None:
    rows = [row("fp32", 1000 * ratio * factor, isa), row("int8", 1000, isa, **INT8), row("fp32", 10**6), row("int8", 1, **INT8)]
    found = {checked.bound.isa: checked for checked in check_bounds(sweep_of(rows)) if checked.bound.over == "fp32"}
    assert found[isa].status == status
    assert found[isa].line.startswith(f"{status}  emulated ")
    assert {checked.status for other, checked in found.items() if other != isa} == {"N/A"}


def test_the_fastest_float_row_counts_and_int8_must_have_run() -> None:
    rows = [
        row("fp32", 4000, "avx2"), row("rewrite", 1500, "avx2"), row("int8", 1000, "avx2", **INT8),
        row("fake", 10, "avx2", **INT8 | {"executed_convolutions": {"f32": 18}}),
    ]  # fmt: skip
    found = check_bounds(sweep_of(rows))[0]
    assert found.status == "FAIL"
    assert found.text == "1.50 (int8 1,000 ms, n 20; rewrite 1,500 ms, n 20; 2 threads)"


def test_other_sizes_threads_and_runtimes_do_not_count() -> None:
    small = {"input_shape": (1, 3, 64, 64, 64)}
    for rows in (
        [row("fp32", 9000, "avx2", **small), row("int8", 1, "avx2", **INT8, **small)],
        [row("fp32", 9000, "avx2", threads=1), row("int8", 1, "avx2", **INT8)],
        [row("fp32", 9000, "avx2", runtime="onnxruntime"), row("int8", 1, "avx2", **INT8)],
    ):
        assert check_bounds(sweep_of(rows))[0].status == "N/A"


def test_amx_is_asked_of_the_host() -> None:
    rows = [row("bf16", 1400, **BF16), row("int8", 1000, **INT8)]
    sweep = sweep_of(rows)
    assert check_bounds(sweep)[-1].status == "PASS", "the made-up host has AMX"
    host = HOST.model_copy(update={"isa": ("AVX2",)})
    without = type(sweep)(folder=sweep.folder, record=sweep.record.model_copy(update={"host": host}), rows=sweep.rows, drift={})
    assert check_bounds(without)[-1].text == "this CPU has no AMX-INT8"


def test_disturbed_rows_are_told() -> None:
    rows = [row("fp32", 2000, "avx2", load_average=4.5), row("int8", 1000, "avx2", **INT8)]
    assert check_bounds(sweep_of(rows))[0].text.endswith(
        "fp32 is disturbed: the machine was busy when timing began (load average 4.5, 2 threads)"
    )
