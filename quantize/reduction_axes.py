"""Ranges of tensors with fewer axes than the network's input: inside a 2-D network that a volume's slices are handed to as a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import onnx

CHANNELS: Final = 1


def fitted(model: onnx.ModelProto, axes: str) -> onnx.ModelProto:
    """The model with every reduction over the constant `axes` told those of the tensor it reads: all but the channels'.

    Reductions of tensors whose number of axes is not known stay as they are, and so does an older opset, where axes are attributes.
    """
    from onnx import numpy_helper

    graph = model.graph
    asked = [node for node in graph.node if axes in node.input[1:]]
    ranks = _ranks(model) if asked else {}
    own = sum(numpy_helper.to_array(tensor).size + 1 for tensor in graph.initializer if tensor.name == axes)
    other = {ranks[node.input[0]] for node in asked if ranks.get(node.input[0], own) != own}
    for rank in sorted(other):
        values = np.array([axis for axis in range(rank) if axis != CHANNELS], np.int64)
        graph.initializer.append(numpy_helper.from_array(values, f"{axes}.{rank}"))
    for node in asked:
        if ranks.get(node.input[0]) in other:
            node.input[1] = f"{axes}.{ranks[node.input[0]]}"
    return model


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Number of axes of each tensor whose shape can be inferred."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input)
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values if value.type.tensor_type.HasField("shape")}
