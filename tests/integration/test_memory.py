"""Memory of whole cases, of the published network in real sizes: as predicted before it ran, and not growing from case to case."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_latup.artifact import Artifact
from edge_latup.bench.demo import demo_checkpoint
from edge_latup.cases.cohort import write_cohort
from edge_latup.cli import app

PROBE = Path(__file__).parent / "memory_probe.py"
WITHIN = 0.15
CENTRE, BRAIN = {"kind": "centre-crop"}, {"kind": "brain-crop"}
SHAPE = (176, 176, 128)


def windows(side: int, **more: Any) -> dict[str, Any]:
    return {"kind": "sliding-window", "size": [side] * 3, **more}


def probe(artifact: Path, policy: dict[str, Any], case: Path, out: Path, times: int = 1) -> Any:
    command = [sys.executable, "-P", PROBE, artifact, json.dumps(policy), case, out, str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo network in FP32, BF16 and INT8."""
    folder = tmp_path_factory.mktemp("artifacts")
    write_cohort_in(folder / "calibration", 1, 3)
    commands = [
        ["export", demo_checkpoint(), "--out", folder / "fp32"],
        ["quantize", folder / "fp32", "--method", "bf16", "--out", folder / "bf16"],
        ["quantize", folder / "fp32", "--method", "int8", "--out", folder / "int8", "--calibration", folder / "calibration"],
    ]
    for command in commands:
        result = CliRunner().invoke(app, ["--quiet", *map(str, command)])
        assert result.exit_code == 0, result.stderr
    return folder


def write_cohort_in(folder: Path, cases: int, seed: int) -> Path:
    folder.mkdir()
    list(write_cohort(folder, cases=cases, seed=seed, shape=SHAPE))
    return folder


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort_in(tmp_path_factory.mktemp("cases") / "cases", 1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("policy", [CENTRE, BRAIN, windows(96), windows(64, blending="gaussian")], ids=["centre", "brain", "w96", "w64"])
def test_the_peak_is_predicted_within_15_per_cent(name: str, policy: dict[str, Any], artifacts: Path, case: Path, tmp_path: Path) -> None:
    found = probe(artifacts / name, policy, case, tmp_path)
    error = found["predicted"] / found["peak"] - 1
    sys.stdout.write(f"\n{name} {policy}: predicted {found['predicted'] >> 20} MiB, taken {found['peak'] >> 20} MiB, {error:+.1%}\n")
    assert abs(error) <= WITHIN


@pytest.mark.slow
def test_fifty_cases_take_no_more_than_five(artifacts: Path, case: Path, tmp_path: Path) -> None:
    resident = probe(artifacts / "int8", windows(96, overlap=0.0), case, tmp_path, times=50)["resident"]
    sys.stdout.write(f"\nRSS in MiB after cases 5 and 50: {resident[4] >> 20}, {resident[49] >> 20}\n")
    assert resident[49] <= 1.05 * resident[4]


def test_memory_does_not_grow_from_case_to_case(tiny_fp32: Artifact, tiny_cases: Path, tmp_path: Path) -> None:
    first = sorted(tiny_cases.iterdir())[0]
    resident = probe(tiny_fp32.folder, windows(16), first, tmp_path, times=50)["resident"]
    assert resident[49] <= 1.05 * resident[4]
