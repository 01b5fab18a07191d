"""Ranges of tensors with fewer axes than the network's input: inside a 2-D network that a volume's slices are handed to as a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import onnx

CHANNELS: Final = 1


def fitted(model: onnx.ModelProto, axes: str) -> onnx.ModelProto:
    """The model with every reduction over the constant `axes` told those of the tensor it reads: all but the channels'.

    In an older opset the axes are an attribute of the reductions, which are known by their output's name then: that of what they read,
    a dot and their own. Reductions of tensors whose number of axes is not known stay as they are.
    """
    from onnx import numpy_helper

    graph = model.graph
    own = sum(numpy_helper.to_array(tensor).size + 1 for tensor in graph.initializer if tensor.name == axes)
    ranks = _ranks(model) if own else {}
    asked = [(node, ranks[node.input[0]]) for node in graph.node if _reduces(node, axes) and ranks.get(node.input[0], own) != own]
    for rank in sorted({rank for _, rank in asked}):
        graph.initializer.append(numpy_helper.from_array(np.array(_but_channels(rank), np.int64), f"{axes}.{rank}"))
    for node, rank in asked:
        if len(node.input) > 1:
            node.input[1] = f"{axes}.{rank}"
        for attribute in (attribute for attribute in node.attribute if attribute.name == "axes"):
            attribute.ints[:] = _but_channels(rank)
    return model


def _reduces(node: onnx.NodeProto, axes: str) -> bool:
    return axes in node.input[1:] or node.output[0] == f"{node.input[0] if node.input else ''}.{node.op_type}"


def _but_channels(rank: int) -> list[int]:
    return [axis for axis in range(rank) if axis != CHANNELS]


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Number of axes of each tensor whose shape can be inferred."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input)
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values if value.type.tensor_type.HasField("shape")}
