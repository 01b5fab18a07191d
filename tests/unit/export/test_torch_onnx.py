"""An export is one file that computes what the checkpoint computes and tells nothing of where it was made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support import tree
from tiny_network import SEEN, SIDE, random_network, tiny_spec
from tiny_networks import write_checkpoint_of

from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact, sha256_of
from edge_latup.export import torch_onnx
from edge_latup.export.torch_onnx import OLDEST_OPSET, OPSET, export_onnx
from edge_latup.networks.build import WEIGHTS_NAME
from edge_latup.runtimes import open_session
from edge_latup.segmentation.parity import EXPORT_TOLERANCE, RUNTIME_TOLERANCE

DECODERS = ["decoder3", "decoder2", "decoder1"]


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
        assert entry.input_shape == (1, 3, SIDE, SIDE, SIDE)
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
        assert names_of(graph, "InstanceNormalization") == [f"{stage}.norm" for stage in ("encoder2", "encoder3", *DECODERS)]
        assert not [name for name in names if name.startswith("node_")]


def test_even_kernels_are_padded_after(static: Artifact) -> None:
    pads = {node.name: list(attribute.ints) for node in graph_of(static).node for attribute in node.attribute if attribute.name == "pads"}
    assert [pads[f"{stage}.up_conv.conv"] for stage in DECODERS] == [[0, 0, 0, 1, 1, 1]] * 3


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


def test_the_reference_artifact_is_the_checkpoint_with_a_manifest(reference: Artifact, checkpoint: Path) -> None:
    assert set(tree(reference.folder)) == {WEIGHTS_NAME, MANIFEST_NAME}
    assert reference.model_path.read_bytes() == (checkpoint / WEIGHTS_NAME).read_bytes()
    manifest = json.loads((reference.folder / MANIFEST_NAME).read_text())
    assert (manifest["format"], manifest["runtimes"], manifest["input_shape"]) == ("checkpoint", ["pytorch"], [1, 3, SIDE, SIDE, SIDE])
    assert reference.manifest.trained_on == SEEN
    image = image_of(SIDE, SIDE, SIDE)
    with open_session(reference) as session:
        np.testing.assert_array_equal(session.infer(image), run_torch(image))


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_older_opset_computes_the_same(checkpoint: Path, static: Artifact, tmp_path: Path, dynamic: bool) -> None:
    """17 is the newest that TensorRT 8.5 reads; the exporter itself writes 18 or newer."""
    old = export_onnx(checkpoint, tmp_path / "old", opset=OLDEST_OPSET, dynamic=dynamic)
    model = onnx.load(old.model_path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert old.manifest.recipe[0].parameters["opset"] == 17
    image = image_of(SIDE, SIDE, SIDE)
    np.testing.assert_allclose(run_onnx(old, image), run_torch(image), atol=1e-5)
    assert names_of(model.graph, "Conv") == names_of(graph_of(static), "Conv")


@pytest.mark.parametrize("name", ["attention-resnet-unet R2", "res-unet gate", "res-unet cbam"])
def test_every_kind_of_network_has_an_older_opset(tmp_path: Path, name: str) -> None:
    old = export_onnx(write_checkpoint_of(name, tmp_path / "checkpoint"), tmp_path / "old", opset=OLDEST_OPSET)
    assert onnx.load(old.model_path).opset_import[0].version == 17
    assert {parity.candidate for parity in old.manifest.parity} == {"onnxruntime fp32", "openvino fp32"}
