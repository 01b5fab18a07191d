"""A network of the whole tumour alone is compared, judged and reported by that region alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_networks import write_checkpoint_of

from edge_latup.bench.columns import MISSING
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateRule
from edge_latup.bench.report import render_report
from edge_latup.bench.run import Entry, Plan, run_bench
from edge_latup.bench.store import LoadedRun, load_run
from edge_latup.bench.summary import summarise
from edge_latup.bench.table import tables
from edge_latup.cases.layout import find_cases
from edge_latup.cases.phantom import make_phantom
from edge_latup.export.torch_onnx import export_onnx
from edge_latup.quantize.methods import quantize
from edge_latup.segmentation import parity


@pytest.fixture(scope="module")
def run(tiny_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    folder = tmp_path_factory.mktemp("whole-tumour")
    with pytest.MonkeyPatch.context() as patch:
        # Parity is shown on a phantom of the BraTS size, which takes longer to draw than all that is tested here.
        shape = (40, 36, 32)
        patch.setattr(parity, "BRATS_SHAPE", shape)
        patch.setattr(parity, "make_phantom", lambda seed, index: make_phantom(seed, index, shape=shape))
        parity._parity_input.cache_clear()
        fp32 = export_onnx(write_checkpoint_of("res-unet gate", folder / "checkpoint"), folder / "fp32")
        small = quantize(fp32, "dynamic-range", folder / "dynamic-range", runtime="openvino")
    parity._parity_input.cache_clear()
    entries = tuple(Entry(artifact=artifact, runtime="openvino") for artifact in (fp32, small))
    plan = Plan(
        entries=entries, cases=tuple(find_cases(tiny_cases)), reference="fp32", baseline="fp32", threads=2, min_runs=2, min_seconds=0.1,
        command="edge-latup bench",
    )  # fmt: skip
    return load_run(run_bench(plan, folder / "run", lambda line: None).folder)


def test_its_cases_hold_that_region_alone(run: LoadedRun) -> None:
    (drift,) = run.drift.values()
    assert drift.regions == ("WT",)
    assert all(set(case.regions) == {"WT"} for case in drift.cases)


def test_means_are_of_that_region(run: LoadedRun) -> None:
    (drift,) = run.drift.values()
    summary = summarise(drift, "phantom")
    assert summary is not None
    assert summary.agreement == pytest.approx(sum(case.regions["WT"].agreement for case in drift.cases) / len(drift.cases))
    assert set(summary.dice_reference) == {"WT"}


def test_the_gate_judges_it_and_says_nothing_of_the_others(run: LoadedRun) -> None:
    (drift,) = run.drift.values()
    decision = judge(drift, GateRule())
    assert [figures.region for figures in decision.origins[0].regions] == ["WT"]
    assert not [text for text in (*decision.warnings, *decision.reasons) if "TC" in text or "ET" in text]


def test_table_and_report_are_made_of_it(run: LoadedRun, tmp_path: Path) -> None:
    drift = next(table for table in tables(run) if table.title.startswith("Drift"))
    (cells,) = drift.rows
    assert [cells[column] for column, header in enumerate(drift.columns) if "Dice drop" in header][1:] == [MISSING, MISSING]
    render_report(run.folder, tmp_path / "report.html")
    assert "dynamic-range" in (tmp_path / "report.html").read_text()
