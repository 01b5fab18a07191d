"""Each rule is found where it is broken, at the node that breaks it, and nowhere else; files made for other runtimes are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import tree
from tiny_models import Compress
from unet_graph import image_of, node_of, outputs_of, unet_graph

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError
from edge_latup.quantize import tensorrt_int8
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.explicit_qdq import insert_qdq, plan_int8
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.tensorrt_rules import RULES, check_file, check_model, errors_of, refuse_errors


def good(width: int = 32, *, opset: int = 20, scales: str = "tensor") -> Any:
    model = unet_graph(width, opset=opset)
    plan = plan_int8(model.graph)
    values = outputs_of(model, image_of(), list(plan.tensors))
    insert_qdq(model, plan, {name: (float(v.min()), float(v.max())) for name, v in values.items()}, transposed_scales=scales)
    return model


def store(model: Any, name: str, values: np.ndarray) -> None:
    """Put other values in the place of a stored tensor."""
    next(tensor for tensor in model.graph.initializer if tensor.name == name).CopyFrom(numpy_helper.from_array(values, name))


def stored(model: Any, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def bypass(model: Any, tensor: str) -> None:
    """Every reader of a dequantized tensor reads the float one, and the pair goes."""
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == f"{tensor}.dequantized":
                node.input[position] = tensor
    for name in (f"{tensor}.quantize", f"{tensor}.dequantize"):
        model.graph.node.remove(node_of(model, name))


def _shifted(model: Any) -> None:
    store(model, "pooled.zero_point", np.array(3, np.int8))


def _uint8(model: Any) -> None:
    store(model, "pooled.zero_point", np.array(0, np.uint8))


def _unsaid(model: Any) -> None:
    del node_of(model, "pooled.quantize").input[2]


def _negative_scale(model: Any) -> None:
    store(model, "pooled.scale", np.array(-0.1, np.float32))


def _computed_scale(model: Any) -> None:
    model.graph.node.insert(0, helper.make_node("Abs", ["pooled.scale"], ["pooled.abs"]))
    node_of(model, "pooled.quantize").input[1] = "pooled.abs"


def _half_scale(model: Any) -> None:
    model.opset_import[0].version = 17
    store(model, "pooled.scale", stored(model, "pooled.scale").astype(np.float16))


def _wrong_axis(model: Any) -> None:
    node_of(model, "middle.w.axis0.dequantize").attribute[0].i = 1


def _one_scale(model: Any) -> None:
    store(model, "middle.w.axis0.scale", np.array(0.01, np.float32))
    store(model, "middle.w.axis0.zero_point", np.array(0, np.int8))


def _per_channel_activation(model: Any) -> None:
    store(model, "pooled.scale", np.full(32, 0.1, np.float32))
    store(model, "pooled.zero_point", np.zeros(32, np.int8))


def _float_input(model: Any) -> None:
    bypass(model, "pooled")


def _quantized_bias(model: Any) -> None:
    small = [
        numpy_helper.from_array(np.zeros(32, np.int32), "bias.int32"), numpy_helper.from_array(np.array(0.01, np.float32), "bias.scale"),
    ]  # fmt: skip
    model.graph.initializer.extend(small)
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["bias.int32", "bias.scale"], ["bias"], name="bias.dequantize"))
    node_of(model, "middle").input[2] = "bias"


def _bare_quantize(model: Any) -> None:
    model.graph.output.append(helper.make_tensor_value_info("pooled.int8", TensorProto.INT8, None))


def _bare_dequantize(model: Any) -> None:
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.INT8))
    model.graph.node.insert(1, helper.make_node("DequantizeLinear", ["cast", "pooled.scale"], ["d"], name="lone"))


def _no_output_pair(model: Any) -> None:
    bypass(model, "up.act.y")


def _quantized_softmax(model: Any) -> None:
    scale = ["pooled.scale", "pooled.zero_point"]
    at = len(model.graph.node) - 1
    model.graph.node.insert(at, helper.make_node("DequantizeLinear", ["s8", *scale], ["s"], name="scores.dequantize"))
    model.graph.node.insert(at, helper.make_node("QuantizeLinear", ["scores", *scale], ["s8"], name="scores.quantize"))
    node_of(model, "softmax").input[0] = "s"


def _quantized_norm(model: Any) -> None:
    node_of(model, "norm").input[0] = "pooled.dequantized"


def _two_scales(model: Any) -> None:
    store(model, "skip.scale", stored(model, "skip.scale") * 2)


def _half_a_concat(model: Any) -> None:
    bypass(model, "skip")


def _resized(model: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones(5, np.float32), "scales"))
    model.graph.node.insert(3, helper.make_node("Resize", ["pooled", "", "scales"], ["resized"], name="resize", mode="nearest"))
    node_of(model, "pooled.quantize").input[0] = "resized"


def _grouped(model: Any) -> None:
    store(model, "middle.w.axis0.int8", stored(model, "middle.w.axis0.int8")[:, :16].copy())
    node_of(model, "middle").attribute.append(helper.make_attribute("group", 2))


def _new_opset(model: Any) -> None:
    model.opset_import[0].version = 21


def _old_opset(model: Any) -> None:
    model.opset_import[0].version = 12


def _foreign_domain(model: Any) -> None:
    model.graph.node.append(helper.make_node("FakeQuantize", ["skip"], ["f"], name="fq", domain="org.openvinotoolkit"))


def _integer_convolution(model: Any) -> None:
    model.graph.node.append(helper.make_node("ConvInteger", ["pooled.int8", "up.w.tensor.int8"], ["i"], name="integer"))


BREAKS: dict[str, tuple[Callable[[Any], None], str, str, str]] = {
    "shifted": (_shifted, "zero-point", "pooled.quantize", "zero point 3"),
    "uint8": (_uint8, "type", "pooled.quantize", "quantized to uint8"),
    "no zero point": (_unsaid, "type", "pooled.quantize", "without a zero point"),
    "negative scale": (_negative_scale, "scale", "pooled.quantize", "not positive"),
    "computed scale": (_computed_scale, "scale", "pooled.quantize", "computed"),
    "half scale in opset 17": (_half_scale, "scale", "pooled.quantize", "need opset 19, this is 17"),
    "wrong axis": (_wrong_axis, "weight-axis", "middle", "32 scales along axis 1; the output channels are axis 0"),
    "one scale": (_one_scale, "weight-per-tensor", "middle", "one scale for the whole weight"),
    "activation per channel": (_per_channel_activation, "activation-per-channel", "pooled.quantize", "32 scales for one activation"),
    "float input": (_float_input, "half-quantized", "middle", "its weight is quantized, its other side is not"),
    "quantized bias": (_quantized_bias, "bias", "middle", "its bias is quantized"),
    "bias in int32": (_quantized_bias, "type", "bias.dequantize", "quantized to int32"),
    "bare Q": (_bare_quantize, "dangling", "pooled.quantize", "does not go to DequantizeLinear alone"),
    "bare DQ": (_bare_dequantize, "dangling", "lone", "what no QuantizeLinear made"),
    "no Q/DQ behind a transposed convolution": (_no_output_pair, "transposed-output", "up", "no Q/DQ on its output"),
    "quantized softmax": (_quantized_softmax, "float-operation", "softmax", "Softmax reads the quantized s"),
    "quantized norm": (_quantized_norm, "float-operation", "norm", "InstanceNormalization reads"),
    "two scales": (_two_scales, "concat-scales", "concat", "2 different scales"),
    "half a concat": (_half_a_concat, "concat-scales", "concat", "1 of its 2 inputs"),
    "resize": (_resized, "resize", "middle", "it reads resize"),
    "groups": (_grouped, "grouped", "middle", "2 groups"),
    "opset 21": (_new_opset, "opset", "the graph", "opset 21, expected 13 to 20"),
    "opset 12": (_old_opset, "opset", "the graph", "opset 12"),
    "OpenVINO's FakeQuantize": (_foreign_domain, "foreign-operation", "fq", "org.openvinotoolkit::FakeQuantize"),
    "ConvInteger": (_integer_convolution, "foreign-operation", "integer", "ConvInteger is not supported"),
}
ELSEWHERE = {"not-quantized", "transposed-axis-unsettled", "alignment", "dla"}
"""Rules with a test of their own below."""


def test_what_edge_latup_writes_keeps_every_rule() -> None:
    assert check_model(good()) == []


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_rule_is_found_where_it_is_broken(name: str) -> None:
    change, rule, node, message = BREAKS[name]
    model = good()
    change(model)
    found = [finding for finding in check_model(model) if (finding.rule, finding.node) == (rule, node)]
    assert len(found) == 1, check_model(model)
    assert message in found[0].message
    assert (found[0].severity, found[0].remedy, found[0].source) == (RULES[rule].severity, RULES[rule].remedy, RULES[rule].source)


def test_every_rule_has_a_case_that_breaks_it() -> None:
    assert {rule for _, rule, _, _ in BREAKS.values()} | ELSEWHERE == set(RULES)


def test_a_float_file_is_told_apart() -> None:
    assert [(finding.rule, finding.severity) for finding in check_model(unet_graph())] == [("not-quantized", "error")]


def test_scales_along_the_output_channels_of_a_transposed_convolution_are_warned_of() -> None:
    """NVIDIA's sources disagree: an error would be wrong for some version, silence for another."""
    found = check_model(good(scales="channel"))
    assert [(finding.rule, finding.severity, finding.node) for finding in found] == [("transposed-axis-unsettled", "warning", "up")]
    assert "#1694" in found[0].source


@pytest.mark.parametrize(
    ("width", "told", "cost"),
    [(8, "a multiple of 8", "16"), (16, "a multiple of 16", "4"), (24, "a multiple of 8", "1.78"), (12, "no multiple of 8", "7.11")],
)  # fmt: skip
def test_padding_is_told_for_each_layer_with_its_price(width: int, told: str, cost: str) -> None:
    findings = {finding.node: finding for finding in check_model(good(width)) if finding.rule == "alignment"}
    assert set(findings) == {"middle", "up", "last"}
    assert findings["middle"].message == f"{width} channels ({told}): padding to 32 multiplies its work by {cost}"
    assert not errors_of(list(findings.values()))


def test_a_deep_learning_accelerator_is_refused_for_three_dimensions_only() -> None:
    model = good()
    found = [finding for finding in check_model(model, dla=True) if finding.rule == "dla"]
    assert {finding.node for finding in found} == {"first", "middle", "up", "last", "output"}
    assert all(finding.severity == "error" for finding in found)


def test_a_file_made_for_onnx_runtime_is_refused(compressed: Compress) -> None:
    """Its activations are asymmetric uint8, and its biases int32, as suits that runtime."""
    findings = check_file(compressed("int8", "onnxruntime").model_path)
    assert {"zero-point", "type"} <= {finding.rule for finding in errors_of(findings)}
    assert any("uint8" in finding.message for finding in findings)
    with pytest.raises(ArtifactError, match="breaks TensorRT's rule 'zero-point'"):
        refuse_errors(findings, "the file")


@pytest.mark.parametrize(("preset", "broken"), [("mixed", {"zero-point"}), ("performance", {"transposed-output"})])
def test_a_file_that_nncf_made_is_refused(preset: str, broken: set[str]) -> None:
    """The preset of the OpenVINO recipe has asymmetric activations; with the symmetric one, Q/DQ lies on inputs only."""
    from edge_latup.runtimes.openvino import without_telemetry

    with without_telemetry():
        import nncf

        images = nncf.Dataset([{"image": image_of(seed=seed)} for seed in (0, 1)])
        made = nncf.quantize(unet_graph(8), images, subset_size=2, preset=nncf.QuantizationPreset(preset))
    assert {finding.rule for finding in errors_of(check_model(made))} >= broken


def test_int8_that_goes_through_a_pooling_is_seen() -> None:
    model = good()
    bypass(model, "pooled")
    node_of(model, "pool").input[0] = "skip.dequantized"
    assert check_model(model) == []


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x00\xff" * 100)
    for path in (tmp_path / "model.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(ArtifactError, match=f"{path} cannot be read as ONNX"):
            check_file(path)


def test_an_artifact_that_breaks_a_rule_is_never_written(
    tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def insert_shifted(model: Any, *arguments: Any, **options: Any) -> None:
        insert_qdq(model, *arguments, **options)
        store(model, "mul.zero_point", np.array(1, np.int8))

    monkeypatch.setattr(tensorrt_int8, "insert_qdq", insert_shifted)
    with pytest.raises(ArtifactError, match="the quantized graph breaks TensorRT's rule 'zero-point' at mul"):
        quantize(tiny_fp32, "int8", tmp_path / "out", runtime="tensorrt", calibration=tiny_calibration)
    assert not tree(tmp_path)
