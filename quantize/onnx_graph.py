"""What the passes and checkers over ONNX graphs ask of a graph: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

CONVOLUTIONS: Final = ("Conv", "ConvTranspose")


class GraphIndex:
    """Look-ups over one graph as it was when the index was made; tensors are named as in the graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.maker: dict[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self.outputs = {output.name for output in graph.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored in the file."""
        return name in self._constants

    def constant(self, name: str) -> NDArray[Any] | None:
        """A stored tensor's values; None where it is computed."""
        from onnx import numpy_helper

        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def shape(self, name: str) -> tuple[int, ...]:
        """A stored tensor's shape, () where it is computed."""
        tensor = self._constants.get(name)
        return () if tensor is None else tuple(tensor.dims)


def attribute(node: onnx.NodeProto, name: str, otherwise: Any) -> Any:
    """An attribute of a node, or what it is where the node does not say."""
    from onnx import helper

    found = next((entry for entry in node.attribute if entry.name == name), None)
    return otherwise if found is None else helper.get_attribute_value(found)


def name_of(node: onnx.NodeProto) -> str:
    """The node's name, which ONNX does not ask for, or that of its first output."""
    return node.name or (node.output[0] if node.output else node.op_type)


def channels_of(node: onnx.NodeProto, weight_shape: tuple[int, ...]) -> tuple[int, int]:
    """(input, output) channels of a convolution, all groups together."""
    groups = int(attribute(node, "group", 1))
    if node.op_type == "Conv":
        return weight_shape[1] * groups, weight_shape[0]
    return weight_shape[0], weight_shape[1] * groups


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators, 0 where the file imports none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def with_shapes(model: onnx.ModelProto, shape: Sequence[int]) -> onnx.ModelProto:
    """The model with its input's sizes fixed and those of its tensors inferred from them, as far as they can be."""
    import onnx

    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def shapes_of(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Sizes of each tensor of which all are known."""
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes = {value.name: tuple(int(dimension.dim_value) for dimension in value.type.tensor_type.shape.dim) for value in values}
    return {name: shape for name, shape in shapes.items() if shape and all(shape)}


def stored(name: str, values: NDArray[Any]) -> onnx.TensorProto:
    """A tensor to store in a graph."""
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)
