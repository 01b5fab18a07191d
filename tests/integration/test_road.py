"""The main road through the command line, on tiny cases: phantom, train, export, quantize, bench, report, segment.

What is shown is that every stage takes what the one before it made. The network is untrained in all but name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import Result
from command import Command
from support import tree
from typer.testing import CliRunner

from edge_latup.cli import app
from edge_latup.cli.output import Mode, configure

ENTRY = "import sys; sys.path[:] = filter(None, sys.path); from edge_latup.cli import main; main()"
"""`edge-latup` in a process of its own, however the package is installed."""
SIDE = 16


def run(*arguments: object) -> Result:
    """A command in this process; it must succeed."""
    result = CliRunner().invoke(app, ["--json", *map(str, arguments)])
    configure(Mode.HUMAN)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    return result


def told(*arguments: object) -> Any:
    """What a command printed: stdout is one JSON value and nothing else."""
    return json.loads(run(*arguments).stdout)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything up to the report, in one folder."""
    folder = tmp_path_factory.mktemp("road")
    for name, seed in (("training", 1), ("calibration", 2), ("held-out", 3)):
        made = told("phantom", "--out", folder / name, "--cases", 2, "--seed", seed, "--shape", "40x36x32")
        assert len(made["cases"]) == 2
    trained = told(
        "train", "--out", folder / "checkpoint", "--cases", folder / "training", "--width", 8, "--phase", f"{SIDE}:2", "--threads", 1
    )  # fmt: skip
    assert trained["recipe"]["phases"] == [{"patch": SIDE, "steps": 2}]
    exported = told("export", folder / "checkpoint", "--out", folder / "fp32", "--size", SIDE)
    assert [case["name"] for case in exported["trained_on"]] == ["phantom-0001-0000", "phantom-0001-0001"]
    quantize = ("quantize", folder / "fp32")
    told(*quantize, "--method", "dynamic-range", "--out", folder / "dynamic-range")
    told(*quantize, "--method", "fp16", "--out", folder / "fp16")
    told(*quantize, "--method", "int8", "--calibration", folder / "calibration", "--out", folder / "int8")
    benched = told(
        "bench", *(folder / name for name in ("fp32", "dynamic-range", "fp16", "int8")), "--cases", folder / "held-out",
        "--out", folder / "run", "--runs", 3, "--threads", 2,
    )  # fmt: skip
    assert [row["artifact"] for row in benched["artifacts"]] == ["fp32", "dynamic-range", "fp16", "int8"]
    assert Path(told("report", folder / "run")["report"]) == folder / "run" / "report.html"
    return folder


def test_the_artifacts_carry_what_was_done_to_them(road: Path) -> None:
    manifest = json.loads((road / "int8" / "manifest.json").read_text())
    assert [step["operation"] for step in manifest["recipe"]] == ["export", "quantize"]
    assert [case["name"] for case in manifest["calibration"]] == ["phantom-0002-0000", "phantom-0002-0001"]
    assert [case["name"] for case in manifest["trained_on"]] == ["phantom-0001-0000", "phantom-0001-0001"]
    assert [(parity["reference"], parity["candidate"]) for parity in manifest["parity"]] == [
        ("pytorch fp32", "onnxruntime fp32"), ("pytorch fp32", "openvino fp32"), ("openvino fp32", "openvino int8"),
    ]  # fmt: skip


def test_the_run_holds_every_record(road: Path) -> None:
    kept = sorted(str(path.relative_to(road / "run")) for path in (road / "run").rglob("*.json"))
    names = ("dynamic-range", "fp16", "int8")
    assert [path for path in kept if path.startswith(("rows", "drift"))] == [
        *(f"drift/{name}.json" for name in names), *(f"rows/{name}.json" for name in ("dynamic-range", "fp16", "fp32", "int8")),
    ]  # fmt: skip
    row = json.loads((road / "run" / "rows" / "int8.json").read_text())
    assert len(row["samples_ms"]) == 3
    assert sum(row["executed_convolutions"].values()) == 18
    assert set(row["executed_convolutions"]) <= {"i8", "u8"}


def test_the_report_is_one_file_that_names_every_artifact(road: Path) -> None:
    page = (road / "run" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("fp32", "dynamic-range", "fp16", "int8", "phantom-0003-0000"))
    assert 'src="http' not in page
    assert "<link" not in page


@pytest.mark.parametrize("name", ["fp32", "dynamic-range", "int8"])
def test_a_case_is_segmented_on_its_own_grid(road: Path, tmp_path: Path, name: str) -> None:
    case = road / "held-out" / "phantom-0003-0000"
    data = told("segment", road / name, case, "--out", tmp_path / "label.nii.gz")
    found, source = nib.load(tmp_path / "label.nii.gz"), nib.load(case / "phantom-0003-0000-t2f.nii.gz")
    assert found.shape == source.shape
    np.testing.assert_array_equal(found.affine, source.affine)
    assert set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2, 3}
    assert data["volumes_ml"]["WT"] == np.count_nonzero(np.asarray(found.dataobj)) / 1000


def test_a_process_of_its_own_does_the_same(road: Path, tmp_path: Path) -> None:
    """Exit code, streams and working directory as a user has them."""
    command = [sys.executable, "-c", ENTRY, "segment", str(road / "fp32"), str(road / "held-out" / "phantom-0003-0001")]
    done = subprocess.run([*command, "--out", "label.nii.gz"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("label.nii.gz: WT ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["label.json", "label.nii.gz"]
    failed = subprocess.run([*command, "--out", "label.png"], cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: --out label.png is not a NIfTI name")
    assert "\nhint: end it with .nii.gz" in failed.stderr


def test_cases_that_calibrated_are_not_evaluated_on(road: Path, tmp_path: Path, cli: Command) -> None:
    done = cli("bench", road / "fp32", road / "int8", "--cases", road / "calibration", "--out", tmp_path / "run")
    assert done.code == 2
    assert "phantom-0002-0000" in done.err
    assert "was used to calibrate int8" in done.err
    assert not tree(tmp_path)


@pytest.mark.parametrize("record", ["run.json", "rows/fp16.json", "drift/int8.json", "pictures/phantom-0003-0000.npz"])
def test_without_its_records_there_is_no_report(road: Path, tmp_path: Path, cli: Command, record: str) -> None:
    for path in (road / "run").rglob("*"):
        if path.is_file() and path.suffix in (".json", ".npz"):
            (tmp_path / "run" / path.relative_to(road / "run")).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "run" / path.relative_to(road / "run")).write_bytes(path.read_bytes())
    (tmp_path / "run" / record).unlink()
    done = cli("report", tmp_path / "run", "--out", tmp_path / "report.html")
    assert (done.code, done.out) == (2, "")
    assert f"{tmp_path / 'run' / record} does not exist" in done.err
    assert "edge-latup bench" in done.err.split("hint: ")[1]
    assert not (tmp_path / "report.html").exists()
