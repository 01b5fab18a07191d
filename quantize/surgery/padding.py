"""Inner channels filled up with zeros to the multiple that a runtime's kernels work in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_latup.quantize.surgery.graph import View, add_constant, attributes, drop_unread, forget_shapes

if TYPE_CHECKING:
    import onnx

Places = tuple[tuple[int, int], ...]
"""(which input of a node, which axis of it counts the channels)."""
OUTPUT_PLACES: Final[dict[str, Places]] = {"Conv": ((1, 0), (2, 0)), "ConvTranspose": ((1, 1), (2, 0))}
INPUT_PLACES: Final[dict[str, Places]] = {"Conv": ((1, 1),), "ConvTranspose": ((1, 0),), "InstanceNormalization": ((1, 0), (2, 0))}
ELEMENTWISE: Final = ("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish", "Softplus", "Gelu", "Mish")
"""Each value by itself; finite at 0."""


def channel_padding(multiple: int) -> Callable[[onnx.GraphProto], int]:
    """The pass that fills inner channels up to a multiple."""

    def pad_channels(graph: onnx.GraphProto) -> int:
        """Inner channels become a multiple of 8, 16 or 32: filters of zeros before, input weights of zeros behind.

        An added channel is 0 where it is made (weights and bias 0), and stays a finite constant through functions of single values.
        Instance normalisation takes its mean and variance of that channel alone: (0 - 0) / sqrt(0 + epsilon) = 0, times scale 0
        plus bias 0. The convolutions behind multiply it by 0. So every sum is the one before with zeros added to it. Only between
        convolutions with nothing but these in between: whatever mixes or orders channels (Concat, softmax, means over channels,
        other norms), or lets a channel be seen, is left alone.
        """
        changed, view = 0, View(graph)
        for node in list(graph.node):
            weight = view.weight(node, 1) if node.op_type in OUTPUT_PLACES else None
            missing = 0 if weight is None else -weight.shape[OUTPUT_PLACES[node.op_type][0][1]] % multiple
            region = _region(view, node) if missing else None
            if region is None:
                continue
            _pad(graph, view, node, missing, OUTPUT_PLACES[node.op_type])
            for reader in region:
                _pad(graph, view, reader, missing, INPUT_PLACES.get(reader.op_type, ()))
            grown = [node, *(inner for inner in region if inner.op_type not in OUTPUT_PLACES)]
            forget_shapes(graph, {name for inner in grown for name in inner.output})
            changed, view = changed + 1, View(graph)
        if changed:
            drop_unread(graph)
        return changed

    return pad_channels


def _region(view: View, conv: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Every node between a convolution and the convolutions that next read it, those among them; None where others take part."""
    if not _can_grow(view, conv, OUTPUT_PLACES[conv.op_type]):
        return None
    found: list[onnx.NodeProto] = []
    ahead = [conv.output[0]]
    while ahead:
        name = ahead.pop()
        readers = view.readers.get(name, [])
        if not readers or name in view.outputs:
            return None
        for reader in readers:
            if reader.input[0] != name or list(reader.input).count(name) != 1:
                return None
            if reader.op_type not in ELEMENTWISE and not _can_grow(view, reader, INPUT_PLACES.get(reader.op_type)):
                return None
            found.append(reader)
            ahead += [] if reader.op_type in OUTPUT_PLACES else reader.output
    return found


def _can_grow(view: View, node: onnx.NodeProto, places: Places | None) -> bool:
    """Whether the channels of a node are one axis of its constants, and nothing divides by an epsilon of 0."""
    stated = attributes(node)
    constant = places is not None and all(view.weight(node, index) is not None for index, _ in places if _given(node, index))
    return constant and stated.get("group", 1) == 1 and stated.get("epsilon", 1) > 0


def _given(node: onnx.NodeProto, index: int) -> bool:
    return len(node.input) > index and bool(node.input[index])


def _pad(graph: onnx.GraphProto, view: View, node: onnx.NodeProto, missing: int, places: Places) -> None:
    """Append `missing` zeros to constants of a node, each along its axis."""
    for index, axis in places:
        values = view.weight(node, index)
        if values is not None:
            wider = np.pad(values, [(0, missing if along == axis else 0) for along in range(values.ndim)])
            node.input[index] = add_constant(graph, f"{node.input[index].partition('.padded')[0]}.padded", wider)
