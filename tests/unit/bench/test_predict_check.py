"""The check of predictions: what it measures, what it says of failures, and the block of a document it rewrites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sample_run import HOST, timing_row
from sample_sweep import row as timed
from target_profiles import class_rates, rate

from edge_latup.bench import predict_check
from edge_latup.bench.document_block import marks
from edge_latup.bench.predict_check import CheckPlan, profile_of_rates, run_check
from edge_latup.bench.predict_check_records import CheckRecord, CheckRow
from edge_latup.bench.predict_check_table import BLOCK, markdown
from edge_latup.bench.published_cases import check_published
from edge_latup.bench.sweep_records import CellKey, SweepRow
from edge_latup.errors import InputError, SpecError
from edge_latup.records import read_record, write_record
from edge_latup.targets.host import describe_host

if TYPE_CHECKING:
    from edge_latup.artifact import Artifact


def check_row(likely: float = 100.0, measured: float = 100.0, bound: float = 50.0, **changes: Any) -> CheckRow:
    fields: dict[str, Any] = {
        "side": 64, "precision": "fp32", "isa": "avx2", "emulated": True, "predicted_bound_ms": bound, "predicted_likely_ms": likely,
        "measured_ms": measured, "measured_min_ms": measured - 1, "runs": 5, "predicted_peak_bytes": 10**9,
        "measured_peak_bytes": 8 * 10**8, "load_average": 0.1,
    }  # fmt: skip
    return CheckRow.model_validate(fields | changes)


def record(*rows: CheckRow, **changes: Any) -> CheckRecord:
    fields: dict[str, Any] = {
        "command": "predict --check out", "started": "2030-01-02T03:04:05+00:00", "host": HOST, "versions": {"openvino": "1.2.3"},
        "threads": 2, "rows": rows, "published": tuple(check_published()),
    }  # fmt: skip
    return CheckRecord.model_validate(fields | changes)


@pytest.mark.parametrize(("likely", "within"), [(65.1, True), (64.9, False), (134.9, True), (135.1, False), (100.0, True)])
def test_within_is_35_percent_either_way(likely: float, within: bool) -> None:
    assert check_row(likely).within is within


def test_the_bound_is_held_against_the_fastest_run() -> None:
    assert check_row(bound=99.0).bound_holds
    assert not check_row(bound=99.5).bound_holds


def test_four_of_five_pass_and_one_broken_bound_fails() -> None:
    good, bad = check_row(), check_row(200.0)
    assert record(good, good, good, good, bad).passed
    assert not record(good, good, good, bad).passed
    assert not record(good, good, good, good, check_row(bound=120.0)).passed
    assert record(good, bad).mean_error == pytest.approx(0.5)


def test_the_table_says_what_failed() -> None:
    text = markdown(
        record(check_row(), check_row(200.0, bound=120.0, isa="native", emulated=False, precision="int8"), missing=("96: why",))
    )
    assert "| 64^3 | fp32 | emulated AVX2 | 50 | 100 | 100 | 1.00 | yes | yes | 1.25 |" in text
    assert "| 64^3 | int8 | native | 120 | 200 | 100 | 2.00 | no | no | 1.25 |" in text
    assert "Within 35 %: 1 of 2 configurations" in text
    assert "above the measurement in 64^3 int8, native: it does NOT hold." in text
    assert "- 96: why" in text
    for case in check_published():
        assert f"| {case.name} |" in text
        assert case.source in text


def test_the_document_of_the_project_has_the_marks() -> None:
    text = (Path(__file__).parents[3] / "docs" / "prediction.md").read_text(encoding="utf-8")
    begin, end = marks(BLOCK)
    assert text.count(begin) == text.count(end) == 1


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch, tiny_fp32: Artifact) -> list[str]:
    """The slow steps replaced: class rates, artifacts and timings are made up; returns what was asked to be measured."""
    asked: list[str] = []
    here = describe_host()

    def rates(isa: Any, threads: int = 0) -> Any:
        asked.append(f"rates {isa}")
        return class_rates(rate("convolution"), rate("norm"), isa=isa, emulated=isa != "native", host=here, threads=threads)

    def measure(cell: Any, plan: Any, batch: Path, scratch: Path) -> SweepRow:
        asked.append(cell.key.text)
        timing = timed(cell.key.artifact, 100.0, cell.key.isa)
        return SweepRow(cell=cell.key, artifact_sha256=cell.entry.artifact.digest, status="measured", timing=timing)

    monkeypatch.setattr(predict_check, "measure_class_rates", rates)
    monkeypatch.setattr(predict_check, "_artifacts", lambda side, out, progress: {"fp32": tiny_fp32})
    monkeypatch.setattr(predict_check, "refusal", lambda isa, runtime, flags: "this CPU lacks it" if isa == "avx512" else None)
    monkeypatch.setattr("edge_latup.bench.sweep._measure", measure)
    return asked


def test_the_check_measures_predicts_and_continues(stubbed: list[str], tmp_path: Path) -> None:
    plan = CheckPlan(sides=(16,), isas=("native", "avx2", "avx512"), threads=2)
    found = run_check(plan, tmp_path / "out", lambda _: None)
    assert stubbed == ["rates native", "rates avx2", "fp32@openvino-2-native", "fp32@openvino-2-avx2"]
    assert [(one.side, one.isa, one.emulated, one.measured_ms) for one in found.rows] == [
        (16, "native", False, 100.0),
        (16, "avx2", True, 100.0),
    ]
    assert found.missing == ("emulated AVX-512: this CPU lacks it",)
    assert found.rows[0].predicted_bound_ms <= found.rows[0].predicted_likely_ms
    assert read_record(CheckRecord, tmp_path / "out" / "check.json") == found
    stubbed.clear()
    again = run_check(plan, tmp_path / "out", lambda _: None)
    assert stubbed == [], "everything was kept"
    assert again.rows == found.rows


def test_rates_of_another_machine_are_not_used(stubbed: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "rates").mkdir(parents=True)
    write_record(class_rates(isa="native"), out / "rates" / "native.json")
    with pytest.raises(InputError, match="was measured on Made-up CPU"):
        run_check(CheckPlan(sides=(16,), isas=("native",), threads=2), out, lambda _: None)
    with pytest.raises(InputError, match="no instruction set is left"):
        run_check(CheckPlan(sides=(16,), isas=("avx512",)), out, lambda _: None)


def test_the_measured_host_is_a_valid_target() -> None:
    profile = profile_of_rates(class_rates())
    assert (profile.isa, profile.gmacs["fp32"].kind, profile.gmacs["fp32"].value) == ("avx2", "measured", pytest.approx(100.0))


def test_the_check_is_no_measurement(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    write_record(record(check_row()), path)
    with pytest.raises(SpecError):
        read_record(SweepRow, path)
    cell = CellKey(artifact="fp32", runtime="openvino", threads=2)
    assert SweepRow(cell=cell, artifact_sha256="0" * 64, status="measured", timing=timing_row("fp32")).timing is not None
