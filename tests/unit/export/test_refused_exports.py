"""What does not compute what its checkpoint computes, or cannot be written where it should, is no export and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support import tree
from tiny_network import write_checkpoint

from edge_latup.artifact import MANIFEST_NAME, Artifact
from edge_latup.errors import ArtifactError, SpecError
from edge_latup.export import torch_onnx
from edge_latup.export.torch_onnx import export_onnx, export_reference
from edge_latup.networks.build import WEIGHTS_NAME

Write = Callable[..., None]


def copies(artifact: Artifact) -> Write:
    """An exporter that is quick, because it has done its work before."""

    def write(network: object, path: Path, *_: object, **__: object) -> None:
        path.write_bytes(artifact.model_path.read_bytes())

    return write


def tampering(change: Callable[[onnx.ModelProto], None]) -> Callable[[Write], Write]:
    """An exporter whose file is changed after it was written."""

    def wrap(write: Write) -> Write:
        def wrong(network: object, path: Path, *arguments: object, **options: object) -> None:
            write(network, path, *arguments, **options)
            model = onnx.load(path)
            change(model)
            onnx.save(model, path)

        return wrong

    return wrap


def scale_a_weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "decoder1.conv2.0.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))


def pad_before(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.name == "decoder1.up_conv.conv")
    pads = next(attribute for attribute in node.attribute if attribute.name == "pads")
    pads.ints[:] = [1, 1, 1, 0, 0, 0]


def put_nan(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "output.bias")
    tensor.CopyFrom(numpy_helper.from_array(np.full(4, np.nan, np.float32), tensor.name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scale_a_weight, "onnxruntime fp32 does not compute what pytorch fp32 computes: max_abs"),
        (pad_before, "onnxruntime fp32 does not compute what pytorch fp32 computes: max_abs"),
        (put_nan, "the candidate's output holds NaN or infinity"),
    ],
)
def test_a_wrong_graph_is_refused_and_leaves_nothing(
    checkpoint: Path,
    static: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[onnx.ModelProto], None],
    message: str,
) -> None:
    monkeypatch.setattr(torch_onnx, "_write_onnx", tampering(change)(copies(static)))
    with pytest.raises(ArtifactError) as caught:
        export_onnx(checkpoint, tmp_path / "out")
    assert message in caught.value.message
    assert caught.value.hint
    assert not tree(tmp_path)


def test_a_wrong_graph_does_not_replace_a_right_one(
    checkpoint: Path, static: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copies(static)
    monkeypatch.setattr(torch_onnx, "_write_onnx", copy)
    export_onnx(checkpoint, tmp_path / "out")
    before = tree(tmp_path)
    monkeypatch.setattr(torch_onnx, "_write_onnx", tampering(scale_a_weight)(copy))
    with pytest.raises(ArtifactError):
        export_onnx(checkpoint, tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == before
    monkeypatch.setattr(torch_onnx, "_write_onnx", copy)
    assert export_onnx(checkpoint, tmp_path / "out", overwrite=True).digest == static.digest
    assert set(tree(tmp_path)) == {"out", "out/model.onnx", f"out/{MANIFEST_NAME}"}


def test_an_exporter_that_fails_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(network: object, path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half a model")
        raise RuntimeError("exporter")

    monkeypatch.setattr(torch_onnx, "_write_onnx", fail)
    with pytest.raises(RuntimeError, match="exporter"):
        export_onnx(checkpoint, tmp_path / "out")
    assert not tree(tmp_path)


def never(*_: object, **__: object) -> None:
    pytest.fail("the network was exported although it was clear that it would be refused")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (12, 16, 16)}, "size (12, 16, 16): 12 is not a multiple of 8"),
        ({"size": (16, 16, 0)}, "0 is not a multiple of 8"),
        ({"size": (-8, 16, 16)}, "-8 is not a multiple of 8"),
        ({"size": (8, 16, 16), "dynamic": True}, "a free axis holds 16 to 512 voxels"),
        ({"size": (16, 16, 520), "dynamic": True}, "a free axis holds 16 to 512 voxels"),
    ],
)
def test_a_size_the_network_does_not_take_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(torch_onnx, "_write_onnx", never)
    with pytest.raises(ArtifactError) as caught:
        export_onnx(checkpoint, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert message in caught.value.message
    assert caught.value.hint
    assert not tree(tmp_path)


def test_an_existing_folder_is_refused_before_the_work_is_done(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_onnx, "_write_onnx", never)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    for overwrite, message in ((False, "out exists"), (True, "exists and is not an artifact, so it is not replaced")):
        with pytest.raises(ArtifactError, match=message):
            export_onnx(checkpoint, tmp_path / "out", overwrite=overwrite)
    assert tree(tmp_path) == before


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not a checkpoint"):
        export_onnx(tmp_path, tmp_path / "out")
    assert not tree(tmp_path)


def test_a_damaged_checkpoint_makes_no_reference(tmp_path: Path) -> None:
    damaged = write_checkpoint(tmp_path / "checkpoint")
    (damaged / WEIGHTS_NAME).write_bytes(b"\0" * 100)
    with pytest.raises(SpecError, match="is not a readable safetensors file"):
        export_reference(damaged, tmp_path / "out")
    assert not (tmp_path / "out").exists()
