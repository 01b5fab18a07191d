"""Explicit quantization for TensorRT: QuantizeLinear and DequantizeLinear where its INT8 kernels want them, and nowhere else.

Symmetric int8, zero points 0. Weights are stored as int8 behind a DequantizeLinear alone ("pre-quantized weights" in NVIDIA's
"Explicit Quantization" page), so that the file is small. The rules that the result must keep are in `tensorrt_rules`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import ArtifactError, InputError
from edge_latup.quantize.onnx_graph import CONVOLUTIONS, GraphIndex, attribute, channels_of, name_of, stored
from edge_latup.quantize.weights import OUTPUT_AXIS, quantize_per_channel, quantize_per_tensor

if TYPE_CHECKING:
    import onnx

    from edge_latup.quantize.ranges import Ranges

MIN_CHANNELS: Final = 8
"""A convolution with fewer channels on one side stays float: INT8 3-D kernels work on blocks of 32 channels, so three modalities
would be padded elevenfold and four classes eightfold, and what such layers cost is their full-size input or output."""
ACTIVATIONS: Final = ("Relu", "LeakyRelu", "PRelu", "Clip")
"""Fused behind a transposed convolution: its output is quantized after one of these."""
LARGEST: Final = 127
"""-128 is left out, so that the range is symmetric."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where to quantize.

    layers: names of the convolutions in INT8. kept_float: of the others, with the reason. groups: activations to quantize; those
    of one group share a scale. outputs: of these, the ones that transposed convolutions make, which every reader takes quantized.
    """

    layers: tuple[str, ...]
    kept_float: dict[str, str]
    groups: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...] = field(default=())

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every activation whose range is needed."""
        return tuple(name for group in self.groups for name in group)


def plan_int8(graph: onnx.GraphProto, *, keep_float: Sequence[str] = (), min_channels: int = MIN_CHANNELS) -> Plan:
    """Choose the layers and activations to quantize: inputs of convolutions, outputs of transposed ones, both sides of concats.

    `keep_float` names modules, such as "decoder1", whose convolutions are left in float.

    Raises:
        ArtifactError: the graph is quantized already, or has nothing to quantize.
        InputError: no convolution belongs to a module of `keep_float`.
    """
    index = GraphIndex(graph)
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        raise ArtifactError("the graph holds QuantizeLinear nodes: it is quantized already", "start from the FP32 artifact")
    convolutions = [node for node in graph.node if node.op_type in CONVOLUTIONS]
    _check_modules(convolutions, keep_float)
    reasons = {name_of(node): _why_float(node, index, keep_float, min_channels) for node in convolutions}
    layers = [node for node in convolutions if not reasons[name_of(node)]]
    if not layers:
        raise ArtifactError("no convolution can be quantized for TensorRT", f"{len(reasons)} are left: {_first(reasons)}")
    outputs = [_quantized_output(node, index) for node in layers if node.op_type == "ConvTranspose"]
    return Plan(
        layers=tuple(name_of(node) for node in layers), kept_float={name: reason for name, reason in reasons.items() if reason},
        groups=_groups(graph, index, [*(node.input[0] for node in layers), *outputs]), outputs=tuple(dict.fromkeys(outputs)),
    )  # fmt: skip


def _first(reasons: dict[str, str]) -> str:
    return next((f"{name} ({reason})" for name, reason in reasons.items()), "the graph has none")


def _check_modules(convolutions: Sequence[onnx.NodeProto], keep_float: Sequence[str]) -> None:
    names = [name_of(node) for node in convolutions]
    for module in keep_float:
        if not any(_belongs(name, module) for name in names):
            raise InputError(f"no convolution belongs to {module!r}", f"the graph has: {', '.join(names)}")


def _belongs(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _why_float(node: onnx.NodeProto, index: GraphIndex, keep_float: Sequence[str], min_channels: int) -> str:
    """Why a convolution is not quantized; empty where it is."""
    if any(_belongs(name_of(node), module) for module in keep_float):
        return "asked for"
    weight = index.shape(node.input[1])
    if not weight:
        return "its weights are computed, not stored"
    if int(attribute(node, "group", 1)) != 1:
        return "grouped convolutions have no INT8 gain in 3-D (NVIDIA/TensorRT#1176)"
    fewest = min(channels_of(node, weight))
    return f"{fewest} channels, fewer than {min_channels}" if fewest < min_channels else ""


def _quantized_output(node: onnx.NodeProto, index: GraphIndex) -> str:
    """Of a transposed convolution: the tensor behind its activation where that alone reads it, else its own output."""
    made = node.output[0]
    readers = index.readers.get(made, [])
    fused = len(readers) == 1 and made not in index.outputs and readers[0].op_type in ACTIVATIONS
    return str(readers[0].output[0]) if fused else str(made)


def _groups(graph: onnx.GraphProto, index: GraphIndex, wanted: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Wanted tensors; where one is made by a concat, that and the concat's inputs share a group, so that it moves int8 unchanged."""
    group = {name: {name} for name in wanted}
    for node in reversed(graph.node):
        if node.op_type != "Concat" or node.output[0] not in group or any(index.is_constant(name) for name in node.input):
            continue
        merged = set[str]().union(*(group.get(name, {name}) for name in (node.output[0], *node.input)))
        group.update(dict.fromkeys(merged, merged))
    distinct = {id(members): tuple(sorted(members)) for members in group.values()}
    return tuple(sorted(distinct.values()))


def insert_qdq(model: onnx.ModelProto, plan: Plan, ranges: Ranges, *, transposed_scales: str = "tensor") -> None:
    """Quantize a graph in place as planned.

    Args:
        model: the FP32 model that was planned and calibrated, opset 13 to 20.
        plan: from `plan_int8`.
        ranges: of every tensor of the plan.
        transposed_scales: "tensor" for one scale in each transposed convolution, "channel" for one per output channel (axis 1).
            NVIDIA's own sources disagree on that axis (see the rule transposed-axis-unsettled); one scale means the same to all.

    Raises:
        InputError: a range is missing or `transposed_scales` is unknown.
        ArtifactError: a weight is NaN or infinite.
    """
    if transposed_scales not in ("channel", "tensor"):
        raise InputError(f"transposed_scales {transposed_scales!r} is not known", "choose channel or tensor")
    graph, index = model.graph, GraphIndex(model.graph)
    scales = {name: _scale(group, ranges) for group in plan.groups for name in group}
    pairs = {name: _pair(graph, name, scale) for name, scale in scales.items()}
    layers = [node for node in graph.node if node.op_type in CONVOLUTIONS and name_of(node) in plan.layers]
    takers = {node.output[0] for node in (*layers, *(node for node in graph.node if _joins(node, scales)))}
    for tensor in pairs:
        for reader in index.readers.get(tensor, []):
            if tensor in plan.outputs or reader.output[0] in takers:
                _reread(reader, tensor, quantized_name(tensor))
    restored = {name: node for layer in layers for name, node in [_quantize_weight(graph, index, layer, transposed_scales)]}
    _place(graph, pairs, list(restored.values()))
    _drop_unread(graph)


def quantized_name(tensor: str) -> str:
    """What an activation is called once it went through int8."""
    return f"{tensor}.dequantized"


def _scale(group: Sequence[str], ranges: Ranges) -> NDArray[np.float32]:
    if missing := [name for name in group if name not in ranges]:
        raise InputError(f"no range was found for {missing[0]!r}", "calibrate every tensor of the plan")
    bound = max(abs(value) for name in group for value in ranges[name])
    # A tensor that is all zeros needs a scale all the same, and TensorRT refuses one that is not positive.
    return np.array((bound or 1.0) / LARGEST, dtype=np.float32)


def _pair(graph: onnx.GraphProto, tensor: str, scale: NDArray[np.float32]) -> list[onnx.NodeProto]:
    """The Q and DQ nodes of one activation; its scale and zero point go into the graph."""
    from onnx import helper

    constants = [f"{tensor}.scale", f"{tensor}.zero_point"]
    graph.initializer.extend([stored(constants[0], scale), stored(constants[1], np.zeros((), np.int8))])
    middle, end = f"{tensor}.int8", quantized_name(tensor)
    return [
        helper.make_node("QuantizeLinear", [tensor, *constants], [middle], name=f"{tensor}.quantize"),
        helper.make_node("DequantizeLinear", [middle, *constants], [end], name=f"{tensor}.dequantize"),
    ]


def _joins(node: onnx.NodeProto, scales: dict[str, NDArray[np.float32]]) -> bool:
    """Whether a concat's output is quantized with the scale of its inputs."""
    return node.op_type == "Concat" and node.output[0] in scales and all(name in scales for name in node.input)


def _reread(node: onnx.NodeProto, old: str, new: str) -> None:
    for position, name in enumerate(node.input):
        if name == old:
            node.input[position] = new


def _quantize_weight(graph: onnx.GraphProto, index: GraphIndex, layer: onnx.NodeProto, transposed: str) -> tuple[str, onnx.NodeProto]:
    """Store a layer's weight as int8 and return its name and the node that restores it; layers may share a weight."""
    from onnx import helper

    name = str(layer.input[1])
    values = index.constant(name)
    if values is None or not np.isfinite(values).all():
        raise ArtifactError(f"weight {name} holds NaN or infinity", "look at the checkpoint")
    per_tensor = layer.op_type == "ConvTranspose" and transposed == "tensor"
    axis = OUTPUT_AXIS[layer.op_type]
    small, scales = quantize_per_tensor(values) if per_tensor else quantize_per_channel(values, axis)
    key = f"{name}.{'tensor' if per_tensor else f'axis{axis}'}"
    layer.input[1] = f"{key}.dequantized"
    constants = {
        f"{key}.int8": small, f"{key}.scale": scales,
        f"{key}.zero_point": np.zeros(() if per_tensor else scales.shape, np.int8),
    }  # fmt: skip
    if not any(tensor.name in constants for tensor in graph.initializer):
        graph.initializer.extend(stored(called, np.asarray(value)) for called, value in constants.items())
    node = helper.make_node("DequantizeLinear", list(constants), [layer.input[1]], name=f"{key}.dequantize")
    if not per_tensor:
        node.attribute.append(helper.make_attribute("axis", axis))
    return key, node


def _place(graph: onnx.GraphProto, pairs: dict[str, list[onnx.NodeProto]], first: Sequence[onnx.NodeProto]) -> None:
    """Put each pair right behind what makes its tensor: ONNX wants nodes in the order in which they can be computed."""
    ordered = [*first, *(node for value in graph.input for node in pairs.get(value.name, []))]
    for node in list(graph.node):
        ordered.append(node)
        ordered.extend(added for name in node.output for added in pairs.get(name, []))
    del graph.node[:]
    graph.node.extend(ordered)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
