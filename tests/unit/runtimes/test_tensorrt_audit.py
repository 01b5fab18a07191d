"""The audit of a TensorRT engine, on JSON made by hand in the form NVIDIA documents. No TensorRT ran for any of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_latup.errors import ArtifactError
from edge_latup.runtimes.audit import Audit, sentence
from edge_latup.runtimes.matching import Declared
from edge_latup.runtimes.onnx_audit import declared_layers
from edge_latup.runtimes.tensorrt_audit import audit_engine

INT8, FP16 = "Thirty-two wide channel vectorized row major Int8 format", "Channel major FP16 format where channel % 8 == 0"
FP32 = "Row major linear FP32"
TACTIC = "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32_tilesize192x64x64"


def tensor(name: str, form: str, *, split: bool) -> dict[str, Any]:
    """TensorRT 11 splits what TensorRT 10 says in one string."""
    kind = next(word for word in ("Int8", "FP16", "FP32") if word in form)
    told = {"Datatype": {"FP16": "Half", "FP32": "Float"}.get(kind, kind), "Format": form} if split else {"Format/Datatype": form}
    return {"Name": name, "Location": "Device", "Dimensions": [1, 32, 64, 64, 64], **told}


def layer(name: str, kind: str, read: str, weights: str | None, onnx: str = "", *, split: bool = False, **changes: Any) -> dict[str, Any]:
    """One entry of "Layers", as `ProfilingVerbosity.DETAILED` gives it."""
    made: dict[str, Any] = {
        "Name": name, "LayerType": kind, "Inputs": [tensor("in", read, split=split)], "Outputs": [tensor("out", read, split=split)],
        "TacticName": TACTIC, "TacticValue": "0x11bde0e1d9f2f35d", "StreamId": 0, "Metadata": onnx,
    }  # fmt: skip
    return made | ({"ParameterType": "Convolution", "Weights": {"Type": weights, "Count": 27648}} if weights else {}) | changes


def onnx_layer(*names: str) -> str:
    """Fused nodes are separated by a control character."""
    return "\x1f".join(f"[ONNX Layer: {name}]" for name in names)


def convolution(name: str, macs: int = 100, **changes: Any) -> Declared:
    fields: dict[str, Any] = {"name": name, "node": name, "operation": "Conv", "kind": "convolution", "precision": "int8", "macs": macs}
    return Declared(**(fields | changes))


def audit_of(layers: list[Any], *declared: Declared, **options: Any) -> Audit:
    return audit_engine(json.dumps({"Layers": layers, "Bindings": ["x", "y"]}), declared, (1, 3, 64, 64, 64), **options)


@pytest.mark.parametrize("split", [False, True], ids=["TensorRT 10", "TensorRT 11"])
def test_precision_kernel_and_layer_are_read(split: bool) -> None:
    layers = [
        layer("QuantizeLinear_2", "Reformat", FP32, None, onnx_layer("enc.conv_q"), split=split, Origin="QDQ"),
        layer("w + enc.conv + relu", "CaskConvolution", INT8, "Int8", onnx_layer("enc.w_q", "enc.conv", "relu"), split=split),
        layer("Reformatting CopyNode for Input Tensor 0 to up", "Reformat", INT8, None, onnx_layer("up"), split=split),
        layer("up", "CaskDeconvolutionV2", FP16, "Half", onnx_layer("up"), split=split, TacticName="sm80_xmma_dgrad_f16f16_f16f32"),
    ]
    made = audit_of(layers, convolution("enc.conv", 300), convolution("up", kind="transposed convolution"))
    assert [(own.declared, own.executed, own.kernel) for own in made.layers] == [
        ("int8", "int8", TACTIC), ("int8", "fp16", "sm80_xmma_dgrad_f16f16_f16f32"),
    ]  # fmt: skip
    assert made.runtime == "tensorrt"
    assert sentence(made.summary) == "declared INT8 100.0 % of MACs, executed INT8 75.0 %; 1 layer declared int8 ran in fp16: up"


@pytest.mark.parametrize(
    ("read", "weights", "tactic", "executed"),
    [
        (INT8, "Int8", TACTIC, "int8"),
        (INT8, "Float", "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32", "fp32"),
        (INT8, "Float", "sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32", "tf32"),
        (FP16, "Int8", "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16", "fp16"),
        ("N/A due to dynamic shapes FP16", "Half", "", "fp16"),
        (FP32, "Float", "", "fp32"),
    ],
)
def test_int8_takes_both_operands(read: str, weights: str, tactic: str, executed: str) -> None:
    made = audit_of([layer("c", "CaskConvolution", read, weights, onnx_layer("c"), TacticName=tactic)], convolution("c"))
    assert made.layers[0].executed == executed
    assert made.layers[0].kernel == (tactic or "CaskConvolution")


def test_other_names_of_layers_are_known() -> None:
    """Convolution and pooling in one, with weights under a name of their own; "correlation"; a matrix product without weights."""
    fused = layer("c1", "ConvActPool", INT8, None, onnx_layer("c1"), ConvWeights={"Type": "Int8", "Count": 9408})
    layers = [fused, layer("c2", "correlation", INT8, "Int8"), layer("m", "gemm", FP16, None)]
    made = audit_of(layers, convolution("c1"), convolution("c2"), convolution("m", kind="dense", precision="fp16"))
    assert [own.executed for own in made.layers] == ["int8", "int8", "fp16"]
    assert made.summary.mismatches == ()


def test_what_vanished_into_a_foreign_node_is_not_called_executed() -> None:
    layers = [layer("a", "CaskConvolution", INT8, "Int8", onnx_layer("a")), layer("{ForeignNode[b...c]}", "Myelin", FP32, None)]
    made = audit_of(layers, convolution("a"), convolution("b"))
    assert [own.executed for own in made.layers] == ["int8", None]
    assert made.summary.executed_int8 == 0.5


def test_times_of_a_profiler_are_shared_out() -> None:
    layers = [layer("a", "CaskConvolution", INT8, "Int8"), layer("norm", "PluginV3", FP32, None)]
    made = audit_of(layers, convolution("a"), milliseconds={"a": 3.0, "norm": 1.0})
    assert (made.layers[0].time_share, made.other_time_share, made.milliseconds) == (0.75, 0.25, 4.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not JSON", "not the JSON"), ("[]", "not the JSON"), ('{"Bindings": []}', "not the JSON"), ('{"Layers": []}', "no types"),
        (json.dumps({"Layers": ["w + conv"]}), "names of layers and no types"),
    ],
)  # fmt: skip
def test_an_engine_without_details_is_refused_with_a_way_to_get_them(text: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        audit_engine(text, [convolution("c")], (1,))
    assert "profilingVerbosity=detailed" in caught.value.hint


def test_declared_layers_come_from_the_onnx_file_the_engine_was_built_from(tmp_path: Path) -> None:
    import onnx
    from onnx import helper
    from tiny_models import graph_of
    from unfused import quantize_inputs

    model = graph_of(helper.make_node("Conv", ["x", "w"], ["y"], name="enc"), np.ones((4, 3, 1, 1, 1), np.float32), (1, 3, 8, 8, 8), 5)
    quantize_inputs(model)
    onnx.save(model, tmp_path / "model.onnx")
    declared = declared_layers(tmp_path / "model.onnx", (1, 3, 8, 8, 8), "fp16")
    assert [(own.name, own.precision, own.macs) for own in declared] == [("enc", "int8", 12 * 8**3)]
    assert audit_of([layer("enc", "CaskConvolution", INT8, "Int8", onnx_layer("enc"))], *declared).summary.executed_int8 == 1
