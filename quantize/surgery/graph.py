"""What every pass needs to know of an ONNX graph, and the few ways in which passes change one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes that a node states; those left at their default are missing."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, those that only the bodies of its loops and branches read too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            yield from (name for inner in body.node for name in reads(inner))
            yield from (output.name for output in body.output)


class View:
    """A graph as it is now: who makes and who reads each tensor, which are constant. Made anew after every change."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        given = {value.name for value in graph.input}
        # An initializer that is also an input is a default, which a caller may replace.
        self._stored = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in given}
        self.made_by = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in reads(node):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        self.inputs = given
        self._values = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The node that alone reads a tensor, once; None where there are several, none, or the caller sees the tensor."""
        found = self.readers.get(name, [])
        return found[0] if len(found) == 1 and name not in self.outputs else None

    def constant(self, name: str) -> Array | None:
        """The values of a constant tensor."""
        from onnx import numpy_helper

        if name in self._stored:
            return numpy_helper.to_array(self._stored[name])
        node = self.made_by.get(name)
        if node is None or node.op_type != "Constant" or "value" not in (stated := attributes(node)):
            return None
        return numpy_helper.to_array(stated["value"])

    def weight(self, node: onnx.NodeProto, index: int) -> NDArray[np.float32] | None:
        """The constant float32 input `index` of a node; None where there is none."""
        found = self.constant(node.input[index]) if len(node.input) > index else None
        return found if found is not None and found.dtype == np.float32 else None

    def element_type(self, name: str) -> int:
        """ONNX's number for the type of a tensor's elements; 0 where the graph does not tell."""
        if name in self._stored:
            return int(self._stored[name].data_type)
        return int(self._values[name].type.tensor_type.elem_type) if name in self._values else 0

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Sizes as far as the graph tells them, None for each that is free; None alone where not even the rank is told."""
        if name in self._stored:
            return tuple(self._stored[name].dims)
        if name not in self._values or not self._values[name].type.tensor_type.HasField("shape"):
            return None
        return tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in self._values[name].type.tensor_type.shape.dim
        )  # fmt: skip

    def names(self) -> set[str]:
        """Every name that a new tensor cannot have."""
        return {*self._stored, *self.made_by, *self.inputs, *self.readers, *self.outputs}


def all_are(stated: dict[str, Any], names: Sequence[str], value: int) -> bool:
    """Whether every number of these attributes, where stated, is `value`."""
    return all(set(stated.get(name, [value])) <= {value} for name in names)


def is_plain(node: onnx.NodeProto) -> bool:
    """Whether a convolution has no groups and no dilation, and says its padding in numbers."""
    stated = attributes(node)
    return stated.get("group", 1) == 1 and all_are(stated, ["dilations"], 1) and stated.get("auto_pad", b"NOTSET") == b"NOTSET"


def add_constant(graph: onnx.GraphProto, base: str, values: Array) -> str:
    """Store values under `base`, or `base.2` and so on where that is taken; returns the name."""
    from onnx import numpy_helper

    taken, name, number = View(graph).names(), base, 2
    while name in taken:
        name, number = f"{base}.{number}", number + 1
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name


def position(graph: onnx.GraphProto, node: onnx.NodeProto) -> int:
    """Where a node stands. Nodes are told apart by what they make, which no two share."""
    return next(index for index, other in enumerate(graph.node) if list(other.output) == list(node.output))


def replace(graph: onnx.GraphProto, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]) -> None:
    """Put the nodes `new` where the last of `old` stood, and take `old` away."""
    at, gone = position(graph, old[-1]), {position(graph, node) for node in old}
    for offset, node in enumerate(new):
        graph.node.insert(at + 1 + offset, node)
    for index in sorted(gone, reverse=True):
        del graph.node[index + (len(new) if index > at else 0)]


def forget_shapes(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove noted shapes that are no longer true."""
    for value in [value for value in graph.value_info if value.name in names]:
        graph.value_info.remove(value)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove constants that nothing reads any more, and noted shapes of tensors that are no longer made."""
    view = View(graph)
    used = {*view.readers, *view.outputs}
    for node in [node for node in graph.node if node.op_type == "Constant" and not used.intersection(node.output)]:
        graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used | view.inputs]:
        graph.initializer.remove(tensor)
    forget_shapes(graph, {value.name for value in graph.value_info} - {name for node in graph.node for name in node.output})
