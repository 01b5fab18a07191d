"""What the passes and checkers over ONNX graphs ask of a graph: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
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


def stored(name: str, values: NDArray[Any]) -> onnx.TensorProto:
    """A tensor to store in a graph."""
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)
