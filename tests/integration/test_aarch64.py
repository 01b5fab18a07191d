"""LATUP-Net on aarch64: the real wheels in an arm64 Debian under qemu give what they give on this machine.

`make test-aarch64` makes the Debian and runs this. Emulated times mean nothing, and none is taken. The demo network is the published one;
the sizes are small, because emulation is slow. docs/aarch64.md states what is found here.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from aarch64.arm import ENVIRONMENT, FOLDER, SCRIPT, Arm, here
from demo_network import write_keeping_all

from edge_latup.artifact import open_artifact
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.metrics.overlap import dice_by_region
from edge_latup.segmentation.parity import EXPORT_TOLERANCE, compare
from edge_latup.segmentation.prepare import crop_input

pytestmark = pytest.mark.slow

INFER = Path(__file__).resolve().parents[1] / "aarch64" / "infer.py"
ROWS = [
    ("fp32", "onnxruntime", 16), ("dynamic-range", "onnxruntime", 16), ("int8-onnxruntime", "onnxruntime", 32),
    ("fp32", "openvino", 16), ("int8-openvino", "openvino", 16),
]  # fmt: skip
"""Artifact, runtime, side of the crop: small where an emulated convolution is slow, which INT8 in ONNX Runtime is not."""
METHODS = {
    "dynamic-range": ["--method", "dynamic-range"],
    "int8-onnxruntime": ["--method", "int8", "--runtime", "onnxruntime"],
    "int8-openvino": ["--method", "int8", "--runtime", "openvino"],
}
PHANTOMS = {16: "32x32x28", 32: "64x64x56"}
"""Side -> size of the phantom; in its centre crop the network finds every class."""
LABELS_FLOAT, LABELS_INT8 = 0.999, 0.95
"""Least Dice of a region. In float a voxel in ten thousand may tip over; in INT8, on regions of a few hundred voxels, a rounding step
moves whole rims."""
ANOTHER_CLASS = 0.02
"""Share of voxels that kernels which round elsewhere may decide otherwise, as in test_int8_threads.py."""


@pytest.fixture(scope="module")
def work(arm: Arm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cases and artifacts that `ROWS` names, copied into the root too."""
    folder = tmp_path_factory.mktemp("work")
    here("phantom", "--out", folder / "calibration", "--cases", 2, "--seed", 6, "--shape", "64x64x56")
    checkpoint = write_keeping_all(folder / "checkpoint")
    for side, shape in PHANTOMS.items():
        here("phantom", "--out", folder / f"cases-{side}", "--cases", 1, "--seed", 7, "--shape", shape)
        here("export", checkpoint, "--size", side, "--out", folder / f"fp32-{side}")
        for name in {name for name, _, size in ROWS if size == side} & set(METHODS):
            calibration = ["--calibration", folder / "calibration"] if "int8" in name else []
            here("quantize", folder / f"fp32-{side}", *METHODS[name], *calibration, "--out", folder / f"{name}-{side}")
        artifact = open_artifact(folder / f"fp32-{side}")
        case = read_case(find_cases(folder / f"cases-{side}")[0], artifact.manifest.spec.modalities)
        np.save(folder / f"crop-{side}.npy", crop_input(case, artifact.manifest.spec)[0][None])
    shutil.copytree(folder, arm.share, dirs_exist_ok=True)
    shutil.copy(INFER, arm.share)
    return folder


def inferred_here(work: Path, name: str, runtime: str, side: int) -> np.ndarray:
    out = work / f"{name}-{runtime}-{side}.npy"
    command = [sys.executable, "-P", INFER, work / f"{name}-{side}", runtime, work / f"crop-{side}.npy", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.asarray(np.load(out))


@pytest.fixture(scope="module")
def audits(arm: Arm, work: Path) -> Any:
    """name, runtime, side -> the audit on aarch64, and what was said on stderr."""

    @functools.cache
    def audit(name: str, runtime: str, side: int) -> tuple[Any, str]:
        return arm.told("inspect", arm.inside / f"{name}-{side}", "--audit", "--runtime", runtime, "--threads", 2)

    return audit


def test_a_killed_run_leaves_no_mount_and_no_process(arm: Arm) -> None:
    command = [SCRIPT, "run", "python3", "-c", "import time; print('started', flush=True); time.sleep(987)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.kill()
        assert process.stdout.read() == ""  # ends when the last process that holds it has ended
    assert str(FOLDER) not in Path("/proc/mounts").read_text(encoding="utf-8")


def test_doctor_sees_an_arm_machine_with_both_runtimes(arm: Arm) -> None:
    found, _ = arm.told("doctor")
    assert found["host"]["architecture"] == "aarch64"
    assert not any("AVX" in name or "AMX" in name for name in found["host"]["isa"])
    assert all(found["packages"][name]["works"] for name in ("numpy", "nibabel", "openvino", "onnxruntime"))
    assert not found["packages"]["torch"]["works"]
    assert "fp32" in found["openvino_precisions"]


@pytest.mark.parametrize(("name", "runtime", "side"), ROWS)
def test_probabilities_agree(arm: Arm, work: Path, name: str, runtime: str, side: int) -> None:
    """INT8: another machine may cost no more than the quantization did, or it would not be the same INT8."""
    expected = inferred_here(work, name, runtime, side)
    out = f"{name}-{runtime}-{side}-arm.npy"
    done = arm.run(
        "python",
        *(arm.inside / part for part in ("infer.py", f"{name}-{side}")),
        runtime,
        arm.inside / f"crop-{side}.npy",
        arm.inside / out,
    )
    assert done.returncode == 0, done.stderr
    figures = compare(expected, np.load(arm.share / out))
    sys.stdout.write(f"\n{name} on {runtime}, {side}: {figures}\n")
    if not name.startswith("int8"):
        assert figures["max_abs"] <= EXPORT_TOLERANCE["max_abs"]
        assert figures["relative_l2"] <= EXPORT_TOLERANCE["relative_l2"]
        return
    lost = compare(inferred_here(work, "fp32", runtime, side), expected)
    sys.stdout.write(f"INT8 against FP32 here: {lost}\n")
    assert figures["relative_l2"] <= lost["relative_l2"]
    assert figures["argmax_agreement"] >= 1 - ANOTHER_CLASS


@pytest.mark.parametrize(("name", "runtime", "side"), ROWS)
def test_a_case_is_segmented_alike(arm: Arm, work: Path, name: str, runtime: str, side: int) -> None:
    out = f"{name}-{runtime}-{side}.nii.gz"
    options = ("--runtime", runtime, "--threads", 2, "--out")
    here("segment", work / f"{name}-{side}", work / f"cases-{side}", *options, work / out)
    arm.told("segment", arm.inside / f"{name}-{side}", arm.inside / f"cases-{side}", *options, arm.inside / out)
    maps = [nib.load(folder / out) for folder in (work, arm.share)]
    assert np.array_equal(maps[0].affine, maps[1].affine)
    expected, found = (np.asarray(one.dataobj).astype(np.uint8) for one in maps)
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    agreement = dice_by_region(expected, found)
    sys.stdout.write(f"\n{name} on {runtime}, {side}: Dice {agreement}\n")
    assert min(agreement.values()) >= (LABELS_INT8 if name.startswith("int8") else LABELS_FLOAT)


@pytest.mark.parametrize(("name", "side"), [("fp32", 16), ("dynamic-range", 16), ("int8-onnxruntime", 32)])
def test_onnxruntime_executes_what_it_executes_here(work: Path, audits: Any, name: str, side: int) -> None:
    """Layer by layer, its INT8 kernels too."""
    local = json.loads(here("inspect", work / f"{name}-{side}", "--audit", "--runtime", "onnxruntime").stdout)
    found, told = audits(name, "onnxruntime", side)
    assert [(layer["name"], layer["executed"]) for layer in found["layers"]] == [
        (layer["name"], layer["executed"]) for layer in local["layers"]
    ]
    assert found["summary"]["executed_int8"] == pytest.approx(1.0 if name.startswith("int8") else 0.0, abs=1e-3)
    assert "does not run what it declares" not in told


def test_openvino_runs_no_3d_int8_kernel_and_the_audit_says_so(audits: Any) -> None:
    """Should this fail, OpenVINO has learnt it: change docs/aarch64.md."""
    found, told = audits("int8-openvino", "openvino", 16)
    assert found["summary"]["declared_int8"] > 0.99
    assert found["summary"]["executed_int8"] == 0
    assert "does not run what it declares" in told
    kernels = {layer["kernel"] for layer in found["layers"] if layer["operation"] == "Convolution"}
    assert kernels == {"ref_any_f32"}
