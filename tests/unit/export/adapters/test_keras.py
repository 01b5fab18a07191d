"""Keras weights become exactly the network they were written from, in every layout; what does not fit is refused by layer and shape."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import keras_files
import numpy as np
import pytest
import torch
from command import Command
from keras_files import LAYOUTS, layers_of, legacy, network, numbered
from support import tree

from edge_latup.artifact import open_artifact
from edge_latup.errors import ArtifactError
from edge_latup.export.adapters.hdf5 import read_keras
from edge_latup.export.adapters.keras_latup import latup_of
from edge_latup.networks.build import load_checkpoint


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("changes", [{}, {"in_channels": 4, "out_channels": 2, "width": 16}, {"attention": False}], ids=str)
def test_every_tensor_comes_back(tmp_path: Path, name: str, changes: dict[str, int]) -> None:
    made = network(**changes)
    LAYOUTS[name](tmp_path / name, layers_of(made))
    found, declared = latup_of(read_keras(tmp_path / name))
    assert {key: getattr(declared, key) for key in changes} == changes
    for (key, expected), (other, value) in zip(made.state_dict().items(), found.state_dict().items(), strict=True):
        assert key == other
        torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_a_convolution_is_the_one_keras_defines(tmp_path: Path) -> None:
    """By the definition, in numpy: y[x, y, z, o] = sum of image[x+i, y+j, z+k, c] * kernel[i, j, k, c, o]."""
    layers = layers_of(network())
    legacy(tmp_path / "w.h5", layers)
    found, _ = latup_of(read_keras(tmp_path / "w.h5"))
    image = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32)
    (_, kernel), (_, bias) = layers[0][1]
    expected = np.einsum("ijkc,ijkco->o", image, kernel) + bias
    with torch.inference_mode():
        given = found.encoder1.embedding[0](torch.from_numpy(image.transpose(3, 0, 1, 2))[None])[0, :, 1, 1, 1]
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4)


def test_an_import_is_an_artifact_and_a_checkpoint(cli: Command, tmp_path: Path) -> None:
    numbered(tmp_path / "m.weights.h5", layers_of(network()))
    (tmp_path / "spec.toml").write_text('normalisation = "per_slice_precrop"\n[spatial]\nkind = "centre-crop"\nsize = [16, 16, 16]\n')
    done = cli(
        "import", tmp_path / "m.weights.h5", "--spec", tmp_path / "spec.toml", "--out", tmp_path / "a", "--checkpoint", tmp_path / "c"
    )
    assert done.code == 0, done.err
    assert "Keras weights" in done.err
    manifest = open_artifact(tmp_path / "a").manifest
    assert manifest.input_shape == (1, 3, 16, 16, 16)
    assert manifest.spec.normalisation == "per_slice_precrop"
    assert [step.operation for step in manifest.recipe] == ["import", "export"]
    assert manifest.recipe[0].parameters["file"] == "m.weights.h5"
    kept, _ = load_checkpoint(tmp_path / "c")
    torch.testing.assert_close(kept.output.weight, network().output.weight)
    described = cli("--json", "import", tmp_path / "m.weights.h5", "--describe").data
    assert described["network"]["width"] == 8


def test_an_anonymous_order_is_refused(tmp_path: Path) -> None:
    """Names that are not Keras's own say nothing about order unless the file lists it."""
    layers = keras_files.renamed(layers_of(network()), "mine")
    numbered(tmp_path / "n.h5", layers)
    with pytest.raises(ArtifactError, match="order of layers of one shape is not known") as caught:
        latup_of(read_keras(tmp_path / "n.h5"))
    assert "mine_" in caught.value.message
    assert "(3, 3, 3, " in caught.value.message
    legacy(tmp_path / "l.h5", layers)
    found, _ = latup_of(read_keras(tmp_path / "l.h5"))
    torch.testing.assert_close(found.decoder1.conv1[0].weight, network().decoder1.conv1[0].weight)


def test_another_network_is_refused_by_layer_and_shape(tmp_path: Path) -> None:
    layers = layers_of(network())
    numbered(tmp_path / "fewer.h5", layers[:-1])
    with pytest.raises(ArtifactError, match="17 convolution layers"):
        latup_of(read_keras(tmp_path / "fewer.h5"))
    place = next(i for i, (name, _) in enumerate(layers) if name == "conv3d_8")
    wide = [(weight, np.repeat(array, 2, axis=0) if array.ndim > 1 else array) for weight, array in layers[place][1]]
    numbered(tmp_path / "other.h5", [*layers[:place], (layers[place][0], wide), *layers[place + 1 :]])
    with pytest.raises(ArtifactError, match=r"conv3d_8 \(4, 2, 2, 32, 32\)"):
        latup_of(read_keras(tmp_path / "other.h5"))


def test_what_lies_elsewhere_or_is_no_number_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4096))
    for name, change in {
        "external": lambda group: group.create_dataset("0", (4, 4), "f4", external=[(str(secret), 0, 64)]),
        "link": lambda group: group.__setitem__("0", h5py.ExternalLink(str(tmp_path / "n.h5"), "x")),
        "soft": lambda group: group.__setitem__("0", h5py.SoftLink("/layers")),
        "text": lambda group: group.create_dataset("0", data="import os", dtype=h5py.string_dtype()),
        "bomb": lambda group: group.create_dataset("0", (2**20, 2**14), "f4", chunks=(2**10, 2**10), compression="gzip"),
        "nan": lambda group: group.create_dataset("0", data=np.full((2, 2), np.nan, np.float32)),
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            change(file.create_group("layers/dense/vars"))
        with pytest.raises(ArtifactError):
            read_keras(tmp_path / f"{name}.h5")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_cut_file_is_refused(cli: Command, tmp_path: Path, name: str) -> None:
    whole = LAYOUTS[name](tmp_path / name, layers_of(network())).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    before = tree(tmp_path)
    done = cli("import", tmp_path / name, "--out", tmp_path / "a", "--overwrite")
    assert done.code == 2
    assert tree(tmp_path) == before


def test_code_in_a_keras_file_is_not_read(tmp_path: Path) -> None:
    """A Lambda layer holds marshalled code in the configuration; only the arrays are opened."""
    config = json.dumps({"class_name": "Lambda", "config": {"function": {"code": "4wEAAAAAAAAA", "class_name": "__lambda__"}}})
    keras_files.archive(tmp_path / "l.keras", layers_of(network()), config)
    found, _ = latup_of(read_keras(tmp_path / "l.keras"))
    torch.testing.assert_close(found.output.bias, network().output.bias)
