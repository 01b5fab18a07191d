"""Channel equalisation: every channel of a tensor gets a like range, so that one scale for the whole tensor wastes no bits on most.

INT8 runtimes give an activation one scale, and a channel whose values are a hundred times smaller than its neighbour's is left with
two or three of the 256 levels. What a convolution or a norm writes may be divided by a factor per channel, if whatever reads the channel
multiplies it back in its weights: LeakyReLU, max pooling, nearest up-sampling, spatial means and gates let positive factors through. The
factors are powers of two, so in floating point the network stays the same to the last bit (but for values below 1e-38).

The idea is that of cross-layer equalisation (Nagel et al., Data-Free Quantization, ICCV 2019) and SmoothQuant (Xiao et al., ICML 2023);
here the factors run through skip connections, whose two branches must share one scale, and through squeeze-and-excitation.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import InputError

if TYPE_CHECKING:
    import onnx

Channels = NDArray[np.int64]
"""For each channel of a tensor, the number of its factor."""
Peaks = Mapping[str, NDArray[np.float32]]
"""Largest magnitude of each channel of a tensor, by the tensor's name."""

TRANSPARENT: Final = ("LeakyRelu", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout")
"""Operations of one input that give f(x) for x, and s f(x) for s x, channel by channel, for every positive s."""
WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul", "InstanceNormalization")
QUIETEST: Final = 2.0**-6
"""A channel's factor is at least this share of its tensor's largest: a channel that is silent in the calibration cases may speak up."""


@dataclass
class _Plan:
    """Which channel of which weight carries which factor."""

    factors: int = 0
    fixed: set[int] = field(default_factory=set)
    """Factors that must stay 1, because something reads the channel that cannot take it back."""
    of: dict[str, Channels] = field(default_factory=dict)
    divided: list[tuple[str, int, Channels]] = field(default_factory=list)
    """(weight or bias, its axis, factors to divide by)."""
    multiplied: list[tuple[str, int, Channels]] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)

    def fresh(self, count: int) -> Channels:
        """Numbers of new factors."""
        self.factors += count
        return np.arange(self.factors - count, self.factors)

    def fix(self, names: Sequence[str]) -> None:
        """Keep the channels of tensors as they are."""
        for name in names:
            if name in self.of:
                self.fixed.update(self.of[name].tolist())


class _Graph:
    """An ONNX graph with what the walk over it looks up."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.outputs = [output.name for output in graph.output]

    def stored(self, name: str) -> bool:
        """Whether a name is a float32 constant, which after `_unshare` one node alone reads."""
        return name in self.constants and self.constants[name].dtype == np.float32

    @staticmethod
    def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
        """An attribute's value."""
        from onnx import helper

        return next((helper.get_attribute_value(found) for found in node.attribute if found.name == name), default)


def _readers(graph: onnx.GraphProto) -> Counter[str]:
    """How often each name is read, by nodes, by graphs inside of them and as an output."""
    found = Counter(name for node in graph.node for name in node.input)
    found.update(output.name for output in graph.output)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
            found.update(_readers(inner))
    return found


def _unshare(graph: onnx.GraphProto) -> None:
    """Give every node that has weights its own: exporters store equal ones, such as the ones and zeros of fresh norms, once.

    What else reads a shared one, such as a layer norm, must go on reading what it read.
    """
    stored, readers = {tensor.name: tensor for tensor in graph.initializer}, _readers(graph)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if node.op_type not in WEIGHTED or index == 0 or name not in stored:
                continue
            if readers[name] > 1:
                again = graph.initializer.add()
                again.CopyFrom(stored[name])
                again.name = node.input[index] = f"{name}.{node.output[0]}.{index}"
                readers[name] -= 1


def _plan(graph: _Graph) -> _Plan:
    """Walk the graph once, in its topological order."""
    plan = _Plan()
    for node in graph.graph.node:
        handler = _HANDLERS.get(node.op_type, _opaque)
        handler(graph, plan, node)
    plan.fix(graph.outputs)
    return plan


def _opaque(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    """An operation that factors do not pass."""
    plan.fix(node.input)


def _transparent(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    if node.input[0] in plan.of:
        plan.of[node.output[0]] = plan.of[node.input[0]]
    plan.fix(node.output[1:])


def _convolution(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    """Takes the factors of what it reads into its weights, and gives its own to what it writes."""
    stored = all(graph.stored(name) for name in node.input[1:] if name)
    if not stored or graph.attribute(node, "group", 1) != 1:
        return _opaque(graph, plan, node)
    read, written = (0, 1) if node.op_type == "ConvTranspose" else (1, 0)
    weight = node.input[1]
    if node.input[0] in plan.of:
        plan.multiplied.append((weight, read, plan.of[node.input[0]]))
        plan.watched.append(node.input[0])
    made = plan.fresh(graph.constants[weight].shape[written])
    plan.of[node.output[0]] = made
    plan.divided.append((weight, written, made))
    plan.divided += [(bias, 0, made) for bias in node.input[2:] if bias]
    return None


def _norm(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    """Does not let factors through, because of its epsilon, but its scale and bias can make them."""
    plan.fix(node.input[:1])
    if not all(graph.stored(name) for name in node.input[1:3]):
        return
    made = plan.fresh(len(graph.constants[node.input[1]]))
    plan.of[node.output[0]] = made
    plan.divided += [(name, 0, made) for name in node.input[1:3]]


def _dense(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    """A dense layer over channels, as in squeeze-and-excitation, takes factors into its weights."""
    if node.input[0] not in plan.of:
        return None
    plain = graph.stored(node.input[1]) and not graph.attribute(node, "transA", 0)
    if not plain:
        return _opaque(graph, plan, node)
    axis = 1 if graph.attribute(node, "transB", 0) else 0
    plan.multiplied.append((node.input[1], axis, plan.of[node.input[0]]))
    return None


def _concat(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    known = all(name in plan.of for name in node.input)
    if graph.attribute(node, "axis", None) != 1 or not known:
        return _opaque(graph, plan, node)
    plan.of[node.output[0]] = np.concatenate([plan.of[name] for name in node.input])
    return None


def _mean(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    """A mean over space; one over the batch or over channels is opaque."""
    axes = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    spatial = axes is not None and axes.size > 0 and bool((axes >= 2).all())
    return _transparent(graph, plan, node) if spatial else _opaque(graph, plan, node)


def _gate(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    """A product of a tensor with another that carries no factors."""
    carrying = [name for name in node.input if name in plan.of]
    if len(carrying) != 1 or any(name in graph.constants for name in node.input):
        return _opaque(graph, plan, node)
    plan.of[node.output[0]] = plan.of[carrying[0]]
    plan.watched.append(carrying[0])
    return None


def _resize(graph: _Graph, plan: _Plan, node: onnx.NodeProto) -> None:
    linear = graph.attribute(node, "mode", b"nearest") in (b"nearest", b"linear")
    outside = graph.attribute(node, "coordinate_transformation_mode", b"half_pixel") == b"tf_crop_and_resize"
    return _transparent(graph, plan, node) if linear and not outside else _opaque(graph, plan, node)


_HANDLERS: Final[dict[str, Any]] = {
    **dict.fromkeys(TRANSPARENT, _transparent),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Gemm", "MatMul"), _dense),
    "InstanceNormalization": _norm,
    "Concat": _concat,
    "ReduceMean": _mean,
    "Mul": _gate,
    "Resize": _resize,
}


def tensors_to_watch(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the tensors whose peaks `equalise` needs: what convolutions read, and the network made."""
    own = copy.deepcopy(model.graph)
    _unshare(own)
    return tuple(dict.fromkeys(_plan(_Graph(own)).watched))


def _factors(plan: _Plan, peaks: Peaks) -> NDArray[np.float32]:
    """Powers of two near each channel's largest peak; 1 where it must not change or was not watched.

    Raises:
        InputError: the peaks are of another network.
    """
    largest = np.zeros(plan.factors)
    for name in plan.watched:
        peak = np.asarray(peaks[name], np.float64)
        if len(peak) != len(plan.of[name]):
            raise InputError(
                f"{name} has {len(plan.of[name])} channels, its ranges are of {len(peak)}", "look at the calibration inputs in this file"
            )
        np.maximum.at(largest, plan.of[name], np.maximum(peak, peak.max() * QUIETEST))
    largest[list(plan.fixed)] = 0
    known = largest > 0
    largest[~known] = 1
    return np.exp2(np.round(np.log2(largest))).astype(np.float32)


def equalise(model: onnx.ModelProto, peaks: Peaks) -> dict[str, NDArray[np.float32]]:
    """Give the channels of every tensor that a convolution reads like ranges, in place.

    Args:
        model: float32 ONNX; see `tensors_to_watch`.
        peaks: largest magnitude of each channel of those tensors over the calibration inputs.

    Returns:
        For every tensor that changed, float32 (C,): what each of its channels was divided by.

    Raises:
        InputError: the peaks are of another network.
    """
    from onnx import numpy_helper

    _unshare(model.graph)
    graph = _Graph(model.graph)
    plan = _plan(graph)
    factors = _factors(plan, peaks)
    scale = {name: np.ones((), np.float32) for name, _, _ in (*plan.divided, *plan.multiplied)}
    for names, sign in ((plan.divided, -1), (plan.multiplied, 1)):
        for name, axis, numbers in names:
            scale[name] = scale[name] * _along(factors[numbers] ** sign, axis, graph.constants[name].ndim)
    for tensor in model.graph.initializer:
        if tensor.name in scale:
            tensor.CopyFrom(numpy_helper.from_array(graph.constants[tensor.name] * scale[tensor.name], tensor.name))
    return {name: factors[numbers] for name, numbers in plan.of.items() if (factors[numbers] != 1).any()}


def _along(values: NDArray[np.float32], axis: int, axes: int) -> NDArray[np.float32]:
    return values.reshape([-1 if index == axis else 1 for index in range(axes)])
