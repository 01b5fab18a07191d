"""The checks behind `tensorrt_rules`: each reads a graph and yields (rule, node, what is wrong)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_latup.quantize.explicit_qdq import ACTIVATIONS
from edge_latup.quantize.onnx_graph import CONVOLUTIONS, GraphIndex, attribute, channels_of, name_of, opset_of
from edge_latup.quantize.weights import OUTPUT_AXIS

if TYPE_CHECKING:
    import onnx

Breach = tuple[str, str, str]
Check = Callable[["onnx.ModelProto", GraphIndex], Iterator[Breach]]

OLDEST_OPSET: Final = 13
"""The first with a scale per channel."""
NEWEST_OPSET: Final = 20
"""From 21 on Q/DQ has types and blocks that the importers of TensorRT 10 do not all know."""
HALF_SCALES_OPSET: Final = 19
BLOCK: Final = 32
"""Channels of TensorRT's INT8 format of 3-D tensors (kCDHW32)."""
FLOAT_OPERATIONS: Final = (
    "InstanceNormalization", "BatchNormalization", "GroupNormalization", "LayerNormalization", "MeanVarianceNormalization",
    "Softmax", "LogSoftmax", "Sigmoid", "ReduceMean", "GlobalAveragePool", "Gemm", "MatMul",
)  # fmt: skip
"""What stays float in this recipe: norms, softmax, and the means and dense layers of squeeze-and-excitation."""
INTEGER_OPERATIONS: Final = (
    "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear",
)  # fmt: skip
COMMUTING: Final = ("MaxPool", "Transpose", "Reshape", "Identity", "Flatten", "Squeeze", "Unsqueeze", "Slice")
"""They only choose or move values, so int8 goes through them unchanged."""
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def _qdq(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in (QUANTIZE, DEQUANTIZE)]


def _dequantized(index: GraphIndex, name: str) -> onnx.NodeProto | None:
    """The DequantizeLinear that makes a tensor."""
    maker = index.maker.get(name)
    return maker if maker is not None and maker.op_type == DEQUANTIZE else None


def _comes_quantized(index: GraphIndex, name: str) -> bool:
    """Whether a tensor comes out of DequantizeLinear, maybe through operations that TensorRT moves it across."""
    maker = index.maker.get(name)
    if maker is not None and maker.op_type == "Concat":
        return all(_comes_quantized(index, source) for source in maker.input)
    if maker is not None and maker.op_type in COMMUTING:
        return _comes_quantized(index, maker.input[0])
    return maker is not None and maker.op_type == DEQUANTIZE


def _source(index: GraphIndex, dequantize: onnx.NodeProto) -> str:
    """The tensor that a DequantizeLinear gives back: what went into its QuantizeLinear, or the constant it reads."""
    quantize = index.maker.get(dequantize.input[0])
    return str(quantize.input[0] if quantize is not None and quantize.op_type == QUANTIZE else dequantize.input[0])


def _weight_shape(index: GraphIndex, layer: onnx.NodeProto) -> tuple[int, ...]:
    """The shape of a layer's weight, stored as float or behind a DequantizeLinear; () where it is computed."""
    dequantize = _dequantized(index, layer.input[1])
    return index.shape(layer.input[1] if dequantize is None else _source(index, dequantize))


def _is_weight(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether a Q or DQ node works on a constant."""
    return index.is_constant(node.input[0] if node.op_type == QUANTIZE else _source(index, node))


def quantized_layers(model: onnx.ModelProto, index: GraphIndex) -> list[onnx.NodeProto]:
    """Convolutions whose input and weight both come out of DequantizeLinear."""
    return [
        node for node in model.graph.node
        if node.op_type in CONVOLUTIONS and all(_comes_quantized(index, name) for name in node.input[:2])
    ]  # fmt: skip


def is_quantized(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """Something is quantized at all."""
    if not _qdq(model):
        yield "not-quantized", "the graph", "no QuantizeLinear and no DequantizeLinear: every layer runs in float"


def known_operations(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """The operator set, and operations that TensorRT's parser has no importer for."""
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        yield "opset", "the graph", f"opset {opset}, expected {OLDEST_OPSET} to {NEWEST_OPSET}"
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield "foreign-operation", name_of(node), f"{node.domain}::{node.op_type} is no standard operation"
        elif node.op_type in INTEGER_OPERATIONS:
            yield "foreign-operation", name_of(node), f"{node.op_type} is not supported, only Q/DQ is"


def symmetric_int8(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """Every zero point is an int8 zero."""
    for node in _qdq(model):
        point = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if point is None and node.op_type == QUANTIZE:
            yield "type", name_of(node), "without a zero point ONNX quantizes to uint8, TensorRT to int8"
            continue
        data = index.constant(node.input[0]) if node.op_type == DEQUANTIZE else None
        kind = data.dtype if point is None and data is not None else None if point is None else point.dtype
        if kind is not None and kind != np.int8:
            yield "type", name_of(node), f"quantized to {kind}, TensorRT takes int8"
        if point is not None and np.any(point):
            yield "zero-point", name_of(node), f"zero point {_shown(point)}, TensorRT takes 0 only"


def _shown(values: Any) -> str:
    """One of the values that are not 0."""
    flat = np.ravel(values)
    return str(flat[np.flatnonzero(flat)[0]])


def sound_scales(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """Scales are stored, positive and of a type that the operator set has."""
    for node in _qdq(model):
        scale = index.constant(node.input[1])
        if scale is None:
            yield "scale", name_of(node), "its scale is computed, not stored"
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield "scale", name_of(node), "a scale is not positive"
        elif scale.dtype == np.float16 and opset_of(model) < HALF_SCALES_OPSET:
            yield "scale", name_of(node), f"FP16 scales need opset {HALF_SCALES_OPSET}, this is {opset_of(model)}"


def weight_scales(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """A scale per output channel of each weight, counted along the right axis."""
    for layer in model.graph.node:
        dequantize = _dequantized(index, layer.input[1]) if layer.op_type in CONVOLUTIONS else None
        if dequantize is None or not _is_weight(index, dequantize):
            continue
        shape, scales = index.shape(_source(index, dequantize)), int(np.prod(index.shape(dequantize.input[1])))
        axis = int(attribute(dequantize, "axis", 1)) % max(len(shape), 1)
        wanted = OUTPUT_AXIS[layer.op_type]
        if scales == 1:
            if layer.op_type == "Conv" and shape[wanted] > 1:
                yield "weight-per-tensor", name_of(layer), "one scale for the whole weight"
        elif axis != wanted:
            yield "weight-axis", name_of(layer), f"{scales} scales along axis {axis}; the output channels are axis {wanted}"
        elif layer.op_type == "ConvTranspose":
            yield "transposed-axis-unsettled", name_of(layer), "a scale per output channel (axis 1): NVIDIA's sources name two axes"


def activation_scales(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """One scale for each activation."""
    for node in _qdq(model):
        count = int(np.prod(index.shape(node.input[1])))
        if count > 1 and not _is_weight(index, node):
            yield "activation-per-channel", name_of(node), f"{count} scales for one activation"


def whole_layers(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """A convolution has both its input and its weight quantized, or neither, and its bias is a stored float."""
    for node in model.graph.node:
        if node.op_type not in CONVOLUTIONS:
            continue
        quantized = [_comes_quantized(index, name) for name in node.input[:2]]
        if quantized[0] != quantized[1] and (quantized[1] or not _is_transposed_output(index, node.input[0])):
            yield "half-quantized", name_of(node), f"its {'input' if quantized[0] else 'weight'} is quantized, its other side is not"
        if len(node.input) > 2 and node.input[2] and not index.is_constant(node.input[2]):
            yield "bias", name_of(node), "its bias is quantized or computed"


def paired(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """Every Q is followed by a DQ alone, and every DQ follows a Q or reads a constant."""
    for node in _qdq(model):
        if node.op_type == QUANTIZE:
            readers = index.readers.get(node.output[0], [])
            if not readers or node.output[0] in index.outputs or any(reader.op_type != DEQUANTIZE for reader in readers):
                yield "dangling", name_of(node), "its int8 output does not go to DequantizeLinear alone"
            continue
        maker = index.maker.get(node.input[0])
        if not index.is_constant(node.input[0]) and (maker is None or maker.op_type != QUANTIZE):
            yield "dangling", name_of(node), "it dequantizes what no QuantizeLinear made"


def _past_activation(index: GraphIndex, name: str) -> str:
    """The tensor behind the one node that reads `name`, where that is an activation; else `name`."""
    readers = index.readers.get(name, [])
    return str(readers[0].output[0]) if len(readers) == 1 and readers[0].op_type in ACTIVATIONS else name


def _is_transposed_output(index: GraphIndex, name: str) -> bool:
    """Whether a dequantized tensor is what a transposed convolution made, maybe behind an activation."""
    dequantize = _dequantized(index, name)
    maker = index.maker.get(_source(index, dequantize)) if dequantize is not None else None
    if maker is not None and maker.op_type in ACTIVATIONS:
        maker = index.maker.get(maker.input[0])
    return maker is not None and maker.op_type == "ConvTranspose"


def transposed_outputs(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """A quantized transposed convolution in 3-D has Q/DQ on its output; in 2-D it runs in INT8 without."""
    for layer in quantized_layers(model, index):
        if layer.op_type == "ConvTranspose" and len(_weight_shape(index, layer)) == 5:
            end = _past_activation(index, layer.output[0])
            readers = index.readers.get(end, [])
            if not readers or any(reader.op_type != QUANTIZE for reader in readers):
                yield "transposed-output", name_of(layer), "no Q/DQ on its output: the 3-D layer runs in float"


def float_operations(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """Norms, softmax and attention read float tensors, but for what a transposed convolution must hand over in int8."""
    for node in model.graph.node:
        if node.op_type not in FLOAT_OPERATIONS:
            continue
        for name in node.input:
            if _dequantized(index, name) is not None and not _is_transposed_output(index, name):
                yield "float-operation", name_of(node), f"{node.op_type} reads the quantized {name}"


def concat_scales(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """The quantized inputs of a concat have one scale, that of its quantized output."""
    for node in model.graph.node:
        if node.op_type != "Concat":
            continue
        around = [_dequantized(index, name) for name in node.input]
        around += [reader for reader in index.readers.get(node.output[0], []) if reader.op_type == QUANTIZE]
        scales = [index.constant(near.input[1]) for near in around if near is not None]
        known = {float(scale.item()) for scale in scales if scale is not None and scale.size == 1}
        quantized = sum(_dequantized(index, name) is not None for name in node.input)
        if len(known) > 1:
            yield "concat-scales", name_of(node), f"its inputs and output have {len(known)} different scales"
        elif 0 < quantized < len(node.input):
            yield "concat-scales", name_of(node), f"{quantized} of its {len(node.input)} inputs are quantized"


def behind_resize(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """No quantized layer reads what a Resize made."""
    for layer in quantized_layers(model, index):
        dequantize = _dequantized(index, layer.input[0])
        maker = index.maker.get(_source(index, dequantize)) if dequantize is not None else None
        if maker is not None and maker.op_type == "Resize":
            yield "resize", name_of(layer), f"it reads {name_of(maker)}, which runs in float at the larger size"


def alignment(model: onnx.ModelProto, index: GraphIndex) -> Iterator[Breach]:
    """Channels of quantized layers fill whole blocks; each is told how much padding multiplies its work."""
    for layer in quantized_layers(model, index):
        shape = _weight_shape(index, layer)
        if len(shape) < 3:
            continue
        if int(attribute(layer, "group", 1)) > 1:
            yield "grouped", name_of(layer), f"{attribute(layer, 'group', 1)} groups"
        sides = channels_of(layer, shape)
        if padded := [count for count in sides if count % BLOCK]:
            cost = float(np.prod([ceil(count / BLOCK) * BLOCK / count for count in sides]))
            told = ", ".join(f"{count} channels ({_multiple(count)})" for count in dict.fromkeys(padded))
            yield "alignment", name_of(layer), f"{told}: padding to {BLOCK} multiplies its work by {cost:.3g}"


def _multiple(count: int) -> str:
    best = next((base for base in (16, 8) if count % base == 0), None)
    return f"a multiple of {best}" if best else "no multiple of 8"


def dla_breaches(model: onnx.ModelProto, index: GraphIndex) -> list[Breach]:
    """3-D convolutions, which a Deep Learning Accelerator does not run."""
    layers = [node for node in model.graph.node if node.op_type in CONVOLUTIONS and len(_weight_shape(index, node)) == 5]
    return [("dla", name_of(node), "a 3-D convolution; DLA takes 2-D tensors only") for node in layers]


CHECKS: Final[tuple[Check, ...]] = (
    is_quantized, known_operations, symmetric_int8, sound_scales, weight_scales, activation_scales, whole_layers, paired,
    transposed_outputs, float_operations, concat_scales, behind_resize, alignment,
)  # fmt: skip
