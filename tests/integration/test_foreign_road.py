"""Foreign networks on the whole road through the command line: import, quantize, bench, segment. Slabs of slices, and region heads."""

from __future__ import annotations

import json
from pathlib import Path

import foreign_models
import nibabel as nib
import numpy as np
import onnxruntime as ort
import pytest
from command import Command

SPECS = {
    "slab": """\
name = "slab"
modalities = ["flair", "t1ce", "t2", "t1"]
normalisation = "z_score_nonzero"
divisor = 1
labels = [0, 2]
output_margin = [0, 0, 4]
[spatial]
kind = "sliding-window"
size = [24, 24, 19]
[import]
layout = "NDHWC"
axes = "zyx"
activation = "softmax"
""",
    "regions": """\
name = "regions"
modalities = ["flair", "t1ce", "t2", "t1"]
normalisation = "z_score_nonzero"
divisor = 1
[regions]
order = ["WT", "TC", "ET"]
[spatial]
kind = "centre-crop"
size = [40, 36, 32]
[import]
layout = "NCDHW"
activation = "sigmoid"
""",
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edge_latup.cases.cohort import write_cohort

    folder = tmp_path_factory.mktemp("foreign")
    list(write_cohort(folder / "held-out", cases=1, seed=3, shape=(40, 36, 32)))
    list(write_cohort(folder / "calibration", cases=1, seed=4, shape=(40, 36, 32)))
    return folder


@pytest.mark.parametrize("name", SPECS)
def test_from_onnx_to_drift(cli: Command, cases: Path, tmp_path: Path, name: str) -> None:
    model = getattr(foreign_models, name)(tmp_path / "model.onnx")
    (tmp_path / "spec.toml").write_text(SPECS[name], encoding="utf-8")
    kinds = ["small", "int8"] if name == "slab" else ["small"]
    int8 = ("quantize", tmp_path / "fp32", "--method", "int8", "--calibration", cases / "calibration", "--out", tmp_path / "int8")
    for command in (
        ("import", model, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "fp32"),
        ("quantize", tmp_path / "fp32", "--method", "dynamic-range", "--out", tmp_path / "small"),
        *([int8] if "int8" in kinds else []),
        ("bench", *(tmp_path / kind for kind in ("fp32", *kinds)), "--cases", cases / "held-out", "--out", tmp_path / "run",
         "--runs", 2, "--threads", 2),
        ("segment", tmp_path / "fp32", cases / "held-out" / "phantom-0003-0000", "--out", tmp_path / "label.nii.gz"),
    ):  # fmt: skip
        done = cli(*command)
        assert done.code == 0, done.err
    for kind in kinds:
        manifest = json.loads((tmp_path / kind / "manifest.json").read_text())
        assert [step["operation"] for step in manifest["recipe"]] == ["import", "quantize"]
        row = json.loads((tmp_path / "run" / "rows" / f"{kind}.json").read_text())
        assert set(row["executed_convolutions"]) <= ({"i8", "u8"} if kind == "int8" else {"f32"})
        drift = json.loads((tmp_path / "run" / "drift" / f"{kind}.json").read_text())
        (case,) = drift["cases"]
        assert 0.5 < case["regions"]["WT"]["agreement"] <= 1
    found = np.asarray(nib.load(tmp_path / "label.nii.gz").dataobj)
    np.testing.assert_array_equal(found, by_hand(name, model, cases / "held-out" / "phantom-0003-0000"))


def by_hand(name: str, model: Path, case: Path) -> np.ndarray:
    """The label map from the untouched file: nibabel, numpy and ONNX Runtime only. Phantoms are stored in the spec's orientation."""
    volume = np.stack(
        [np.asarray(nib.load(case / f"{case.name}-{ending}.nii.gz").dataobj, np.float64) for ending in ("t2f", "t1c", "t2w", "t1n")]
    )
    assert nib.aff2axcodes(nib.load(case / f"{case.name}-t2f.nii.gz").affine) == ("L", "P", "S")
    head = (volume > 0.01 * volume.max(axis=(1, 2, 3), keepdims=True)).any(axis=0)
    for channel in volume:
        inside = channel != 0
        channel[inside] = (channel[inside] - channel[inside].mean()) / channel[inside].std()
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    volume = volume.astype(np.float32)
    if name == "regions":
        whole, core, enhancing = session.run(None, {"image": volume[None]})[0][0] > 0
        return np.where(enhancing, 3, np.where(core, 1, np.where(whole, 2, 0)))
    return slabs_by_hand(session, volume, head)


def slabs_by_hand(session: ort.InferenceSession, volume: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Mean probabilities of windows that overlap by a quarter of the 24 x 24 x 11 voxels that each predicts."""
    padded = np.pad(volume, [(0, 0), (0, 0), (0, 0), (4, 4)])
    total, count = np.zeros((40, 36, 32)), np.zeros((40, 36, 32))
    for x in (0, 16):
        for y in (0, 12):
            for z in (0, 9, 18, 21):
                here = np.s_[x : x + 24, y : y + 24, z : z + 11]
                given = padded[:, x : x + 24, y : y + 24, z : z + 19].transpose(3, 2, 1, 0)[None]
                logits = session.run(None, {"image": np.ascontiguousarray(given)})[0][0].astype(np.float64)
                if head[here].any():
                    total[here] += (1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))).transpose(2, 1, 0)
                    count[here] += 1
    return np.where(total > count / 2, 2, 0)
