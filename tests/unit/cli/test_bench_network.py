"""`edge-latup bench-network`: what it refuses, and networks side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sample_run
from command import Command
from support import write_case
from tiny_models import pointwise_artifact, tiny_spec

from edge_latup.bench import network_run
from edge_latup.bench.case.records import CaseRow, CaseRun
from edge_latup.bench.document_block import marks
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateDecision, GateRule
from edge_latup.bench.network_records import ALL_VIEWS, NAME, ONE_VIEW, OTHER_RUN, RUN, NetworkRecord, load_network
from edge_latup.bench.network_run import fastest_accepted
from edge_latup.bench.network_table import BLOCK, form_rows, markdown, network_rows
from edge_latup.bench.store import LoadedRun
from edge_latup.cases.layout import find_cases
from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.records import write_record
from edge_latup.spec import ModelSpec, RegionHead
from edge_latup.targets.host import Host

PLAN = sample_run.Plan(
    rows={"fp32": sample_run.ROWS["openvino-fp32"], "int8": sample_run.ROWS["openvino-int8"], "slow": {"median_ms": 9000.0}},
    drops={"int8": 0.0, "slow": 0.0}, run={"reference": "fp32", "baseline": "fp32"},
)  # fmt: skip


def case_row(name: str, spec: ModelSpec, *seconds: float) -> CaseRow:
    runs = tuple(CaseRun(seconds={"total": total}, peak_rss_bytes=1, label_map_sha256="0" * 64) for total in seconds)
    return CaseRow(
        name=name, engine="edge-latup", policy="centre-crop", artifact=name, artifact_sha256="0" * 64, runtime="openvino",
        runtime_version="1", precision="fp32", storage="float32", executed_float="f32", executed_convolutions={}, spec=spec,
        input_shape=(1, 3, 16, 16, 16), windows=48, windows_run=40, threads=2, runs=runs, load_average=0.1, started="",
        host=sample_run.HOST, versions={},
    )  # fmt: skip


IN_ONNXRUNTIME = sample_run.Plan(
    rows={"fp32": {**sample_run.ROWS["openvino-fp32"], "runtime": "onnxruntime"}, "dynamic-int8": {"runtime": "onnxruntime"}},
    drops={"dynamic-int8": 0.3}, run={"reference": "fp32", "baseline": "fp32"},
)  # fmt: skip


def judged(folder: Path, plan: sample_run.Plan) -> tuple[LoadedRun, tuple[GateDecision, ...]]:
    run = sample_run.sample(folder, plan)
    return run, tuple(judge(record, GateRule(), run.rows[name]) for name, record in run.drift.items())


def write_network(folder: Path, plan: sample_run.Plan = PLAN, other: sample_run.Plan | None = None) -> Path:
    run, decisions = judged(folder / RUN, plan)
    _, other_decisions = (None, ()) if other is None else judged(folder / OTHER_RUN, other)
    spec = tiny_spec(network=None)
    cases = (
        case_row(f"fp32, {ONE_VIEW}", spec, 99, 8, 9), case_row(f"int8, {ONE_VIEW}", spec, 99, 2.5, 2),
        case_row(f"int8, {ALL_VIEWS}", spec, 99, 6, 7),
    )  # fmt: skip
    record = NetworkRecord(
        source="checkpoint", spec=spec, parameters=1234, macs=5_000_000_000, input_shape=(1, 3, 16, 16, 16), decisions=decisions,
        other_decisions=other_decisions, chosen=fastest_accepted(run, decisions), cases=cases,
    )  # fmt: skip
    write_record(record, folder / NAME)
    return folder


def test_a_network_is_shown_with_its_fastest_accepted_form(tmp_path: Path) -> None:
    loaded = load_network(write_network(tmp_path / "one"))
    (row,) = network_rows([loaded])
    assert row[1:4] == ["1,234", "5.0", "1x3x16x16x16"]
    assert row[6:] == ["int8", "8.5", "2.2", "6.5", "40 of 48"]
    forms = {cells[1]: cells for cells in form_rows([loaded])}
    assert forms["fp32"][3:6:2] == ["1.00", "1.00"]
    assert forms["int8"][3] == f"{12.41 / 3.25:.2f}"
    assert 9.5 < float(forms["int8"][5]) < 10.5
    assert forms["fp32"][-1] == "reference"


def test_a_form_that_loses_too_much_is_not_chosen_however_fast_it_is(tmp_path: Path) -> None:
    worse = sample_run.Plan(rows=PLAN.rows, drops={"int8": 0.05, "slow": 0.0}, run=PLAN.run)
    run, decisions = judged(tmp_path, worse)
    assert fastest_accepted(run, decisions) == "fp32"


def test_forms_in_onnxruntime_are_held_against_its_own_fp32(tmp_path: Path) -> None:
    loaded = load_network(write_network(tmp_path / "one", other=IN_ONNXRUNTIME))
    forms = {cells[1]: cells for cells in form_rows([loaded])}
    assert loaded.other is not None
    rows = loaded.other.rows
    assert forms["dynamic-int8 (onnxruntime)"][5] == f"{rows['fp32'].p50_ms / rows['dynamic-int8'].p50_ms:.2f}"
    assert forms["fp32 (onnxruntime)"][5] == "1.00"
    text = markdown([loaded])
    assert "dynamic-int8: " in text.partition("Refused:")[2]
    assert "ONNX Runtime" in text
    shutil.rmtree(tmp_path / "one" / OTHER_RUN)
    with pytest.raises(EdgeLatupError, match=OTHER_RUN):
        load_network(tmp_path / "one")


def test_only_regions_that_a_network_can_find_count() -> None:
    spec = tiny_spec(network=None)
    assert spec.found_regions == ("WT", "TC", "ET")
    assert spec.model_copy(update={"regions": RegionHead(order=("WT",))}).found_regions == ("WT",)
    assert spec.model_copy(update={"labels": (0, 2)}).found_regions == ("WT",)


def test_the_document_gets_the_tables(cli: Command, tmp_path: Path) -> None:
    folder, (begin, end) = write_network(tmp_path / "one"), marks(BLOCK)
    document = tmp_path / "networks.md"
    document.write_text(f"before\n{begin}\n{end}\nafter\n")
    done = cli("bench-network", "--table", folder, "--docs", document)
    assert done.code == 0, done.err
    assert sample_run.HOST.cpu in document.read_text()
    assert "| 1,234 |" in document.read_text()


def test_figures_of_two_machines_share_no_table(tmp_path: Path) -> None:
    other = Host(**{**sample_run.HOST.model_dump(), "cpu": "Another"})
    folders = [
        write_network(tmp_path / "one"),
        write_network(tmp_path / "two", sample_run.Plan(**{**vars(PLAN), "run": {**PLAN.run, "host": other}})),
    ]
    with pytest.raises(InputError, match="different machines"):
        markdown([load_network(folder) for folder in folders])


def test_figures_of_two_versions_share_no_table(tmp_path: Path) -> None:
    newer = {**PLAN.run, "versions": {"openvino": "2031.1"}}
    folders = [write_network(tmp_path / "one"), write_network(tmp_path / "two", sample_run.Plan(**{**vars(PLAN), "run": newer}))]
    with pytest.raises(InputError, match=r"were measured with openvino .* and .*") as caught:
        markdown([load_network(folder) for folder in folders])
    assert "2031.1" in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("SOURCE",), "are needed"),
        (("SOURCE", "OTHER", "--calibration", "a", "--cases", "b", "--out", "c"), "one source"),
        (("SOURCE", "--docs", "d"), "--docs is for --table"),
        (("--table", "SOURCE", "--out", "c"), "--table reads finished folders"),
        (("--table", "SOURCE"), "holds no network.json"),
    ],
)
def test_wrong_arguments_are_told(cli: Command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = cli("bench-network", *arguments)
    assert done.code == 2
    assert message in done.err


def test_the_case_is_segmented_with_the_reference_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    artifact = pointwise_artifact(tmp_path / "mine")
    monkeypatch.setattr(network_run, "_row", lambda artifact, views, case, out: (artifact.manifest.name, views))
    (case,) = find_cases(write_case(tmp_path / "case"))
    rows = list(network_run._cases({"mine": artifact}, "mine", "mine", case, tmp_path, lambda text: None))
    assert rows == [(artifact.manifest.name, ONE_VIEW)]
