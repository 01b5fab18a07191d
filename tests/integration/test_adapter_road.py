"""An nnU-Net folder and a MONAI bundle on the whole road through the command line: import, both compressions, bench, gate, segment."""

from __future__ import annotations

from pathlib import Path

import monai_bundle
import nibabel as nib
import nnunet_folder
import numpy as np
import pytest
from command import Command


@pytest.mark.slow
@pytest.mark.parametrize("source", ["nnunet", "monai"])
def test_from_what_people_have_to_a_label_map(cli: Command, tmp_path: Path, source: str) -> None:
    from edge_latup.cases.cohort import write_cohort

    list(write_cohort(tmp_path / "held-out", cases=1, seed=3, shape=(40, 44, 36)))
    list(write_cohort(tmp_path / "calibration", cases=1, seed=4, shape=(40, 44, 36)))
    model = nnunet_folder.write_folder(tmp_path) if source == "nnunet" else monai_bundle.write_bundle(tmp_path)
    fp32, small, int8, run = (tmp_path / name for name in ("fp32", "small", "int8", "run"))
    case = tmp_path / "held-out" / "phantom-0003-0000"
    for command in (
        ("import", model, "--out", fp32),
        ("quantize", fp32, "--method", "dynamic-range", "--out", small),
        ("quantize", fp32, "--method", "int8", "--calibration", tmp_path / "calibration", "--out", int8),
        ("bench", fp32, small, int8, "--cases", tmp_path / "held-out", "--out", run, "--runs", 2, "--threads", 2),
        ("segment", int8, case, "--out", tmp_path / "label.nii.gz"),
    ):
        done = cli(*command)
        assert done.code == 0, done.err
    assert cli("gate", run).code in (0, 4), "accepted or refused, but judged"
    label = np.asarray(nib.load(tmp_path / "label.nii.gz").dataobj)
    assert label.shape == (40, 44, 36)
    assert len(np.unique(label)) > 1
