"""A network that the real nnU-Net trained for a minute, against nnU-Net's own predictor on a case it has not seen.

nnU-Net lives in an environment of its own, never in this one:
    python3.11 -m venv nnunet && nnunet/bin/pip install nnunetv2==2.8.1 torch==2.13.0
    EDGE_LATUP_NNUNET_PYTHON=nnunet/bin/python pytest -m slow tests/integration/test_nnunet_twin.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command import Command

PYTHON = os.environ.get("EDGE_LATUP_NNUNET_PYTHON", "")
AGREEMENT = 0.999
"""Dice of each region; nnU-Net adds its windows up in half precision, we in single."""


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="EDGE_LATUP_NNUNET_PYTHON names no Python with nnunetv2")
@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_nnunet_and_we_decide_the_same(cli: Command, tmp_path: Path, kind: str) -> None:
    from edge_latup.cases.cohort import write_cohort

    list(write_cohort(tmp_path / "cases", cases=5, seed=3, shape=(40, 44, 36)))
    script = Path(__file__).with_name("nnunet_twin.py")
    subprocess.run([PYTHON, str(script), str(tmp_path), kind], check=True, capture_output=True, timeout=900)
    (trained,) = (tmp_path / "nnunet_results").glob("*/nnUNetTrainer__*")
    case = max((tmp_path / "cases").iterdir())
    for command in (
        ("import", trained, "--out", tmp_path / "artifact"),
        ("segment", tmp_path / "artifact", case, "--out", tmp_path / "label.nii.gz", "--runtime", "onnxruntime"),
    ):
        done = cli(*command)
        assert done.code == 0, done.err
    found, expected = (np.asarray(nib.load(tmp_path / name).dataobj) for name in ("label.nii.gz", "predicted.nii.gz"))
    for region in ((1, 2, 3), (1, 3), (3,)):
        ours, theirs = np.isin(found, region), np.isin(expected, region)
        assert theirs.sum() > 20, "a network that finds nothing would agree with anything"
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) >= AGREEMENT
