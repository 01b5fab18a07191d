"""A candidate whose declared precision did not run is warned of, kept out of the verdict and refused by the gate, whatever its Dice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import Command
from sample_run import DROPS, Plan, sample, timing_row, write_run
from unfused import unfused_int8

from edge_latup.artifact import Artifact
from edge_latup.bench.cautions import cautions
from edge_latup.bench.executed import not_executed
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateRule
from edge_latup.bench.run import Entry, run_bench
from edge_latup.bench.run import Plan as BenchPlan
from edge_latup.bench.store import LoadedRun, load_run
from edge_latup.bench.summary import executed
from edge_latup.bench.table import as_data
from edge_latup.bench.verdict import verdict
from edge_latup.cases.layout import find_cases
from edge_latup.manifest import AuditSummary, Mismatch

INT8 = "openvino-int8"
CASES: dict[str, Any] = {f"real-{number}": "real" for number in range(24)}


def audit(executed_int8: float, declared_int8: float = 0.97) -> AuditSummary:
    """Some of the arithmetic that is declared INT8 ran in FP32."""
    missing = declared_int8 - executed_int8
    wrong = (Mismatch(layer="decoder1.conv1", declared="int8", executed="fp32", macs=missing),) if missing else ()
    shares = {"int8": executed_int8, "fp32": 1 - executed_int8}
    return AuditSummary(
        runtime="openvino", declared_int8=declared_int8, executed_int8=executed_int8, executed=shares, mismatched=missing, mismatches=wrong
    )


def run_with(folder: Path, **fields: Any) -> LoadedRun:
    plan = Plan(origins=CASES, drops=DROPS).changed(INT8, **fields)
    return sample(folder, Plan(rows=plan.rows, drops=DROPS, origins=CASES))


def test_what_ran_as_declared_is_accepted(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", audit=audit(0.97))
    assert not_executed(run.rows[INT8]) is None
    assert (cautions(run), verdict(run).use) == ([], INT8)
    assert judge(run.drift[INT8], GateRule(resamples=1000), run.rows[INT8]).accepted


def test_a_share_within_the_tolerance_is_accepted(tmp_path: Path) -> None:
    assert verdict(run_with(tmp_path / "run", audit=audit(0.955))).use == INT8


def test_what_did_not_run_is_warned_of_refused_and_named(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", audit=audit(0.6))
    reason = "declared INT8 97.0 % of MACs, executed INT8 60.0 %; 1 layer declared int8 ran in fp32: decoder1.conv1"
    assert cautions(run) == [f"{INT8}: {reason}"]
    found = verdict(run)
    assert found.use == "openvino-bf16"
    assert found.refused[INT8] == reason
    decision = judge(run.drift[INT8], GateRule(resamples=1000), run.rows[INT8])
    assert not decision.accepted
    assert decision.reasons == (f"it did not run what it declares: {reason}",)
    assert judge(run.drift[INT8], GateRule(resamples=1000)).accepted, "by its Dice alone"


def test_drift_is_told_beside_it(tmp_path: Path) -> None:
    plan = Plan(drops=DROPS | {INT8: 0.02}).changed(INT8, audit=audit(0.6))
    reason = verdict(sample(tmp_path / "run", plan)).refused[INT8]
    assert reason.startswith("declared INT8 97.0 %")
    assert "; its mean Dice drop of" in reason


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"precision": "bf16", "executed_float": "f32", "audit": audit(0, 0)}, "declared BF16, executed f32"),
        ({"precision": "int8", "executed_convolutions": {"f32": 18}}, "declared INT8, executed none (18 convolutions, none in i8)"),
        ({"precision": "int8", "executed_convolutions": {"i8": 1, "f32": 17}}, None),
        ({"precision": "int8", "executed_convolutions": {"f32": 18}, "audit": audit(0.97)}, None),
        ({}, None),
    ],
    ids=["float", "record without audit, none", "record without audit, some", "the audit decides", "as declared"],
)
def test_rows_of_every_kind(fields: dict[str, Any], text: str | None) -> None:
    assert not_executed(timing_row("x", **fields)) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"audit": audit(0.97)}, "f32 + 97 % i8"),
        ({"audit": audit(0.6)}, "f32 + 60 of 97 % i8"),
        ({"audit": audit(0, 0)}, "f32"),
        ({"audit": audit(0.97), "executed_float": "bf16"}, "bf16 + 97 % i8"),
    ],
)
def test_the_executed_column_is_a_share_of_macs(fields: dict[str, Any], text: str) -> None:
    assert executed(timing_row("x", **fields)) == text


def test_the_share_is_in_the_data_unrounded(tmp_path: Path) -> None:
    rows = {row["artifact"]: row for row in as_data(run_with(tmp_path / "run", audit=audit(0.61234)))["artifacts"]}
    assert rows[INT8]["int8_percent"] == pytest.approx(61.234)
    assert rows["openvino-bf16"]["int8_percent"] is None, "a record made before it was kept"


def test_the_gate_ends_with_code_4(cli: Command, tmp_path: Path) -> None:
    plan = Plan(origins=CASES, drops=DROPS).changed(INT8, audit=audit(0.6))
    folder = write_run(tmp_path / "run", Plan(rows=plan.rows, drops=DROPS, origins=CASES))
    done = cli("gate", folder, "--candidate", INT8)
    assert done.code == 4
    assert f"{INT8}: REFUSED\n  - it did not run what it declares: declared INT8 97.0 % of MACs" in done.out
    assert f"error: the gate refused {INT8}: it did not run what it declares" in done.err
    assert cli("gate", folder, "--candidate", "openvino-bf16").code == 0


def test_qdq_that_does_not_fuse_is_caught_from_file_to_gate(cli: Command, tiny_fp32: Artifact, tiny_cases: Path, tmp_path: Path) -> None:
    """A real file, timed and segmented in worker processes: nothing in this test is made up."""
    broken = unfused_int8(tiny_fp32, tmp_path / "unfused")
    entries = (Entry(artifact=tiny_fp32, runtime="onnxruntime"), Entry(artifact=broken, runtime="onnxruntime"))
    plan = BenchPlan(entries=entries, cases=find_cases(tiny_cases)[:1], reference="fp32", baseline="fp32", threads=2, min_runs=2)
    run = load_run(run_bench(plan, tmp_path / "run", lambda line: None).folder)
    told = run.rows["unfused"].audit
    assert told is not None
    assert told.declared_int8 > 0.999
    assert told.executed_int8 == 0
    assert told.runtime == "onnxruntime"
    assert [text for text in cautions(run) if text.startswith("unfused: declared INT8 100.0 % of MACs, executed INT8 0.0 %; 18 layers")]
    assert verdict(run).use == "fp32"
    assert verdict(run).refused["unfused"].startswith("declared INT8 100.0 %")
    done = cli("gate", run.folder)
    assert done.code == 4
    assert "it did not run what it declares: declared INT8 100.0 % of MACs, executed INT8 0.0 %" in done.out
    assert run.rows["fp32"].audit is not None
    assert run.rows["fp32"].audit.executed == {"fp32": 1.0}
