"""The verdict of a sweep: INT8 that pays, is too slow, drifts too far, or did not run as INT8; nothing across instruction sets."""

from __future__ import annotations

import csv
import io
import json

import pytest
from sample_sweep import BF16, INT8, refused, row, sweep_of

from edge_latup.bench.sweep_table import as_data, sweep_tables, to_csv, to_json, to_markdown, unmeasured
from edge_latup.bench.sweep_verdict import SweepVerdict, sweep_verdicts
from edge_latup.bench.verdict import GAIN

FP32, FAST = row("fp32", 3400), row("bf16", 1600, **BF16)
GOOD = {"bf16": 0.0002, "int8": 0.0005}
BAD = {"bf16": 0.0002, "int8": 0.03}


def only(verdicts: list[SweepVerdict]) -> SweepVerdict:
    assert len(verdicts) == 1
    return verdicts[0]


def test_int8_that_is_faster_and_accepted_is_shipped() -> None:
    found = only(sweep_verdicts(sweep_of([FP32, FAST, row("int8", 800, **INT8)], GOOD)))
    assert found.headline == "Ship int8 on openvino with 2 threads on this machine (Test Processor 9000)."
    assert found.int8 == (
        "INT8 pays here: int8 on openvino is 2.00 times as fast as bf16, the best float one: 800.0 ms (median of 20 runs; "
        "f32 + 18/18 conv i8) against 1,600.0 ms (median of 20 runs; bf16), 2 threads; the gate accepts it."
    )
    assert "That is 2.00 times as fast as bf16, the best float one on openvino." in found.reasons
    assert any("4.25 times as fast as fp32" in reason for reason in found.reasons)
    assert not found.refused


@pytest.mark.parametrize("factor", [0.5, 1.0, GAIN - 0.001])
def test_int8_without_gain_is_not_to_be_used(factor: float) -> None:
    found = only(sweep_verdicts(sweep_of([FP32, FAST, row("int8", 1600 / factor, **INT8)], GOOD)))
    assert found.headline.startswith("Ship bf16 ")
    assert found.int8.startswith(f"Do not use INT8 here: int8 on openvino is {factor:.2f} times as fast as bf16")
    assert f"less than {GAIN} counts as no gain" in found.int8
    assert "no gain" in found.refused["int8 on openvino"]


def test_int8_at_the_threshold_counts_as_gain() -> None:
    found = only(sweep_verdicts(sweep_of([FP32, FAST, row("int8", 1600 / (GAIN + 0.001), **INT8)], GOOD)))
    assert found.int8.startswith("INT8 pays here")


def test_int8_that_the_gate_refuses_is_not_to_be_used_however_fast() -> None:
    found = only(sweep_verdicts(sweep_of([FP32, FAST, row("int8", 400, **INT8)], BAD)))
    assert found.headline.startswith("Ship bf16 ")
    assert found.int8.startswith("Do not use INT8 here: int8 on openvino is 4.00 times as fast as bf16")
    assert found.int8.endswith("but it is refused.")
    assert found.refused["int8 on openvino"].startswith("the gate refuses it: on phantoms (synthetic), ")
    assert "0.005" in found.refused["int8 on openvino"], "the margin"


def test_of_two_int8_forms_the_accepted_one_decides() -> None:
    rows = [FP32, FAST, row("int8", 400, **INT8), row("int8-mixed", 900, **INT8)]
    found = only(sweep_verdicts(sweep_of(rows, BAD | {"int8-mixed": 0.0004})))
    assert found.headline.startswith("Ship int8-mixed ")
    assert found.int8.startswith("INT8 pays here: int8-mixed on openvino is 1.78 times as fast as bf16")
    assert list(found.refused) == ["int8 on openvino"]


def test_int8_that_did_not_run_in_int8_is_no_int8() -> None:
    fake = row("int8", 400, **INT8 | {"executed_convolutions": {"f32": 18}})
    found = only(sweep_verdicts(sweep_of([FP32, FAST, fake], GOOD)))
    assert found.headline.startswith("Ship bf16 ")
    assert found.refused["int8 on openvino"] == (
        "it did not run what it declares: declared INT8, executed none (18 convolutions, none in i8)"
    )
    assert found.int8.startswith("Do not use INT8 here")


def test_without_drift_nothing_is_shipped() -> None:
    found = only(sweep_verdicts(sweep_of([FP32, FAST, row("int8", 800, **INT8)])))
    assert found.use is None
    assert found.headline.startswith("No recommendation on this machine (Test Processor 9000): what compression costs in Dice is unknown")
    assert found.int8.startswith("Do not ship INT8 yet: int8 on openvino is 2.00 times as fast as bf16")
    slow = only(sweep_verdicts(sweep_of([FP32, FAST, row("int8", 2000, **INT8)])))
    assert slow.int8.startswith("Do not use INT8 here: int8 on openvino is 0.80 times as fast as bf16"), "which needs no drift"


def test_drift_of_another_runtime_does_not_count() -> None:
    rows = [FP32, FAST, row("int8", 800, **INT8), row("fp32", 9000, runtime="onnxruntime"), row("bf16", 100, runtime="onnxruntime", **BF16)]
    found = only(sweep_verdicts(sweep_of(rows, GOOD)))
    assert found.use is not None
    assert (found.use.artifact, found.use.runtime) == ("int8", "openvino"), "not the faster one whose drift is not known"
    assert found.refused == {"bf16 on onnxruntime": "its drift on labelled cases was not measured as it runs here"}


def test_ratios_stay_within_runtime_threads_and_instruction_set() -> None:
    """A slower float row elsewhere would make any INT8 look good."""
    rows = [
        FP32, FAST, row("int8", 1580, **INT8), row("fp32", 90_000, runtime="onnxruntime"), row("fp32", 60_000, threads=1),
        row("fp32", 50_000, "avx2"),
    ]  # fmt: skip
    native, emulated = sweep_verdicts(sweep_of(rows, GOOD))
    assert native.int8.startswith("Do not use INT8 here: int8 on openvino is 1.01 times as fast as bf16")
    assert emulated.int8 == "INT8 was not measured here."
    cells = {(one["isa"], one["runtime"], one["threads"], one["artifact"]): one["over_float"] for one in _rows(sweep_of(rows, GOOD))}
    assert cells["native", "openvino", 2, "int8"] == pytest.approx(1600 / 1580)
    assert cells["emulated AVX2", "openvino", 2, "fp32"] == cells["native", "onnxruntime", 2, "fp32"] == 1


def _rows(sweep: object) -> list[dict[str, object]]:
    return [one for rows in as_data(sweep)["isas"].values() for one in rows]  # type: ignore[arg-type]


def test_an_emulated_verdict_says_what_it_is() -> None:
    rows = [FP32, row("fp32", 8000, "avx2"), row("int8", 4000, "avx2", **INT8)]
    emulated = sweep_verdicts(sweep_of(rows, {"int8": 0.0001}))[1]
    assert emulated.headline == "Ship int8 on openvino with 2 threads on a CPU with AVX2 (emulated)."
    assert emulated.caveats[0].startswith("Emulated: kernels of AVX2 ran on Test Processor 9000, with its clock and memory.")
    assert "round otherwise" in emulated.caveats[1]
    assert not any("Emulated" in caveat for caveat in sweep_verdicts(sweep_of(rows, {"int8": 0.0001}))[0].caveats)


def test_int8_that_was_refused_says_why() -> None:
    one = refused("int8", "INT8 kernels give wrong results on one thread", threads=1)
    found = sweep_verdicts(sweep_of([row("fp32", 6000, threads=1), row("int8", 9, "avx2", **INT8)], {"int8": 0.0}, others=[one]))[0]
    assert found.int8 == "INT8 was not measured here: INT8 kernels give wrong results on one thread."
    assert found.headline.startswith("Ship fp32 on openvino with 1 thread ")


def test_a_busy_machine_and_few_runs_are_told() -> None:
    found = only(sweep_verdicts(sweep_of([row("fp32", 3000, load_average=5.0, samples_ms=(3000.0, 3100.0, 2900.0))])))
    assert "Every median is of at least 3 runs; a ratio below 1.05 is taken for no difference." in found.caveats
    assert "The machine was busy with something else, so these are disturbed: fp32 on openvino." in found.caveats


def test_emulated_rows_have_a_table_of_their_own() -> None:
    rows = [FP32, FAST, row("fp32", 8000, "avx2"), row("bf16", 8100, "avx512", **BF16)]
    sweep = sweep_of(rows, {"bf16": 0.0002})
    tables = sweep_tables(sweep)
    assert [table.title.partition(" (")[0] for table in tables] == ["Native", "Emulated AVX2", "Emulated AVX-512"]
    assert [len(table.rows) for table in tables] == [2, 1, 1]
    markdown = to_markdown(sweep)
    assert markdown.count("**Emulated") == 2
    assert "## emulated AVX2" in markdown


def test_csv_and_json_hold_every_measured_row_with_its_set() -> None:
    rows = [FP32, FAST, row("fp32", 8000, "avx2")]
    sweep = sweep_of(rows, {"bf16": 0.0002}, others=[refused("bf16", "no BF16 here", "avx2")])
    lines = list(csv.DictReader(io.StringIO(to_csv(sweep))))
    assert [(line["artifact"], line["isa"], float(line["p50_ms"])) for line in lines] == [
        ("fp32", "native", 3400), ("bf16", "native", 1600), ("fp32", "emulated AVX2", 8000),
    ]  # fmt: skip
    data = json.loads(to_json(sweep))
    assert [verdict["isa"] for verdict in data["verdicts"]] == ["native", "avx2"]
    assert data["verdicts"][0]["use"] == {"artifact": "bf16", "runtime": "openvino", "threads": 2}
    assert data["unmeasured"] == ["bf16 on openvino (emulated AVX2; threads 2) refused: no BF16 here"]


def test_reasons_are_told_once_for_all_cells_they_hold_for() -> None:
    others = [refused("fp32", "no", isa, "onnxruntime", threads) for isa in ("avx2", "avx512") for threads in (1, 2)]
    assert unmeasured(sweep_of([FP32], others=others)) == [
        "fp32 on onnxruntime (emulated AVX2, emulated AVX-512; threads 1, 2) refused: no"
    ]
