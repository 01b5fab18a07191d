"""What is expected with one instruction set is computed with another well within the self-test's tolerance."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bench.demo import demo_checkpoint
from edge_latup.bundle.golden import TOLERANCES, Expectation, Tolerance, computed, write_golden, write_golden_case
from edge_latup.bundle.selftest import SelfTest
from edge_latup.cases.cohort import write_cohort
from edge_latup.export.torch_onnx import export_onnx
from edge_latup.quantize.calibration import make_calibration
from edge_latup.quantize.methods import quantize
from edge_latup.runtimes import open_session
from edge_latup.targets.host import cpu_flags
from edge_latup.targets.isa import IsaName, environment, refusal

SIDE = 64
RUN = """import pathlib, sys
sys.path[:] = filter(None, sys.path)
from edge_latup.bundle.selftest import run_self_test
print(run_self_test(pathlib.Path(sys.argv[1]), "0" * 64, threads=2).model_dump_json())
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """(bundle folder, INT8) of the demo network."""
    folder = tmp_path_factory.mktemp("golden")
    (folder / "artifacts").mkdir()
    list(write_cohort(folder / "cases", cases=2, seed=6, shape=(96, 96, 80)))
    fp32 = export_onnx(demo_checkpoint(), folder / "artifacts" / "fp32", size=(SIDE, SIDE, SIDE))
    calibration = make_calibration([folder / "cases"], fp32.manifest.spec)
    return folder, quantize(fp32, "int8", folder / "artifacts" / "int8", calibration=calibration)


def self_test_of(folder: Path, artifact: Artifact, tolerance: Tolerance, variables: Mapping[str, str]) -> SelfTest:
    """The self-test of one artifact in a process of its own, against what it computes here."""
    (folder / "golden").mkdir(exist_ok=True)
    files = write_golden_case(folder / "golden")
    with open_session(open_artifact(artifact.folder)) as session:
        computed(session, files, artifact.manifest.spec).write(folder / "golden" / "expected.npz")
    expectation = Expectation(
        artifact=f"artifacts/{artifact.folder.name}", digest=artifact.digest, runtime="openvino", tolerance=tolerance, file="expected.npz"
    )
    write_golden(folder / "golden", [expectation])
    done = subprocess.run(
        [sys.executable, "-c", RUN, folder], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )  # fmt: skip
    return SelfTest.model_validate_json(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx2", "avx2-vnni", "avx512"])
def test_int8_passes_with_every_instruction_set(made: tuple[Path, Artifact], isa: IsaName) -> None:
    if reason := refusal(isa, "openvino", cpu_flags()):
        pytest.skip(reason)
    folder, int8 = made
    half = Tolerance(relative_l2=TOLERANCES["int8"].relative_l2 / 2, same_class=0.998)
    result = self_test_of(folder, int8, half, environment(isa))
    assert result.artifacts[0].passed, result
