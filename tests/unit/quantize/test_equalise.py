"""Equalised channels have like ranges, and the network is the same to the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edge_latup.artifact import Artifact
from edge_latup.quantize.equalise import QUIETEST, equalise, tensors_to_watch

IMAGE = np.random.default_rng(0).random((1, 3, 16, 16, 16), dtype=np.float32)


def outputs_of(model: onnx.ModelProto, image: np.ndarray) -> list[np.ndarray]:
    """Every output, computed by ONNX Runtime node by node as written."""
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: image}))


def seen(model: onnx.ModelProto, tensors: Sequence[str], image: np.ndarray = IMAGE) -> dict[str, np.ndarray]:
    """Tensors inside a graph, computed by ONNX Runtime node by node."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
    return dict(zip([output.name for output in watched.graph.output], outputs_of(watched, image), strict=True))


def peaks_of(model: onnx.ModelProto, image: np.ndarray = IMAGE) -> dict[str, np.ndarray]:
    tensors = tensors_to_watch(model)
    found = seen(model, tensors, image)
    return {name: np.abs(found[name]).max(axis=(0, *range(2, found[name].ndim))) for name in tensors}


@pytest.fixture
def network(tiny_fp32: Artifact) -> onnx.ModelProto:
    """LATUP-Net, small: parallel convolutions, pooling, skip connections, attention, norms, nearest up-sampling."""
    return onnx.load(tiny_fp32.model_path)


def unbalanced(model: onnx.ModelProto, seed: int) -> None:
    """Make some channels a thousand times as large as others, in every convolution."""
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("weight") and len(tensor.dims) == 5:
            factors = np.exp(rng.normal(0, 2.5, (tensor.dims[0], 1, 1, 1, 1)))
            tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * factors).astype(np.float32), tensor.name))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_the_network_is_the_same_to_the_last_bit(tiny_fp32: Artifact, seed: int) -> None:
    model = onnx.load(tiny_fp32.model_path)
    unbalanced(model, seed)
    before = outputs_of(model, IMAGE)[0]
    assert equalise(model, peaks_of(model))
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(outputs_of(model, IMAGE)[0], before)


def test_channels_get_like_ranges(network: onnx.ModelProto) -> None:
    unbalanced(network, 1)
    before = peaks_of(network)
    equalise(network, before)
    after = peaks_of(network)
    for name, peak in after.items():
        assert peak.max() < np.sqrt(2) * 1.01, name
    for name in ("leaky_relu", "leaky_relu_9", "leaky_relu_16"):  # what a gate or a concat reads may have a part in other tensors
        live = before[name] > before[name].max() * QUIETEST * 1.01
        assert live.any()
        assert after[name][live].min() > 1 / np.sqrt(2) * 0.99, name


def test_factors_told_are_those_that_were_divided_by(network: onnx.ModelProto) -> None:
    tensors = tensors_to_watch(network)
    before = seen(network, tensors)
    factors = equalise(network, peaks_of(network))
    after = seen(network, tensors)
    assert set(factors) & set(tensors)
    for name in tensors:
        factor = factors.get(name, np.ones(before[name].shape[1], np.float32))
        assert set(np.exp2(np.round(np.log2(factor)))) == set(factor)
        np.testing.assert_array_equal(after[name] * factor[None, :, None, None, None], before[name])


def test_a_silent_channel_is_not_blown_up(network: onnx.ModelProto) -> None:
    peaks = peaks_of(network)
    for name in peaks:
        peaks[name][0] = 0
    for name, factor in equalise(network, peaks).items():
        assert factor.max() / factor.min() <= 4 / QUIETEST, name


def test_eight_bits_lose_less(network: onnx.ModelProto) -> None:
    """The point of it: rounded to one scale a tensor, what the first skip connection holds is nearer to what it was."""
    unbalanced(network, 2)
    name = next(node.input[0] for node in network.graph.node if node.name == "decoder1.conv1")

    def error(model: onnx.ModelProto) -> float:
        value = seen(model, [name])[name]
        step = (value.max() - value.min()) / 255
        difference = (np.round(value / step) * step - value) ** 2
        return float((difference.mean(axis=(0, 2, 3, 4)) / np.maximum((value**2).mean(axis=(0, 2, 3, 4)), 1e-12)).mean())

    before = error(network)
    equalise(network, peaks_of(network))
    assert error(network) < before / 3


class Odd(torch.nn.Module):
    """Two convolutions with something in between that no factor, or no unknown one, may pass."""

    def __init__(self, between: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between = between
        self.first, self.second = torch.nn.Conv3d(3, 8, 3, padding=1), torch.nn.Conv3d(8, 4, 1)
        self.norm = torch.nn.InstanceNorm3d(8, affine=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """As `between` says."""
        x = self.first(image)
        match self.between:
            case "add":
                x = x + x.flip(1)
            case "tanh":
                x = x.tanh()
            case "norm":
                x = self.norm(x)
            case "both":
                return torch.cat([self.second(x), x], 1)
            case "square":
                x = x * x
            case "softmax":
                x = x.softmax(1)
            case "channel mean":
                x = x - x.mean(1, keepdim=True)
        return self.second(x)


@pytest.mark.parametrize("between", ["add", "tanh", "norm", "both", "square", "softmax", "channel mean"])
def test_what_factors_cannot_pass_keeps_its_channels(between: str) -> None:
    module = Odd(between).eval()
    program = torch.onnx.export(module, (torch.zeros(1, 3, 16, 16, 16),), dynamo=True, external_data=False, optimize=True)
    assert program is not None
    model = program.model_proto
    unbalanced(model, 3)
    before = outputs_of(model, IMAGE)[0]
    factors = equalise(model, peaks_of(model))
    np.testing.assert_array_equal(outputs_of(model, IMAGE)[0], before)
    made = next(node.output[0] for node in model.graph.node if node.op_type == "Conv")
    assert made not in factors
    if between == "norm":
        assert factors, "a norm's scale and bias can make factors, though they do not let them through"


def test_a_constant_that_something_else_reads_too_stays_what_it_was() -> None:
    """Exporters store the ones of a norm once for all that need ones."""
    rng = np.random.default_rng(4)
    weights = {
        "first": rng.normal(size=(4, 3, 3, 3, 3)) * np.array([1, 100, 1, 0.01]).reshape(4, 1, 1, 1, 1), "ones": np.ones(4),
        "zeros": np.zeros(4), "second": rng.normal(size=(4, 4, 1, 1, 1)) * np.array([1, 1, 300, 1]).reshape(1, 4, 1, 1, 1),
    }  # fmt: skip
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[1,3,16,16,16] image) => (float[1,4] means) {
            a = Conv <pads = [1,1,1,1,1,1]> (image, first)
            b = InstanceNormalization (a, ones, zeros)
            c = Relu (b)
            y = Conv (c, second)
            axes = Constant <value_ints = [2, 3, 4]> ()
            m = ReduceMean <keepdims = 0> (y, axes)
            means = Mul (m, ones)
        }"""
    )
    model.graph.initializer.extend(numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items())
    peaks = peaks_of(model) | {"b": np.array([1, 64, 1, 1], np.float32), "c": np.array([1, 64, 1, 1], np.float32)}
    equal = onnx.ModelProto()
    equal.CopyFrom(model)
    equalise(equal, {name: peak for name, peak in peaks.items() if name in tensors_to_watch(model)})
    assert not np.array_equal(seen(equal, ["b"])["b"], seen(model, ["b"])["b"]), "the norm's scale carries factors"
    np.testing.assert_array_equal(outputs_of(equal, IMAGE)[0], outputs_of(model, IMAGE)[0])
