"""Weights stored small: the error of each is bounded, the scales follow output channels, the files run in both runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from tiny_models import graph_of

from edge_latup.errors import ArtifactError
from edge_latup.quantize import weights
from edge_latup.quantize.weights import (
    CLIPS,
    SMALLEST,
    find_weights,
    quantize_per_channel,
    quantize_per_tensor,
    rewrite_weights,
    round_keeping_sums,
)
from edge_latup.runtimes.openvino import openvino_core

tensors = arrays(np.float32, st.tuples(*[st.integers(1, 4)] * 3), elements=st.floats(-1e6, 1e6, width=32))


def along(scales: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return scales.reshape([-1 if a == axis else 1 for a in range(rank)])


@given(tensors, st.integers(0, 2))
def test_each_weight_moves_by_less_than_a_step_and_what_was_clipped_off(weight: np.ndarray, axis: int) -> None:
    values, scales = quantize_per_channel(weight, axis)
    assert values.dtype == np.int8
    assert values.shape == weight.shape
    assert scales.dtype == np.float32
    assert scales.shape == (weight.shape[axis],)
    step = along(scales, axis, weight.ndim).astype(np.float64)
    error = np.abs(values * step - weight)
    clipped = np.maximum(np.abs(weight) - 127 * step, 0)
    # The division is done in float32: a weight on the edge between two steps may fall to either side.
    assert (error <= (step + clipped) * (1 + 1e-5)).all()


kernels = arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 27)), elements=st.floats(-126, 126, width=32))


@given(kernels)
def test_the_sum_of_a_kernel_moves_by_half_a_step(exact: np.ndarray) -> None:
    rounded = round_keeping_sums(exact)
    assert (np.abs(rounded - exact.astype(np.float64)) < 1).all()
    assert (np.abs(rounded.sum(-1, dtype=np.float64) - exact.sum(-1, dtype=np.float64)) <= 0.5 + 1e-9).all()
    assert (rounded[exact == np.rint(exact)] == exact[exact == np.rint(exact)]).all(), "what needs no rounding is left alone"


def test_no_more_weights_are_rounded_the_far_way_than_the_sum_needs() -> None:
    exact = np.array([[[0.4, 0.45, 0.3, 0.4, 7.0]]], np.float32)  # nearest: 7, though the sum is 8.55
    np.testing.assert_array_equal(round_keeping_sums(exact)[0, 0], [1, 1, 0, 0, 7])
    matrix = np.array([[0.4, 0.4, 0.4]], np.float32)
    np.testing.assert_array_equal(round_keeping_sums(matrix), [[0, 0, 0]])


def test_smooth_images_lose_less_than_by_rounding_to_nearest() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(16, 16, 3, 3, 3)).astype(np.float32)
    image = ndimage.gaussian_filter(rng.random((1, 16, 12, 12, 12)), (0, 0, 2, 2, 2)).astype(np.float32)
    values, scales = quantize_per_channel(weight, 0)
    step = scales[:, None, None, None, None]

    def distance(kernel: np.ndarray) -> float:
        convolved = [torch.nn.functional.conv3d(torch.from_numpy(image), torch.from_numpy(one)).numpy() for one in (kernel, weight)]
        return float(np.linalg.norm(convolved[0] - convolved[1]))

    assert distance(values * step) < 0.5 * distance(np.clip(np.rint(weight / step), -127, 127) * step)


@given(tensors, st.integers(0, 2))
def test_the_range_is_symmetric_and_zero_stays_zero(weight: np.ndarray, axis: int) -> None:
    values, scales = quantize_per_channel(weight, axis)
    assert (np.abs(values.astype(int)) <= 127).all()
    assert (values[weight == 0] == 0).all(), "the zero point is 0"
    opposite, same = quantize_per_channel(-weight, axis)
    np.testing.assert_array_equal(opposite, -values)
    np.testing.assert_array_equal(same, scales)


@given(tensors, st.integers(0, 2))
def test_the_range_of_a_channel_is_one_of_those_tried_and_none_of_the_others_is_better(weight: np.ndarray, axis: int) -> None:
    _, scales = quantize_per_channel(weight, axis)
    for row, scale in zip(np.moveaxis(weight, axis, 0).reshape(len(scales), -1), scales, strict=True):
        tried = [np.float32(max(np.abs(row).max() * clip / 127, np.finfo(np.float32).tiny)) for clip in CLIPS]
        errors = [((np.clip(np.rint(row / t), -127, 127) * t - row) ** 2).sum() for t in tried]
        assert np.isclose(scale, tried, rtol=1e-6, atol=0).any()
        own = ((np.clip(np.rint(row / scale), -127, 127) * scale - row) ** 2).sum()
        assert own <= min(errors) * (1 + 1e-4)


@pytest.mark.parametrize("value", [0.0, 1e-44, 1e-39])
def test_a_channel_of_nothing_gets_a_scale_no_runtime_flushes_to_zero(value: float) -> None:
    weight = np.stack([np.full((3, 3), value, np.float32), np.ones((3, 3), np.float32)])
    values, scales = quantize_per_channel(weight, 0)
    assert (scales >= np.finfo(np.float32).tiny).all()
    assert (values[0] == 0).all()
    assert (values[1] == 127).all()


CHANNELS, INPUTS = 16, 8
# Node, weight shape, input shape, axis of output channels in the weight and in the output.
LAYERS: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...], int]] = {
    "Conv": ({}, (CHANNELS, INPUTS, 3, 3, 3), (1, INPUTS, 6, 6, 6), 0),
    "ConvTranspose": ({"strides": [2, 2, 2]}, (INPUTS, CHANNELS, 2, 2, 2), (1, INPUTS, 6, 6, 6), 1),
    "MatMul": ({}, (INPUTS * 4, CHANNELS), (1, 50, INPUTS * 4), 1),
    "Gemm": ({}, (INPUTS * 4, CHANNELS), (50, INPUTS * 4), 1),
    "Gemm transB": ({"transB": 1}, (CHANNELS, INPUTS * 4), (50, INPUTS * 4), 0),
}
TOLERANCE = 0.01
"""Relative L2 of one output channel. Uniform weights of RMS max/sqrt(3) are rounded to steps of max/127: 1/254 = 0.4 %."""


def one_layer(layer: str, folder: Path) -> tuple[Path, np.ndarray]:
    """A one-layer model whose output channels differ by a factor of 10,000, and an input."""
    from onnx import helper, save

    attributes, shape, input_shape, axis = LAYERS[layer]
    rng = np.random.default_rng(0)
    sizes = along(np.logspace(-4, 0, CHANNELS), axis, len(shape))
    weight = (rng.uniform(-1, 1, shape) * sizes).astype(np.float32)
    assert weight.size >= SMALLEST
    node = helper.make_node(layer.split(maxsplit=1)[0], ["x", "w"], ["y"], **attributes)
    path = folder / "source.onnx"
    save(graph_of(node, weight, input_shape, len(input_shape)), path)
    return path, rng.normal(size=input_shape).astype(np.float32)


def run_onnxruntime(path: Path, batch: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    return np.asarray(ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": batch})[0])


def run_openvino(path: Path, batch: np.ndarray) -> np.ndarray:
    return np.asarray(openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([batch])[0])


def channel_errors(output: np.ndarray, expected: np.ndarray, axis: int) -> np.ndarray:
    """Relative L2 error of each output channel."""
    rest = tuple(a for a in range(output.ndim) if a != axis)
    return np.asarray(np.sqrt(((output - expected) ** 2).sum(rest) / (expected**2).sum(rest)))


@pytest.mark.parametrize("run", [run_onnxruntime, run_openvino])
@pytest.mark.parametrize("layer", LAYERS)
def test_each_output_channel_keeps_its_own_range(layer: str, run: Any, tmp_path: Path) -> None:
    source, batch = one_layer(layer, tmp_path)
    assert rewrite_weights(source, tmp_path / "small.onnx", weights.store_int8) == 1
    axis = 1 if batch.ndim == 5 else -1
    errors = channel_errors(run(tmp_path / "small.onnx", batch), run_onnxruntime(source, batch), axis % batch.ndim)
    assert errors.max() < TOLERANCE


@pytest.mark.parametrize("layer", LAYERS)
def test_along_the_other_axis_the_small_channels_would_be_lost(layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, batch = one_layer(layer, tmp_path)
    monkeypatch.setattr(weights, "_output_axis", lambda node: 1 - LAYERS[layer][3])
    rewrite_weights(source, tmp_path / "wrong.onnx", weights.store_int8)
    axis = 1 if batch.ndim == 5 else -1
    errors = channel_errors(run_onnxruntime(tmp_path / "wrong.onnx", batch), run_onnxruntime(source, batch), axis % batch.ndim)
    assert errors.max() > 50 * TOLERANCE


def test_a_matrix_with_leading_axes_is_quantized_along_its_last() -> None:
    from onnx import helper

    weight = np.random.default_rng(0).normal(size=(2, 12, 16)).astype(np.float32)
    model = graph_of(helper.make_node("MatMul", ["x", "w"], ["y"]), weight, (2, 4, 12), 3)
    (found,) = find_weights(model.graph)
    assert found.axis == 2


def test_small_and_foreign_tensors_are_left_alone() -> None:
    from onnx import helper

    small = np.zeros((4, SMALLEST // 4 - 1), np.float32)
    assert not find_weights(graph_of(helper.make_node("MatMul", ["x", "w"], ["y"]), small, (1, 4), 2).graph)
    half = np.zeros((32, 32), np.float16)
    assert not find_weights(graph_of(helper.make_node("MatMul", ["x", "w"], ["y"]), half, (1, 32), 2).graph)
    added = np.zeros((32, 32), np.float32)
    assert not find_weights(graph_of(helper.make_node("Add", ["x", "w"], ["y"]), added, (32, 32), 2).graph)


@pytest.mark.parametrize(("store", "bits"), [(weights.store_float16, 11), (weights.store_bfloat16, 8)])
@pytest.mark.parametrize("run", [run_onnxruntime, run_openvino])
def test_half_precision_weights_lose_half_a_unit_of_their_last_place(store: Any, bits: int, run: Any, tmp_path: Path) -> None:
    source, batch = one_layer("Conv", tmp_path)
    assert rewrite_weights(source, tmp_path / "half.onnx", store) == 1
    errors = channel_errors(run(tmp_path / "half.onnx", batch), run_onnxruntime(source, batch), 1)
    # float16 has fewer bits below 6e-5, where the smallest channels' weights begin to lie.
    assert errors.max() < 2.0**-bits * 4
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * source.stat().st_size


@pytest.mark.parametrize(
    ("store", "value", "kept_as"),
    [
        (weights.store_int8, np.nan, "int8"),
        (weights.store_int8, np.inf, "int8"),
        (weights.store_float16, 70000.0, "float16"),
        (weights.store_bfloat16, np.nan, "bfloat16"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_weight_that_cannot_be_stored_is_named_and_nothing_is_written(store: Any, value: float, kept_as: str, tmp_path: Path) -> None:
    from onnx import helper, save

    weight = np.ones((32, 32), np.float32)
    weight[3, 4] = value
    save(graph_of(helper.make_node("MatMul", ["x", "w"], ["y"]), weight, (1, 32), 2), tmp_path / "source.onnx")
    with pytest.raises(ArtifactError, match=f"weight w holds values that {kept_as} cannot"):
        rewrite_weights(tmp_path / "source.onnx", tmp_path / "small.onnx", store)
    assert not (tmp_path / "small.onnx").exists()


def test_the_rewritten_graph_keeps_its_inputs_outputs_and_names(tmp_path: Path) -> None:
    import onnx

    source, _ = one_layer("Conv", tmp_path)
    rewrite_weights(source, tmp_path / "small.onnx", weights.store_int8)
    before, after = onnx.load(source).graph, onnx.load(tmp_path / "small.onnx").graph
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)
    assert list(after.node[-1].input) == ["x", "w"], "the float tensor is restored under its old name"
    (zero_point_less,) = [node for node in after.node if node.op_type == "DequantizeLinear"]
    assert len(zero_point_less.input) == 2, "no zero point: it is 0"


def test_one_scale_for_all_channels_keeps_each_kernels_sum() -> None:
    weight = np.random.default_rng(8).normal(size=(16, 16, 3, 3, 3)).astype(np.float32)
    values, scale = quantize_per_tensor(weight)
    assert (values.shape, scale.shape, values.dtype, scale.dtype) == (weight.shape, (), np.int8, np.float32)
    exact = np.clip(weight / scale, -127, 127)
    moved = np.abs((values - exact).sum(axis=(2, 3, 4)))
    inside = np.abs(weight / scale).max(axis=(2, 3, 4)) < 127
    assert inside.mean() > 0.9
    assert moved[inside].max() <= 0.5 + 1e-3
    np.testing.assert_array_less(np.abs(values - exact)[inside], 1 + 1e-6)
