"""Exact rewrites: the same numbers from fewer multiplications, and hands off whatever only looks alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import changed_by, drawn, model_of, operations, run
from tiny_models import some_batch

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError
from edge_latup.export.graph_cost import cost_of_graph
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.surgery.upsampling import doubled_kernel, fuse_upsampling
from edge_latup.runtimes import open_session


def upsampled(**changes: Any) -> Any:
    """An ONNX model: nearest x2, then a 2^3 convolution padded at the end; changes make it something else."""
    from onnx import TensorProto, helper, numpy_helper

    with_bias, scales = changes.pop("bias", True), changes.pop("scales", [1, 1, 2, 2, 2])
    resize_how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"} | changes.pop("resize", {})
    conv_how = {"kernel_shape": [2, 2, 2], "pads": [0, 0, 0, 1, 1, 1]} | changes.pop("conv", {})
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6 if "group" in conv_how else 4, 3 // conv_how.get("group", 1), *conv_how["kernel_shape"])).astype(np.float32)
    constants = [
        numpy_helper.from_array(weight, "w"), numpy_helper.from_array(rng.normal(size=len(weight)).astype(np.float32), "b"),
        numpy_helper.from_array(np.array(scales, np.float32), "scales"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["u"], **resize_how),
        helper.make_node("Conv", ["u", "w", *(["b"] if with_bias else [])], ["y"], name="up", **conv_how),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 5) for name in changes.pop("outputs", ["y"])]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "d", "h", "w"])
    graph = helper.make_graph(nodes, "up", [image], outputs, constants if with_bias else [constants[0], constants[2]])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def output_of(model: Any, image: np.ndarray) -> Any:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": image})[0]


@settings(max_examples=15)
@given(st.tuples(*[st.integers(1, 7)] * 3), st.booleans(), st.integers(0, 99))
def test_one_transposed_convolution_gives_the_same_numbers(shape: tuple[int, int, int], bias: bool, seed: int) -> None:
    import onnx

    image = np.random.default_rng(seed).normal(size=(1, 3, *shape)).astype(np.float32)
    model = upsampled(bias=bias)
    expected = output_of(model, image)
    assert fuse_upsampling(model.graph) == 1
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["ConvTranspose"]
    assert {tensor.name for tensor in model.graph.initializer} == {"w.doubled", "b"} - (set() if bias else {"b"})
    np.testing.assert_allclose(output_of(model, image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"scales": [1, 1, 3, 3, 3]},
        {"scales": [1, 1, 2, 2, 1]},
        {"resize": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}},
        {"resize": {"nearest_mode": "ceil"}},
        {"conv": {"pads": [1, 1, 1, 0, 0, 0]}},
        {"conv": {"pads": [0, 0, 0, 0, 0, 0]}},
        {"conv": {"strides": [2, 2, 2]}},
        {"conv": {"dilations": [2, 2, 2]}},
        {"conv": {"kernel_shape": [3, 3, 3], "pads": [1, 1, 1, 1, 1, 1]}},
        {"conv": {"group": 3}},
        {"outputs": ["y", "u"]},
    ],
)
def test_what_only_looks_alike_is_left_alone(changes: dict[str, Any]) -> None:
    model = upsampled(**changes)
    before = model.SerializeToString()
    assert fuse_upsampling(model.graph) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("axes", [2, 3])
def test_it_is_what_pytorch_computes_in_two_steps(axes: int) -> None:
    import torch
    from onnx import helper
    from torch.nn import functional as F  # noqa: N812

    nodes = [
        helper.make_node("Constant", [], ["scales"], value=numpy_tensor(np.array([1, 1, *[2] * axes], np.float32))),
        helper.make_node("Constant", [], ["w"], value=numpy_tensor(drawn(1, 4, 3, *[2] * axes))),
    ]  # fmt: skip
    for index in range(2):  # two convolutions that share a weight
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        nodes.append(helper.make_node("Resize", ["x", "", "scales"], [f"u{index}"], **how))
        nodes.append(helper.make_node("Conv", [f"u{index}", "w"], [f"y{index}"], pads=[0] * axes + [1] * axes))
    nodes.append(helper.make_node("Concat", ["y0", "y1"], ["y"], axis=1))
    image = drawn(2, 1, 3, *[3, 4, 5][:axes])
    model = model_of(nodes, {}, image.shape)
    assert changed_by(fuse_upsampling, model, image) == 2
    assert operations(model) == ["ConvTranspose", "ConvTranspose", "Concat"]
    up = F.pad(F.interpolate(torch.from_numpy(image), scale_factor=2.0), (0, 1) * axes)
    once = (F.conv2d if axes == 2 else F.conv3d)(up, torch.from_numpy(drawn(1, 4, 3, *[2] * axes)))
    np.testing.assert_allclose(run(model, image)[0], np.concatenate([once, once], 1), atol=2e-5)


def numpy_tensor(values: np.ndarray) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(values)


def test_the_kernel_of_one_axis_is_the_derived_one() -> None:
    weight = np.array([[[2.0, 5.0]]], np.float32)
    np.testing.assert_array_equal(doubled_kernel(weight), [[[5.0, 7.0, 2.0]]])


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_network_keeps_its_output_and_loses_multiplications(tiny_fp32: Artifact, tmp_path: Path, runtime: Any) -> None:
    made = quantize(tiny_fp32, "rewrite", tmp_path / "rewritten", runtime=runtime)
    assert (made.manifest.precision, made.manifest.storage) == ("fp32", "float32")
    parity = made.manifest.parity[-1]
    assert parity.max_abs <= parity.tolerance["max_abs"] == 1e-4
    with open_session(tiny_fp32, runtime) as before, open_session(made, runtime) as after:
        np.testing.assert_allclose(after.infer(some_batch()), before.infer(some_batch()), atol=1e-5)
    macs = [cost_of_graph(artifact.model_path, "test", (1, 3, 16, 16, 16)).macs for artifact in (tiny_fp32, made)]
    assert macs[1] < macs[0]
    again = quantize(made, "dynamic-range", tmp_path / "small", runtime=runtime)
    assert [step.parameters.get("method") for step in again.manifest.recipe[-2:]] == ["rewrite", "dynamic-range"]


def test_nothing_to_rewrite_is_said(tiny_fp32: Artifact, tmp_path: Path) -> None:
    made = quantize(tiny_fp32, "rewrite", tmp_path / "once")
    with pytest.raises(ArtifactError, match="nothing that can be rewritten"):
        quantize(made, "rewrite", tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
