"""Float files for TensorRT: FP16 in the graph's types with norms in FP32, and FP32 as it is. Computed by ONNX Runtime, not by TensorRT."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto
from tiny_models import Compress

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.errors import InputError
from edge_latup.quantize.methods import choose
from edge_latup.runtimes.onnx_audit import declared_layers
from edge_latup.runtimes.onnx_facts import facts_of


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    return known | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def test_fp16_is_in_the_graph_and_norms_are_not(compressed: Compress) -> None:
    made = open_artifact(compressed("typed-fp16", "tensorrt").folder)
    model = onnx.load(made.model_path)
    types = types_of(model)
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    norms = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    assert convolutions
    assert norms
    assert {types[name] for node in convolutions for name in node.input} == {TensorProto.FLOAT16}
    assert {types[name] for node in norms for name in node.input} == {TensorProto.FLOAT}
    assert {types[value.name] for value in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
    assert "float16" in facts_of(made.model_path).types


def test_the_manifest_says_what_it_is_for_and_how_far_the_types_move_it(compressed: Compress, tiny_fp32: Artifact) -> None:
    manifest = compressed("typed-fp16", "tensorrt").manifest
    assert (manifest.runtimes, manifest.precision, manifest.float_precision, manifest.storage) == (("tensorrt",), "fp16", "fp16", "float16")
    assert "not executed in TensorRT" in manifest.parity[-1].candidate
    assert 0 < manifest.parity[-1].relative_l2 < 0.02
    assert manifest.model_size < 0.62 * tiny_fp32.manifest.model_size


def test_what_each_layer_is_asked_for_is_read_off_the_types(compressed: Compress) -> None:
    """What stays FP32 by design is not blamed for it when an engine is read back."""
    made = compressed("typed-fp16", "tensorrt")
    declared = {layer.operation: layer.precision for layer in declared_layers(made.model_path, made.manifest.input_shape)}
    assert declared["Conv"] == "fp16"
    assert {precision for operation, precision in declared.items() if operation in ("Gemm", "MatMul")} == {"fp32"}


def test_fp32_is_the_same_file_for_another_runtime(compressed: Compress, tiny_fp32: Artifact) -> None:
    made = compressed("typed-fp32", "tensorrt")
    assert onnx.load(made.model_path) == onnx.load(tiny_fp32.model_path)
    assert (made.manifest.runtimes, made.manifest.precision, made.manifest.parity[-1].max_abs) == (("tensorrt",), "fp32", 0)


@pytest.mark.parametrize("method", ["typed-fp32", "typed-fp16"])
def test_it_is_for_tensorrt_only(method: str) -> None:
    with pytest.raises(InputError, match="makes nothing for openvino") as caught:
        choose(method, "openvino")
    assert "tensorrt" in caught.value.hint
