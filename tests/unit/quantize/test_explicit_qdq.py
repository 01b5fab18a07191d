"""The explicitly quantized graph computes, layer by layer, what PyTorch computes from numbers rounded as the file says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tiny_models import graph_of
from unet_graph import constants_of, image_of, node_of, outputs_of, unet_graph

from edge_latup.errors import ArtifactError, InputError
from edge_latup.quantize.explicit_qdq import Plan, insert_qdq, plan_int8

TENSORS = ["skip", "pooled", "middle.y", "up.act.y", "normed", "both", "last.y"]


def ranges_of(model: Any, tensors: Any, images: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    seen = [outputs_of(model, image, list(tensors)) for image in images]
    return {name: (min(float(s[name].min()) for s in seen), max(float(s[name].max()) for s in seen)) for name in tensors}


def quantized(model: Any, **options: Any) -> tuple[Any, Plan]:
    """The model quantized with ranges of two images, and the plan."""
    plan = plan_int8(model.graph, min_channels=options.pop("min_channels", 8))
    ranges = ranges_of(
        model, plan.tensors, [image_of(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value, seed) for seed in (0, 1)]
    )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    insert_qdq(copy, plan, ranges, **options)
    onnx.checker.check_model(copy, full_check=True)
    return copy, plan


def rounded(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """To int8 and back, as numpy does it."""
    return (np.clip(np.rint(values / scale), -128, 127) * scale).astype(np.float32)


def weight_in_file(model: Any, name: str) -> np.ndarray:
    """A weight of the quantized file, put together by hand: its int8 values times its scales along the axis of the output channels."""
    stored = constants_of(model)
    key = next(key.removesuffix(".int8") for key in stored if key.startswith(f"{name}.") and key.endswith(".int8"))
    small, scale = stored[f"{key}.int8"], stored[f"{key}.scale"]
    assert small.dtype == np.int8
    axis = {"first": 0, "middle": 0, "last": 0, "up": 1}[name.split(".")[0]]
    return small.astype(np.float32) * (scale if scale.ndim == 0 else scale.reshape([-1 if a == axis else 1 for a in range(small.ndim)]))


CONVOLVE = {
    "middle": lambda x, w, b: torch.nn.functional.conv3d(x, w, b, padding=1),
    "last": lambda x, w, b: torch.nn.functional.conv3d(x, w, b, padding=1),
    "up": lambda x, w, b: torch.nn.functional.conv_transpose3d(x, w, b, stride=2),
}


@pytest.mark.parametrize("scales", ["tensor", "channel"])
@pytest.mark.parametrize("layer", CONVOLVE)
def test_each_layer_computes_what_pytorch_does_with_rounded_numbers(layer: str, scales: str) -> None:
    model, _ = quantized(unet_graph(), transposed_scales=scales)
    stored = constants_of(model)
    read = node_of(model, layer).input[0]
    # A concat joins tensors that were rounded before it; its own Q/DQ of the same scale changes nothing more.
    original = {"pooled.dequantized": "pooled", "middle.y.dequantized": "middle.y", "both.dequantized": "both"}[read]
    made = outputs_of(model, image_of(), [original, f"{layer}.y"])
    x = rounded(made[original], stored[f"{original}.scale"])
    expected = CONVOLVE[layer](
        torch.from_numpy(x), torch.from_numpy(weight_in_file(model, f"{layer}.w")), torch.tensor(stored[f"{layer}.b"])
    )
    np.testing.assert_allclose(made[f"{layer}.y"], expected.numpy(), rtol=1e-4, atol=1e-5)


def uneven(weight: np.ndarray, axis: int) -> np.ndarray:
    """The weight with channels of very different size along an axis."""
    sizes = np.logspace(-3, 0, weight.shape[axis]).astype(np.float32)
    return weight * sizes.reshape([-1 if a == axis else 1 for a in range(weight.ndim)])


@pytest.mark.parametrize(("operation", "axis"), [("Conv", 0), ("ConvTranspose", 1)])
def test_a_small_output_channel_beside_a_large_one_keeps_its_digits(operation: str, axis: int) -> None:
    """With scales along the wrong axis (NVIDIA/TensorRT#1694) the file loads, runs, and rounds small channels to nothing."""
    weight = uneven(np.random.default_rng(0).normal(size=(16, 16, 2, 2, 2)).astype(np.float32), axis)
    model = graph_of(helper.make_node(operation, ["x", "w"], ["y"], name="layer"), weight, (1, 16, 8, 8, 8), 5)
    image = image_of(16)
    expected = outputs_of(model, image, ["y"])["y"]
    right, _ = quantized(model, transposed_scales="channel")

    def errors(candidate: Any) -> np.ndarray:
        """Relative error of each output channel."""
        difference = (outputs_of(candidate, image, ["y"])["y"] - expected)[0].reshape(16, -1)
        return np.linalg.norm(difference, axis=1) / np.linalg.norm(expected[0].reshape(16, -1), axis=1)

    assert errors(right).max() < 0.05
    wrong = onnx.ModelProto()
    wrong.CopyFrom(right)
    dequantize = next(node for node in wrong.graph.node if node.op_type == "DequantizeLinear" and "w.axis" in node.name)
    dequantize.attribute[0].i = 1 - axis
    assert errors(wrong).max() > 1, "the same file with scales along the other axis is told apart"


def test_weights_are_rounded_to_the_nearest_step_of_their_channel() -> None:
    float_model = unet_graph()
    model, _ = quantized(float_model, transposed_scales="channel")
    for name, axis in (("middle.w", 0), ("up.w", 1), ("last.w", 0)):
        original = constants_of(float_model)[name]
        largest = np.abs(np.moveaxis(original, axis, 0)).reshape(32, -1).max(axis=1)
        difference = np.abs(np.moveaxis(weight_in_file(model, name) - original, axis, 0)).reshape(32, -1)
        # Half a step where nothing is clipped; the clip that loses least may cut 14 % off the largest.
        assert (np.median(difference, axis=1) <= largest / 127 / 2).all()
        assert (difference.max(axis=1) <= largest * 0.15).all()


@settings(max_examples=25)
@given(st.floats(1e-6, 1e4), st.floats(0, 1))
def test_what_lies_in_the_range_moves_by_half_a_step_at_most(largest: float, share: float) -> None:
    weight = np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1, 1)
    model = graph_of(helper.make_node("Conv", ["x", "w"], ["y"], name="same"), weight, (1, 8, 2, 2, 2), 5)
    insert_qdq(model, plan_int8(model.graph), {"x": (-largest * share, largest)})
    image = np.random.default_rng(0).uniform(-largest, largest, (1, 8, 2, 2, 2)).astype(np.float32)
    output = outputs_of(model, image, ["x.dequantized"])["x.dequantized"]
    assert np.abs(output - image).max() <= largest / 127 * 0.501


def test_a_tensor_of_zeros_gets_a_scale_all_the_same() -> None:
    weight = np.ones((8, 8, 1, 1, 1), np.float32)
    model = graph_of(helper.make_node("Conv", ["x", "w"], ["y"], name="same"), weight, (1, 8, 2, 2, 2), 5)
    insert_qdq(model, plan_int8(model.graph), {"x": (0.0, 0.0)})
    assert constants_of(model)["x.scale"] > 0


def test_int8_lies_where_it_should_and_nowhere_else() -> None:
    model, plan = quantized(unet_graph())
    reads = {node.name: list(node.input) for node in model.graph.node}
    assert plan.layers == ("middle", "up", "last")
    assert plan.kept_float == {"first": "3 channels, fewer than 8", "output": "4 channels, fewer than 8"}
    assert reads["first"][:2] == ["image", "first.w"], "three modalities stay float"
    assert reads["output"][:2] == ["last.y", "output.w"], "and four classes"
    assert reads["pool"] == ["skip"], "what is not quantized reads the float tensor"
    assert reads["concat"] == ["normed.dequantized", "skip.dequantized"]
    assert reads["last"][0] == "both.dequantized"
    assert reads["norm"][0] == "up.act.y.dequantized", "all take a transposed convolution's output from int8"
    assert reads["softmax"] == ["scores"]
    assert all(reads[layer][2] == f"{layer}.b" for layer in ("first", "middle", "up", "last")), "biases are float"


def test_the_inputs_of_a_concat_share_the_scale_of_its_output() -> None:
    model, plan = quantized(unet_graph())
    stored = constants_of(model)
    assert ("both", "normed", "skip") in plan.groups
    assert stored["both.scale"] == stored["normed.scale"] == stored["skip.scale"]
    values = outputs_of(model, image_of(), ["normed", "skip"])
    assert stored["both.scale"] * 128 > max(np.abs(values["normed"]).max(), np.abs(values["skip"]).max())


def test_zero_points_are_int8_zeros_and_scales_positive() -> None:
    stored = constants_of(quantized(unet_graph(), transposed_scales="channel")[0])
    points = [values for name, values in stored.items() if name.endswith(".zero_point")]
    assert points
    assert all(point.dtype == np.int8 and not point.any() for point in points)
    assert all((values > 0).all() for name, values in stored.items() if name.endswith(".scale") and name != "norm.scale")


def test_weights_are_stored_once_and_small() -> None:
    float_model = unet_graph()
    second = helper.make_node("Conv", ["last.y", "middle.w", "middle.b"], ["extra"], name="extra", kernel_shape=[3, 3, 3], pads=[1] * 6)
    node_of(float_model, "output").input[0] = "extra"
    float_model.graph.node.insert(9, second)
    model, plan = quantized(float_model)
    assert "extra" in plan.layers
    assert node_of(model, "extra").input[1] == node_of(model, "middle").input[1]
    assert "middle.w" not in constants_of(model)
    assert len(model.SerializeToString()) < 0.3 * len(float_model.SerializeToString())


def test_a_concat_of_a_concat_is_one_group() -> None:
    model = unet_graph()
    outer = helper.make_node("Concat", ["both", "up.act.y"], ["all"], name="outer", axis=1)
    model.graph.node.insert(8, outer)
    node_of(model, "last").input[0] = "all"
    plan = plan_int8(model.graph)
    assert ("all", "both", "normed", "skip", "up.act.y") in plan.groups


@pytest.mark.parametrize("scales", [(0, "tensor"), (1, "channel")])
def test_reference_numerics_stay_near_the_float_network(scales: tuple[int, str]) -> None:
    float_model = unet_graph()
    model, _ = quantized(float_model, transposed_scales=scales[1])
    expected, found = (outputs_of(m, image_of(seed=5), ["probabilities"])["probabilities"] for m in (float_model, model))
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.05


def _computed_weight(model: Any) -> None:
    model.graph.node.insert(0, helper.make_node("Neg", ["middle.w"], ["negative"]))
    node_of(model, "middle").input[1] = "negative"


def _grouped(model: Any) -> None:
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "middle.w")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, :16].copy(), "middle.w"))
    node_of(model, "middle").attribute.append(helper.make_attribute("group", 2))


@pytest.mark.parametrize(("change", "reason"), [(_computed_weight, "its weights are computed"), (_grouped, "grouped convolutions")])
def test_what_int8_kernels_would_not_take_stays_float(change: Any, reason: str) -> None:
    model = unet_graph()
    change(model)
    plan = plan_int8(model.graph)
    assert plan.kept_float["middle"].startswith(reason)
    assert "pooled" not in plan.tensors


def test_modules_may_be_left_in_float() -> None:
    plan = plan_int8(unet_graph().graph, keep_float=("middle",))
    assert plan.layers == ("up", "last")
    assert plan.kept_float["middle"] == "asked for"
    with pytest.raises(InputError, match="no convolution belongs to 'decoder9'") as caught:
        plan_int8(unet_graph().graph, keep_float=("decoder9",))
    assert "middle" in caught.value.hint


def test_what_cannot_be_quantized_is_refused() -> None:
    model, plan = quantized(unet_graph())
    with pytest.raises(ArtifactError, match="quantized already"):
        plan_int8(model.graph)
    with pytest.raises(ArtifactError, match="no convolution can be quantized"):
        plan_int8(unet_graph(4).graph)
    with pytest.raises(InputError, match="no range was found for"):
        insert_qdq(unet_graph(), plan, {})
    with pytest.raises(InputError, match="transposed_scales 'row'"):
        insert_qdq(unet_graph(), plan, {}, transposed_scales="row")


def test_a_weight_that_is_no_number_is_refused() -> None:
    model = unet_graph()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "up.w")
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), "up.w"))
    plan = plan_int8(model.graph)
    with pytest.raises(ArtifactError, match="weight up.w holds NaN"):
        insert_qdq(model, plan, dict.fromkeys(plan.tensors, (0.0, 1.0)))
