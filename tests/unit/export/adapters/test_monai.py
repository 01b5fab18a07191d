"""A MONAI bundle becomes an artifact that decides as MONAI does; what would be run, or has no counterpart, is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import exploits
import monai_bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from command import Command
from monai.bundle import ConfigParser
from monai_bundle import SEGRESNET, config, reference, write_bundle
from support import AFFINE, tree, write_nifti

from edge_latup.artifact import open_artifact

ENDINGS = ("-t1c", "-t1n", "-t2w", "-t2f")
SHAPE = (37, 34, 15)
"""Shorter than the window along the last axis, by an odd number of voxels."""


def write_head(folder: Path) -> np.ndarray:
    rng = np.random.default_rng(6)
    x, y, z = np.indices(SHAPE)
    head = ((x - 19) / 16) ** 2 + ((y - 16) / 14) ** 2 + ((z - 7) / 7.2) ** 2 < 1
    volume = np.stack([np.where(head, rng.integers(1, 900, SHAPE), 0) for _ in ENDINGS]).astype(np.int16)
    for array, ending in zip(volume, ENDINGS, strict=True):
        write_nifti(folder / f"{folder.name}{ending}.nii.gz", array, AFFINE)
    return volume


@pytest.mark.parametrize("softmax", [False, True], ids=["regions", "classes"])
def test_it_decides_as_monai_does(cli: Command, tmp_path: Path, softmax: bool) -> None:
    bundle = write_bundle(tmp_path, softmax=softmax)
    described = cli("import", bundle, "--describe")
    assert described.code == 0, described.err
    (tmp_path / "spec.toml").write_text(described.out)
    for extra in ((), ("--spec", tmp_path / "spec.toml", "--overwrite")):
        done = cli("import", bundle, "--out", tmp_path / "artifact", *extra)
        assert done.code == 0, done.err
    assert "a MONAI bundle" in done.err
    spec = open_artifact(tmp_path / "artifact").manifest.spec
    assert spec.modalities == ("t1ce", "t1", "t2", "flair")
    volume = write_head(tmp_path / "case")
    done = cli("segment", tmp_path / "artifact", tmp_path / "case", "--out", tmp_path / "label.nii.gz", "--runtime", "onnxruntime")
    assert done.code == 0, done.err
    found, expected = np.asarray(nib.load(tmp_path / "label.nii.gz").dataobj), reference(volume, softmax=softmax)
    present = [label for label in range(4) if (expected == label).sum() > 50]
    assert len(present) > 2, "several labels decide something"
    for label in present:
        both = 2 * ((found == label) & (expected == label)).sum()
        assert both / ((found == label).sum() + (expected == label).sum()) > 0.9995


def changed(path: str, value: Any) -> dict[str, Any]:
    """The top entry of the configuration that holds `path`, with that value there."""
    whole = copy.deepcopy(config(softmax=False))
    *steps, last = path.split("::")
    place: Any = whole
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[int(last) if last.isdigit() else last] = value
    return {steps[0] if steps else last: whole[steps[0] if steps else last]}


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("network_def::_target_", "os.system", "os.system"),
        ("network_def::_target_", "monai.networks.nets.EfficientNetBN", "EfficientNetBN"),
        ("network_def::_target_", "evil.SegResNet", "evil.SegResNet"),
        ("network_def::init_filters", "$__import__('os').system('true')", "an expression"),
        ("network_def::act", {"_target_": "subprocess.Popen", "args": "true"}, "_target_"),
        ("network_def::act", "@norm_of_nothing", "norm_of_nothing"),
        ("network_def::act", "@network_def", "itself"),
        ("network_def::act", "%/etc/passwd", "another file"),
        ("network_def::no_such_argument", 3, "cannot be built"),
        ("preprocessing::transforms::2::_target_", "ScaleIntensityRanged", "ScaleIntensityRanged"),
        ("preprocessing::transforms::2::channel_wise", False, "NormalizeIntensityd"),
        ("preprocessing::transforms::2", "@inferer", "SlidingWindowInferer"),
        ("preprocessing::transforms::2", "$import_os", "an expression"),
        ("preprocessing::transforms::2", "@device", "an expression"),
        ("preprocessing::transforms::2", 3, "no transform"),
        ("inferer::_target_", "SimpleInferer", "SimpleInferer"),
        ("inferer::padding_mode", "reflect", "reflect"),
        ("postprocessing::transforms::1::_target_", "KeepLargestConnectedComponentd", "KeepLargestConnectedComponentd"),
        ("postprocessing::transforms::0::sigmoid", False, "no Activationsd"),
    ],
)
def test_what_is_not_understood_is_refused(cli: Command, tmp_path: Path, path: str, value: Any, told: str) -> None:
    bundle = write_bundle(tmp_path, **changed(path, value))
    before = tree(tmp_path)
    done = cli("import", bundle, "--out", tmp_path / "a")
    assert done.code == 2, done.err
    assert told in done.err
    assert tree(tmp_path) == before


def test_a_transform_may_be_named_or_switched_off(cli: Command, tmp_path: Path) -> None:
    """By reference, as bundles share them between training and inference; and as MONAI reads `_disabled_`, also as a text."""
    step = config(softmax=False)["preprocessing"]["transforms"][2]
    named = changed("preprocessing::transforms::2", "@normalize") | {"normalize": step}
    unused = {"_target_": "GaussianSmoothd", "keys": "image", "_disabled_": "True"}
    switched = changed("preprocessing::transforms::1", unused)
    told = []
    for name, changes in (("plain", {}), ("named", named), ("switched", switched)):
        done = cli("import", write_bundle(tmp_path / name, **changes), "--describe")
        assert done.code == 0, done.err
        told.append([line for line in done.out.splitlines() if not line.startswith("#")])
    assert 'normalisation = "z_score_nonzero"' in told[0]
    assert told[0] == told[1] == told[2]


def test_a_network_that_gives_a_list_is_taken(cli: Command, tmp_path: Path) -> None:
    """BasicUNet++ gives a list of one also when it predicts."""
    told = {"_target_": "BasicUNetPlusPlus", "spatial_dims": 3, "in_channels": 4, "out_channels": 3, "features": [4, 4, 4, 4, 4, 4]}
    bundle = write_bundle(tmp_path, network_def=told, inferer=config(softmax=False)["inferer"] | {"roi_size": [32, 32, 32]})
    network = ConfigParser({"network": told}).get_parsed_content("network")
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    done = cli("import", bundle, "--out", tmp_path / "artifact")
    assert done.code == 0, done.err
    assert open_artifact(tmp_path / "artifact").manifest.parity[0].argmax_agreement > 0.999


def test_weights_that_run_code_are_refused(cli: Command, tmp_path: Path) -> None:
    bundle, marker = write_bundle(tmp_path), tmp_path / "marker"
    exploits.armed(marker)
    weights = bundle / "models" / "model.pt"
    exploits.checkpoint(weights, marker, model=torch.load(weights, weights_only=True))
    done = cli("import", bundle, "--out", tmp_path / "a")
    assert (done.code, "could run code" in done.err) == (2, True)
    weights.write_bytes(exploits.armed(marker))
    assert cli("import", bundle, "--out", tmp_path / "a").code == 2
    assert not marker.exists()


def test_weights_of_another_network_are_refused(cli: Command, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, network_def={**SEGRESNET, "init_filters": 16})
    done = cli("import", bundle, "--out", tmp_path / "a")
    assert (done.code, "does not fit SegResNet" in done.err) == (2, True)
    (bundle / "models" / "model.pt").unlink()
    done = cli("import", bundle, "--out", tmp_path / "a")
    assert (done.code, "no models/model.pt" in done.err) == (2, True)


def test_yaml_is_read_as_data(cli: Command, tmp_path: Path) -> None:
    import yaml

    bundle, marker = write_bundle(tmp_path), tmp_path / "marker"
    (bundle / "configs" / "inference.json").unlink()
    (bundle / "configs" / "inference.yaml").write_text(yaml.safe_dump(monai_bundle.config(softmax=False)))
    assert cli("import", bundle, "--describe").code == 0
    (bundle / "configs" / "inference.yaml").write_text(f"network_def: !!python/object/apply:pathlib.Path.touch [{marker}]\n")
    assert cli("import", bundle, "--describe").code == 2
    assert not marker.exists()
