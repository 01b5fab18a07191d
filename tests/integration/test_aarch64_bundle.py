"""A bundle for ARM boards, made on this machine: installed, self-tested and used in an arm64 Debian under qemu, without a network.

`make test-aarch64` makes the Debian and runs this. Emulated times mean nothing, so nothing is promised of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from aarch64.arm import Arm, here
from bundles import CREATED, installed_whole, signing_key, write_key
from demo_network import write_keeping_all

from edge_latup.bundle import golden
from edge_latup.bundle.build import Plan, build_bundle
from edge_latup.bundle.golden import TOLERANCES
from edge_latup.cases.cohort import write_cohort
from edge_latup.metrics.overlap import dice_by_region

pytestmark = pytest.mark.slow

PYTHON = "3.11"
"""Of Debian 12, which the root is."""
ARTIFACTS = ("int8", "fp32")
SIDE, SHAPE = 16, (32, 32, 28)
"""Of the crop, and of the cases: a self-test is eight inferences, and each is emulated."""
LEAST_DICE = {"int8": 0.95, "fp32": 0.999}
"""Of a region, as in test_aarch64.py."""
KEY = signing_key()


@pytest.fixture(scope="module")
def artifacts(arm: Arm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the artifacts, made here; without a root there is none."""
    if not installed_whole():
        pytest.skip("edge-latup is not installed as a wheel, which a bundle is made of")
    folder = tmp_path_factory.mktemp("artifacts")
    tuple(write_cohort(folder / "calibration", cases=2, seed=6, shape=(64, 64, 56)))
    method = ("--method", "int8", "--runtime", "onnxruntime", "--calibration", folder / "calibration")
    here("export", write_keeping_all(folder / "checkpoint"), "--size", SIDE, "--out", folder / "fp32")
    here("quantize", folder / "fp32", *method, "--out", folder / "int8")
    return folder


@pytest.fixture(scope="module")
def bundles(arm: Arm, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the root: the public key, and a bundle of each artifact and the other as its fallback."""
    named = os.environ.get("EDGE_LATUP_WHEELS")
    wheels = Path(named) if named else tmp_path_factory.mktemp("wheels")
    patch = pytest.MonkeyPatch()
    patch.setattr(golden, "SHAPE", SHAPE)
    tuple(write_cohort(arm.share / "case", cases=1, seed=7, shape=SHAPE))
    for best in ARTIFACTS:
        order = sorted(ARTIFACTS, key=lambda name: name != best)
        plan = Plan(
            artifacts=tuple(artifacts / name for name in order), name=best, version="1", target="jetson-orin-nano-8gb",
            platform="linux-aarch64", pythons=(PYTHON,), created=CREATED, wheels=wheels, threads=2,
        )  # fmt: skip
        build_bundle(plan, KEY, arm.share / best)
    patch.undo()
    write_key(arm.share, KEY.public).rename(arm.share / "public-key.json")
    return arm.share


@pytest.mark.parametrize("best", ARTIFACTS)
def test_it_is_installed_proves_itself_and_labels_as_here(arm: Arm, artifacts: Path, bundles: Path, best: str) -> None:
    root = arm.inside / f"installed-{best}"
    done = arm.run("PYTHON=/usr/bin/python3", arm.inside / best / "install.sh", "--key", arm.inside / "public-key.json", "--root", root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"artifacts/{best} passed" in done.stdout, "the best artifact did, not its fallback"
    assert f"artifacts/{best} on onnxruntime" in done.stdout
    print(done.stdout)  # noqa: T201  (the figures of docs/aarch64.md)
    done = arm.run(root / "segment", arm.inside / "case", "--out", arm.inside / f"{best}.nii.gz")
    assert done.returncode == 0, done.stderr
    out = artifacts / f"{best}-labels.nii.gz"
    here("segment", artifacts / best, bundles / "case", "--runtime", "onnxruntime", "--out", out)
    maps = [nib.load(path) for path in (out, bundles / f"{best}.nii.gz")]
    assert np.array_equal(maps[0].affine, maps[1].affine)
    expected, found = (np.asarray(one.dataobj).astype(np.uint8) for one in maps)
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    assert np.mean(expected == found) >= TOLERANCES[best].same_class  # type: ignore[index]
    assert min(dice_by_region(expected, found).values()) >= LEAST_DICE[best]


def test_other_labels_than_expected_fail_the_self_test_there(arm: Arm, bundles: Path) -> None:
    root = arm.share / "installed-fp32"
    record = root / "versions" / next((root / "versions").iterdir()).name / "bundle" / "golden" / "golden.json"
    text = record.read_text(encoding="utf-8")
    record.write_text(re.sub(r'"file": "\w+\.npz"', '"file": "other.npz"', text), encoding="utf-8")
    labels = np.load(record.parent / "fp32.npz")
    np.savez(record.parent / "other.npz", **{**labels, "labels": (labels["labels"] + 1) % 4})
    done = arm.run(arm.inside / "installed-fp32" / "edge-latup", "self-test")
    assert done.returncode == 5
    assert "FAILED" in done.stdout
    assert "labels" in done.stdout
