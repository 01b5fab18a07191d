"""Tables say what the records say, in every form, and warn of what spoils a figure."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from sample_run import HOST, PSEUDO, REAL, REFERENCE, ROWS, Plan, region_drift, sample, write_run

from edge_latup.bench.cautions import cautions
from edge_latup.bench.columns import DRIFT, TIMING, shown
from edge_latup.bench.records import CaseDrift, DriftRecord
from edge_latup.bench.store import LoadedRun, RunStore, load_run
from edge_latup.bench.summary import executed, largest_mean_drops, summarise
from edge_latup.bench.table import as_data, tables, to_csv, to_json, to_markdown
from edge_latup.cli.output import Mode, Output


@pytest.fixture
def run(tmp_path: Path) -> LoadedRun:
    return sample(tmp_path / "run")


def _record(*cases: CaseDrift) -> DriftRecord:
    return DriftRecord(
        artifact="a", artifact_sha256="0" * 64, runtime="openvino", executed_float="f32", reference="b", reference_sha256="1" * 64,
        reference_runtime="pytorch", cases=cases,
    )  # fmt: skip


def test_the_largest_mean_drop_is_of_the_regions_asked_for_and_of_labelled_cases() -> None:
    drops = ({"WT": 0.001, "TC": 0.004, "ET": 0.0}, {"WT": 0.003, "TC": -0.002, "ET": 0.03})
    labelled = [
        CaseDrift(case=str(n), origin="phantom", regions={r: region_drift(d) for r, d in one.items()}) for n, one in enumerate(drops)
    ]
    unlabelled = CaseDrift(case="none", origin="real", regions={r: region_drift(0.5, labelled=False) for r in drops[0]})
    record = _record(*labelled, unlabelled)
    # An IoU falls 1.2 times as far as the Dice here.
    assert largest_mean_drops(record, ("WT", "TC")) == pytest.approx((0.002, 0.0024))
    assert largest_mean_drops(record, ("TC", "ET")) == pytest.approx((0.015, 0.018))
    assert largest_mean_drops(_record(unlabelled), ("WT",)) == (None, None)
    # A real case's loss is not hidden among phantoms that lose nothing.
    real = CaseDrift(case="one", origin="real", regions={"WT": region_drift(0.05)})
    assert largest_mean_drops(_record(*labelled, real), ("WT",)) == pytest.approx((0.05, 0.06))


def test_timing_figures_are_those_of_the_raw_samples(run: LoadedRun) -> None:
    line = next(line for line in as_data(run)["artifacts"] if line["artifact"] == "openvino-int8")
    row = run.rows["openvino-int8"]
    assert line["p50_ms"] == pytest.approx(median(row.samples_ms))
    assert line["p90_ms"] == pytest.approx(np.percentile(row.samples_ms, 90))
    assert line["n"] == len(row.samples_ms)
    assert line["speed_up"] == pytest.approx(median(run.rows[REFERENCE].samples_ms) / median(row.samples_ms))
    assert line["crops_per_s"] == pytest.approx(1000 / fmean(row.samples_ms))
    assert line["load_s"] == pytest.approx(row.load_ms / 1000)
    assert line["first_inference_ms"] == row.first_inference_ms
    assert line["peak_rss_mib"] == row.peak_rss_bytes / 2**20
    assert line["rss_delta_mib"] == row.rss_delta_bytes / 2**20
    assert line["file_mb"] == row.model_bytes / 1e6
    assert line["file_percent"] == pytest.approx(100 * row.model_bytes / run.rows[REFERENCE].model_bytes)
    assert (line["runtime"], line["precision"], line["executed"]) == ("openvino", "int8", "f32 + 18/18 conv i8")


def test_drift_figures_are_those_of_the_cases() -> None:
    regions = {
        "WT": region_drift(0.01),
        "TC": region_drift(-0.02),
        "ET": region_drift(0.03, hd95_candidate_mm=None, volume_candidate_ml=41.0),
    }
    other = {"WT": region_drift(0.05), "TC": region_drift(0.0), "ET": region_drift(0.01)}
    unlabelled = {region: region_drift(0.5, labelled=False) for region in regions}
    cases = [CaseDrift(case=name, origin="real", regions=found) for name, found in (("x", regions), ("y", other), ("z", unlabelled))]
    summary = summarise(_record(*cases), "real")
    assert summary is not None
    assert (summary.cases, summary.labelled, summary.hd95_n) == (3, 2, 5)
    assert summary.dice_reference == pytest.approx({"WT": 0.9, "TC": 0.9, "ET": 0.9})
    assert summary.dice_drop == pytest.approx({"WT": 0.03, "TC": -0.01, "ET": 0.02})
    assert summary.worst is not None
    assert (summary.worst.region, summary.worst.case) == ("WT", "y")
    assert summary.worst.drop == pytest.approx(0.05)
    assert summary.iou_drop == pytest.approx(1.2 * fmean([0.01, -0.02, 0.03, 0.05, 0, 0.01]))
    assert summary.agreement == pytest.approx(fmean([0.99, 0.98, 0.97, 0.95, 1, 0.99, 0.5, 0.5, 0.5]))
    assert summary.hd95_change_mm == pytest.approx(40 * fmean([0.01, 0.02, 0.05, 0, 0.01]))
    assert summary.volume_change_ml == pytest.approx(fmean([2, 4, 1, 10, 0, 2, 100, 100, 100]))


def test_figures_that_do_not_exist_are_not_made_up() -> None:
    case = CaseDrift(case="x", origin="real", regions={"WT": region_drift(0.1, labelled=False)})
    summary = summarise(_record(case), "real")
    assert summary is not None
    assert (summary.labelled, summary.dice_drop, summary.worst, summary.iou_drop, summary.hd95_change_mm) == (0, {}, None, None, None)
    assert summarise(_record(case), "phantom") is None


def test_origins_are_never_mixed(run: LoadedRun) -> None:
    titles = [table.title for table in tables(run)]
    assert titles[1:] == [
        f"Drift against {REFERENCE} on phantoms (synthetic)",
        f"Drift against {REFERENCE} on real cases",
        f"Drift against {REFERENCE} on real cases with a pseudo-label",
    ]
    line = as_data(run)["artifacts"][-1]["drift"]
    assert {origin: drift["cases"] for origin, drift in line.items()} == {"phantom": 8, "real": 1, "real, pseudo-label": 1}
    record = run.drift["openvino-int8"]
    for origin, case in (("real", REAL), ("real, pseudo-label", PSEUDO)):
        (found,) = (drift for drift in record.cases if drift.case == case)
        summary = summarise(record, origin)  # type: ignore[arg-type]
        assert summary is not None
        assert summary.dice_drop["WT"] == found.regions["WT"].dice_drop


def test_full_tables_have_a_cell_for_every_column(run: LoadedRun) -> None:
    timing, *drift = tables(run, full=True)
    without_a_value = {"speed_up_low", "speed_up_high", "int8_percent"}
    expected = [column.heading for column in TIMING if column.name not in without_a_value]
    assert [column.replace("\n", " ") for column in timing.columns] == expected
    assert [row[0] for row in timing.rows] == list(ROWS)
    assert all(len(row) == len(timing.columns) for row in timing.rows)
    assert timing.columns[timing.left] == "p50\nms"
    for table in drift:
        assert [column.replace("\n", " ") for column in table.columns] == [column.heading for column in DRIFT]
        assert table.left == 1
        assert [row[0] for row in table.rows] == [name for name in ROWS if name != REFERENCE]


def test_terminal_tables_fit_a_page_of_a_log(run: LoadedRun, capsys: pytest.CaptureFixture[str]) -> None:
    for table in tables(run):
        Output(Mode.HUMAN).table(table.title, table.columns, table.rows, left=table.left)
    printed = capsys.readouterr().out
    for name in ROWS:
        assert f" {name} " in printed, "the name was broken into two lines"
    assert " f32 + 18/18 conv i8 " in printed


def test_csv_holds_the_same_figures_unrounded(run: LoadedRun) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(run))))
    assert [line["artifact"] for line in lines] == list(ROWS)
    for line, data in zip(lines, as_data(run)["artifacts"], strict=True):
        assert float(line["p50_ms"]) == data["p50_ms"]
        assert float(line["speed_up"]) == data["speed_up"]
        if data["artifact"] == REFERENCE:
            assert line["phantom_dice_drop_wt"] == line["real_pseudo_label_iou_drop"] == ""
        else:
            assert float(line["phantom_dice_drop_wt"]) == data["drift"]["phantom"]["dice_drop_wt"]
            assert float(line["real_pseudo_label_iou_drop"]) == data["drift"]["real, pseudo-label"]["iou_drop"]


def test_json_is_strict_and_holds_the_same_figures(run: LoadedRun) -> None:
    def refuse(text: str) -> None:
        raise ValueError(text)

    assert json.loads(to_json(run), parse_constant=refuse) == json.loads(json.dumps(as_data(run)))


def test_markdown_names_the_machine_and_has_every_row(run: LoadedRun) -> None:
    text = to_markdown(run)
    assert text.startswith(f"Machine: {HOST.summary}\n")
    for table in tables(run, full=True):
        assert f"**{table.title}**" in text
        for row in table.rows:
            assert f"| {' | '.join(row)} |" in text
    assert "Warnings:" not in text


def test_markdown_keeps_its_columns_whatever_a_name_holds(tmp_path: Path) -> None:
    rows = {REFERENCE: ROWS[REFERENCE], "a|b": ROWS["openvino-bf16"]}
    text = to_markdown(sample(tmp_path / "run", Plan(rows=rows)))
    assert "| a\\|b | openvino |" in text


def test_markdown_ends_with_the_warnings(tmp_path: Path) -> None:
    run = sample(tmp_path / "run", Plan().changed("openvino-bf16", load_average=7.0))
    assert to_markdown(run).rstrip().endswith("- " + cautions(run)[-1])


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (None, ".4f", "\N{EN DASH}"),
        ("f32", "", "f32"),
        (12345.678, ",.1f", "12,345.7"),
        (0.00123, "+.4f", "+0.0012"),
        (-0.00123, "+.4f", "-0.0012"),
        (-0.00001, "+.4f", "0.0000"),
        (0.0, "+,.2f", "0.00"),
        (24, "", "24"),
    ],
)
def test_values_as_people_read_them(value: Any, spec: str, text: str) -> None:
    assert shown(value, spec) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"precision": "fp32", "executed_float": "f32", "executed_convolutions": {"f32": 18}}, "f32"),
        ({"precision": "int8", "executed_float": "bf16", "executed_convolutions": {"bf16": 3, "i8": 15}}, "bf16 + 15/18 conv i8"),
        ({"precision": "int8", "executed_float": "f32", "executed_convolutions": {"f32": 17, "u8": 1}}, "f32 + 1/18 conv i8"),
        ({"precision": "int8", "executed_float": "f32", "executed_convolutions": {"f32": 18}}, "f32 + 0/18 conv i8"),
        ({"precision": "fp32", "executed_float": "f32", "executed_convolutions": {}}, "f32"),
    ],
)
def test_executed_precision_in_short(tmp_path: Path, fields: dict[str, Any], text: str) -> None:
    run = sample(tmp_path / "run", Plan().changed("openvino-bf16", **fields))
    assert executed(run.rows["openvino-bf16"]) == text


def test_a_clean_run_has_no_warning(run: LoadedRun) -> None:
    assert cautions(run) == []


@pytest.mark.parametrize(
    ("artifact", "fields", "warning"),
    [
        ("openvino-bf16", {"load_average": 2.6}, "the machine was busy when timing began (load average 2.6, 2 threads)"),
        ("openvino-bf16", {"other_busy": 0.6}, "something else kept 0.6 processors busy while it was timed (2 threads): timings are"),
        ("openvino-bf16", {"samples_ms": (900.0,) * 5}, "only 5 samples over 4.5 s"),
        ("openvino-bf16", {"samples_ms": (648.0, *(1286.0,) * 20)}, "p50 is 1.98 times its shortest run (648 ms): a shared host or"),
        ("openvino-bf16", {"executed_float": "f32"}, "declared BF16, executed f32"),
        ("openvino-fp32", {"executed_float": "bf16"}, "declared FP32, executed bf16"),
        ("openvino-int8", {"executed_convolutions": {"f32": 18}}, "declared INT8, executed none (18 convolutions, none in i8)"),
        ("openvino-fp32", {"median_ms": 20000.0}, f"slower than the baseline {REFERENCE} ("),
        ("openvino-fp32", {"threads": 4}, "its number of threads differ"),
        ("openvino-fp32", {"input_shape": (1, 3, 64, 64, 64)}, "its input shape differ"),
        ("openvino-fp32", {"host": HOST.model_copy(update={"cpu": "Another"})}, "its machine differ"),
    ],
)
def test_every_warning(tmp_path: Path, artifact: str, fields: dict[str, Any], warning: str) -> None:
    (found,) = cautions(sample(tmp_path / "run", Plan().changed(artifact, **fields)))
    assert found.startswith(f"{artifact}: {warning}")


@pytest.mark.parametrize("samples", [(3400.0,) * 3, (5.0,) * 20])
def test_twenty_samples_or_ten_seconds_are_enough(tmp_path: Path, samples: tuple[float, ...]) -> None:
    run = sample(tmp_path / "run", Plan().changed("openvino-bf16", samples_ms=samples))
    assert not [text for text in cautions(run) if "samples" in text]


def test_the_load_before_is_no_warning_where_it_is_known_that_nothing_else_ran(tmp_path: Path) -> None:
    assert cautions(sample(tmp_path / "run", Plan().changed("openvino-bf16", load_average=2.6, other_busy=0.1))) == []


def test_a_load_that_the_system_does_not_tell_is_no_warning(tmp_path: Path) -> None:
    assert cautions(sample(tmp_path / "run", Plan().changed("openvino-bf16", load_average=-1.0))) == []


def test_a_region_that_vanished_is_a_warning(tmp_path: Path) -> None:
    store = RunStore(write_run(tmp_path / "run"))
    record = store.read_drift("openvino-int8")
    gone = {"ET": record.cases[0].regions["ET"].model_copy(update={"volume_reference_ml": 3.21, "volume_candidate_ml": 0.0})}
    first = record.cases[0].model_copy(update={"regions": {**record.cases[0].regions, **gone}})
    store.write_drift(record.model_copy(update={"cases": (first, *record.cases[1:])}))
    assert cautions(load_run(store.folder)) == ["openvino-int8: found no ET in phantom-0000, where the reference found 3.21 mL"]


def test_drift_measured_in_another_precision_is_a_warning(tmp_path: Path) -> None:
    store = RunStore(write_run(tmp_path / "run"))
    store.write_drift(store.read_drift("openvino-bf16").model_copy(update={"executed_float": "f32"}))
    assert cautions(load_run(store.folder)) == ["openvino-bf16: timed in bf16 but its drift was measured in f32"]
