"""An nnU-Net folder becomes an artifact that decides as nnU-Net's predictor does; what no spec says is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import exploits
import nibabel as nib
import numpy as np
import pytest
import torch
from command import Command
from nnunet_folder import reference, write_folder
from support import AFFINE, NAMES_2023, tree, write_nifti

from edge_latup.artifact import open_artifact

SHAPE = (37, 34, 21)


def write_head(folder: Path) -> np.ndarray:
    """A case with a head in air, holes in single modalities and in all of them; returns float64 (C, x, y, z)."""
    rng = np.random.default_rng(5)
    x, y, z = np.indices(SHAPE)
    head = ((x - 19) / 14) ** 2 + ((y - 16) / 13) ** 2 + ((z - 9) / 8.2) ** 2 < 1
    volume = np.stack([np.where(head, rng.integers(1, 900, SHAPE), 0) for _ in range(4)]).astype(np.int16)
    volume[:, 17:20, 15:17, 8:10] = 0
    volume[1, 10:14, 10:20, 6:9] = 0
    for array, ending in zip(volume, list(NAMES_2023.values())[:4], strict=True):
        write_nifti(folder / f"{folder.name}{ending}.nii.gz", array, AFFINE)
    return volume.astype(np.float64)


@pytest.mark.parametrize(("regions", "masked"), [(False, True), (True, False)])
def test_it_decides_as_nnunet_does(cli: Command, tmp_path: Path, regions: bool, masked: bool) -> None:
    trained = write_folder(tmp_path, regions=regions, use_mask_for_norm=[masked] * 4)
    done = cli("import", trained, "--out", tmp_path / "artifact")
    assert done.code == 0, done.err
    assert "an nnU-Net v2 trained folder" in done.err
    assert "original pytorch fp32 / onnxruntime fp32" in done.out
    volume = write_head(tmp_path / "case")
    done = cli("segment", tmp_path / "artifact", tmp_path / "case", "--out", tmp_path / "label.nii.gz", "--runtime", "onnxruntime")
    assert done.code == 0, done.err
    found, expected = np.asarray(nib.load(tmp_path / "label.nii.gz").dataobj), reference(volume, regions=regions, masked=masked)
    for label in range(4):
        assert (expected == label).sum() > 100, "every label decides something"
        both = 2 * ((found == label) & (expected == label)).sum()
        assert both / ((found == label).sum() + (expected == label).sum()) > 0.9995


def test_a_described_spec_is_the_one_that_is_used(cli: Command, tmp_path: Path) -> None:
    trained = write_folder(tmp_path)
    described = cli("import", trained, "--describe")
    assert described.code == 0, described.err
    (tmp_path / "spec.toml").write_text(described.out)
    assert cli("import", trained / "fold_0", "--spec", tmp_path / "spec.toml", "--out", tmp_path / "a").code == 0
    spec = open_artifact(tmp_path / "a").manifest.spec
    assert spec.modalities == ("flair", "t1ce", "t2", "t1")
    assert spec.labels == (0, 2, 1, 3)
    assert spec.spatial.size == (20, 24, 16)
    assert spec.views == ("identity", "mirror", "mirror_z", "mirror_xz")
    outputs = open_artifact(tmp_path / "a").manifest.recipe[0].parameters
    assert outputs["source"] == "nnunet"
    assert outputs["networks"][0]["dropped_outputs"] == [], "deep supervision's heads are not run at all"


def test_another_voxel_size_is_refused(cli: Command, tmp_path: Path) -> None:
    trained = write_folder(tmp_path, spacing=[3.0, 1.0, 1.0])
    assert cli("import", trained, "--out", tmp_path / "a").code == 0
    write_head(tmp_path / "case")
    done = cli("segment", tmp_path / "a", tmp_path / "case", "--out", tmp_path / "label.nii.gz")
    assert done.code == 2
    assert "1 x 1 x 1 mm" in done.err
    assert "1 x 1 x 3 mm" in done.err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"normalization_schemes": ["CTNormalization"] * 4}, "CTNormalization"),
        ({"use_mask_for_norm": [True, False, True, True]}, "True, False"),
        ({"previous_stage": "3d_lowres"}, "cascade"),
        ({"patch_size": [16, 16], "spacing": [1.0, 1.0]}, "2-D"),
        ({"preprocessor_name": "MyPreprocessor"}, "MyPreprocessor"),
        ({"architecture": {"network_class_name": "os.system", "arch_kwargs": {}, "_kw_requires_import": []}}, "os.system"),
        (
            {
                "architecture": {
                    "network_class_name": "PlainConvUNet",
                    "arch_kwargs": {"strides": [1], "nonlin": "subprocess.Popen"},
                    "_kw_requires_import": ["nonlin"],
                }
            },
            "subprocess.Popen",
        ),
    ],
)
def test_what_no_spec_says_is_refused(cli: Command, tmp_path: Path, change: dict[str, object], told: str) -> None:
    trained = write_folder(tmp_path, **change)
    before = tree(tmp_path)
    done = cli("import", trained, "--out", tmp_path / "a")
    assert done.code == 2
    assert told in done.err
    assert tree(tmp_path) == before


def test_a_checkpoint_that_runs_code_is_refused(cli: Command, tmp_path: Path) -> None:
    trained, marker = write_folder(tmp_path), tmp_path / "marker"
    exploits.armed(marker)
    path = trained / "fold_0" / "checkpoint_final.pth"
    whole = torch.load(path, weights_only=False)
    exploits.checkpoint(path, marker, **whole)
    for arguments in (("--out", tmp_path / "a"), ("--describe",)):
        done = cli("import", trained, *arguments)
        assert done.code == 2
        assert "could run code" in done.err
        assert "weights_only=False" in done.err, "the way out, where the source is trusted"
        assert not marker.exists()
    path.write_bytes(exploits.armed(marker))
    assert cli("import", trained, "--out", tmp_path / "a").code == 2
    assert not marker.exists()


def test_missing_or_several_folds_are_told(cli: Command, tmp_path: Path) -> None:
    trained = write_folder(tmp_path)
    (trained / "fold_1").mkdir()
    (trained / "fold_1" / "checkpoint_final.pth").write_bytes((trained / "fold_0" / "checkpoint_final.pth").read_bytes())
    done = cli("import", trained, "--out", tmp_path / "a")
    assert (done.code, "fold_0, fold_1" in done.err) == (2, True)
    (trained / "fold_1" / "checkpoint_final.pth").write_bytes(b"PK")
    assert cli("import", trained / "fold_1", "--out", tmp_path / "a").code == 2
    (trained / "fold_1" / "checkpoint_final.pth").unlink()
    (trained / "fold_0" / "checkpoint_final.pth").unlink()
    assert cli("import", trained, "--out", tmp_path / "a").code == 2


def test_weights_of_another_network_are_refused_by_name(cli: Command, tmp_path: Path) -> None:
    trained = write_folder(tmp_path)
    plans = json.loads((trained / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [6, 8, 12]
    (trained / "plans.json").write_text(json.dumps(plans))
    done = cli("import", trained, "--out", tmp_path / "a")
    assert done.code == 2
    assert "expected (12, 8, 3, 3, 3)" in done.err
