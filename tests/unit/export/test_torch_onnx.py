"""An export is one file that computes what the checkpoint computes, or there is no export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from support import tree
from tiny_network import SEEN, SIDE, random_network, tiny_spec, write_checkpoint

from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact, sha256_of
from edge_latup.errors import ArtifactError, SpecError
from edge_latup.export import torch_onnx
from edge_latup.export.torch_onnx import OPSET, export_onnx, export_reference
from edge_latup.networks.build import WEIGHTS_NAME
from edge_latup.runtimes import open_session
from edge_latup.segmentation.parity import EXPORT_TOLERANCE, RUNTIME_TOLERANCE

Write = Callable[..., None]


def graph_of(artifact: Artifact) -> onnx.GraphProto:
    return onnx.load(artifact.model_path).graph


def names_of(graph: onnx.GraphProto, kind: str) -> list[str]:
    return [node.name for node in graph.node if node.op_type == kind]


def run_onnx(artifact: Artifact, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(artifact.model_path), providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(["probabilities"], {"image": image})[0]
    return output


def run_torch(image: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        output: np.ndarray = random_network()(torch.from_numpy(image)).numpy()
    return output


def image_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random((1, 3, *shape), dtype=np.float32)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_the_artifact_is_one_model_file_and_its_manifest(kind: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(kind)
    assert set(tree(artifact.folder)) == {"model.onnx", MANIFEST_NAME}
    model = onnx.load(artifact.model_path, load_external_data=False)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert OPSET <= 20
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert open_artifact(artifact.folder) == artifact


def test_the_manifest_says_what_was_exported(static: Artifact, checkpoint: Path) -> None:
    manifest = static.manifest
    assert (manifest.name, manifest.format, manifest.precision, manifest.storage) == ("static", "onnx", "fp32", "float32")
    assert manifest.spec == tiny_spec()
    assert manifest.input_shape == (1, 3, SIDE, SIDE, SIDE)
    assert manifest.trained_on == SEEN
    (step,) = manifest.recipe
    assert step.operation == "export"
    assert step.parameters == {
        "checkpoint_sha256": sha256_of(checkpoint / WEIGHTS_NAME), "opset": OPSET, "dynamic": False, "size": [SIDE, SIDE, SIDE],
    }  # fmt: skip
    assert step.versions["torch"].startswith("2.")


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_parity_is_recorded_with_its_bounds_for_both_runtimes(kind: str, request: pytest.FixtureRequest) -> None:
    parity = request.getfixturevalue(kind).manifest.parity
    assert [entry.candidate for entry in parity] == ["onnxruntime fp32", "openvino fp32"]
    assert [entry.tolerance for entry in parity] == [EXPORT_TOLERANCE, RUNTIME_TOLERANCE]
    for entry in parity:
        assert entry.reference == "pytorch fp32"
        assert entry.input_shape == (1, 4, SIDE, SIDE, SIDE)
        assert 0 < entry.max_abs <= entry.tolerance["max_abs"]
        assert 0 < entry.relative_l2 <= entry.tolerance["relative_l2"]
        assert entry.argmax_agreement >= entry.tolerance["argmax_agreement"]


def test_the_file_computes_what_the_network_computes(static: Artifact) -> None:
    image = image_of(SIDE, SIDE, SIDE)
    np.testing.assert_allclose(run_onnx(static, image), run_torch(image), atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 16, 16), (24, 16, 32), (32, 24, 16)])
def test_a_free_size_runs_at_any_multiple_and_computes_the_same(dynamic: Artifact, shape: tuple[int, int, int]) -> None:
    image = image_of(*shape)
    np.testing.assert_allclose(run_onnx(dynamic, image), run_torch(image), atol=1e-4)
    with open_session(dynamic, "openvino") as session:
        np.testing.assert_allclose(session.infer(image), run_torch(image), atol=1e-3)


def test_a_free_size_is_said_in_the_manifest(dynamic: Artifact) -> None:
    assert dynamic.manifest.input_shape == (1, 3, -1, -1, -1)
    assert dynamic.manifest.recipe[0].parameters["dynamic"] is True


def test_layers_bear_the_names_of_the_modules(static: Artifact, dynamic: Artifact) -> None:
    for artifact in (static, dynamic):
        graph = graph_of(artifact)
        names = [node.name for node in graph.node]
        assert len(set(names)) == len(names)
        branches = [f"encoder1.branches.{k}" for k in range(3)]
        encoders = [f"encoder{k}.conv{n}" for k in (2, 3) for n in (1, 2)]
        decoders = [f"decoder{k}.{conv}" for k in (3, 2, 1) for conv in ("up_conv.conv", "conv1", "conv2")]
        assert names_of(graph, "Conv") == ["encoder1.embedding", *branches, *encoders, *decoders, "output"]
        assert names_of(graph, "InstanceNormalization") == [f"{stage}.norm" for stage in ("encoder2", "encoder3", *decoders_of())]
        assert not [name for name in names if name.startswith("node_")]


def decoders_of() -> list[str]:
    return ["decoder3", "decoder2", "decoder1"]


def test_even_kernels_are_padded_after(static: Artifact) -> None:
    pads = {node.name: list(attribute.ints) for node in graph_of(static).node for attribute in node.attribute if attribute.name == "pads"}
    assert [pads[f"{stage}.up_conv.conv"] for stage in decoders_of()] == [[0, 0, 0, 1, 1, 1]] * 3


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_nothing_in_the_file_tells_where_it_was_made(kind: str, request: pytest.FixtureRequest, room: Path) -> None:
    artifact: Artifact = request.getfixturevalue(kind)
    content = artifact.model_path.read_bytes()
    for trace in (
        str(room),
        str(Path.home()),
        str(Path(torch_onnx.__file__).parent),
        ".py",
        "site-packages",
        "edge_latup",
        "torch.nn",
        "forward",
    ):
        assert trace.encode() not in content, trace
    model = onnx.load(artifact.model_path)
    parts = [
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ]
    assert not any(part.metadata_props or part.doc_string for part in parts)


def test_constants_have_no_second_shape_that_could_come_to_disagree(static: Artifact) -> None:
    graph = graph_of(static)
    assert not {value.name for value in graph.value_info} & {tensor.name for tensor in graph.initializer}


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
    def copy(network: object, path: Path, *_: object, **__: object) -> None:
        path.write_bytes(static.model_path.read_bytes())

    monkeypatch.setattr(torch_onnx, "_write_onnx", tampering(change)(copy))
    with pytest.raises(ArtifactError) as caught:
        export_onnx(checkpoint, tmp_path / "out")
    assert message in caught.value.message
    assert caught.value.hint
    assert not tree(tmp_path)


def test_a_wrong_graph_does_not_replace_a_right_one(
    checkpoint: Path, static: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(network: object, path: Path, *_: object, **__: object) -> None:
        path.write_bytes(static.model_path.read_bytes())

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


def test_the_reference_artifact_is_the_checkpoint_with_a_manifest(reference: Artifact, checkpoint: Path) -> None:
    assert set(tree(reference.folder)) == {WEIGHTS_NAME, MANIFEST_NAME}
    assert reference.model_path.read_bytes() == (checkpoint / WEIGHTS_NAME).read_bytes()
    manifest = json.loads((reference.folder / MANIFEST_NAME).read_text())
    assert (manifest["format"], manifest["runtimes"], manifest["input_shape"]) == ("checkpoint", ["pytorch"], [1, 3, SIDE, SIDE, SIDE])
    assert reference.manifest.trained_on == SEEN
    image = image_of(SIDE, SIDE, SIDE)
    with open_session(reference) as session:
        np.testing.assert_array_equal(session.infer(image), run_torch(image))


def test_a_damaged_checkpoint_makes_no_reference(tmp_path: Path) -> None:
    damaged = write_checkpoint(tmp_path / "checkpoint")
    (damaged / WEIGHTS_NAME).write_bytes(b"\0" * 100)
    with pytest.raises(SpecError, match="is not a readable safetensors file"):
        export_reference(damaged, tmp_path / "out")
    assert not (tmp_path / "out").exists()
