"""Nodes that hand on what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edge_latup.quantize.surgery.graph import View, attributes, drop_unread, position

if TYPE_CHECKING:
    import onnx

NEUTRAL: Final = {"Mul": (1, True), "Div": (1, False), "Add": (0, True), "Sub": (0, False)}
"""Operation -> the constant that changes nothing, and whether it may stand first too."""


def remove_no_ops(graph: onnx.GraphProto) -> int:
    """Identity, Dropout in inference, Reshape to the same shape, Cast to the same type, x * 1, x / 1, x + 0 and x - 0 are taken away.

    Each gives out its input, bit for bit, but for one thing: -0 + 0 is +0, which is equal to it. A node stays where its input and
    its output both have names that others rely on: the graph's own inputs, constants and outputs.
    """
    changed, view = 0, View(graph)
    for node in list(graph.node):
        source = _handed_on(view, node)
        if source is None or any(view.readers.get(name) or name in view.outputs for name in node.output[1:] if name):
            continue
        if node.output[0] not in view.outputs:
            del graph.node[position(graph, node)]
            _rename_reads(graph, node.output[0], source)
        elif source in view.made_by and source not in view.outputs:
            del graph.node[position(graph, node)]
            _rename(graph, view.made_by[source], source, node.output[0])
        else:
            continue
        changed, view = changed + 1, View(graph)
    if changed:
        drop_unread(graph)
    return changed


def _handed_on(view: View, node: onnx.NodeProto) -> str | None:
    """The input that a node gives out unchanged."""
    stated, first = attributes(node), str(node.input[0]) if node.input else ""
    if node.op_type == "Identity":
        return first
    if node.op_type == "Dropout":
        return first if _infers(view, node, stated) else None
    if node.op_type == "Cast":
        return first if view.element_type(first) == stated["to"] else None
    if node.op_type == "Reshape":
        return first if _keeps_shape(view, node, stated) else None
    return _beside_neutral(view, node)


def _infers(view: View, node: onnx.NodeProto, stated: dict[str, Any]) -> bool:
    """Whether a Dropout is known to drop nothing: `is_test` before opset 7, a constant third input since opset 12."""
    if len(node.input) < 3 or not node.input[2]:
        return bool(stated.get("is_test", 1))
    training = view.constant(node.input[2])
    return training is not None and not training.any()


def _keeps_shape(view: View, node: onnx.NodeProto, stated: dict[str, Any]) -> bool:
    """Whether every size is the one before; a -1 is, where all others are."""
    before = view.shape(node.input[0])
    target = view.constant(node.input[1]) if len(node.input) > 1 else None
    if before is None or target is None or len(before) != len(target):
        return False
    kept = [size == 0 and not stated.get("allowzero", 0) for size in target.tolist()]
    same = [keep or (known is not None and size == known) for keep, known, size in zip(kept, before, target.tolist(), strict=True)]
    unclear = [size for size, fits in zip(target.tolist(), same, strict=True) if not fits]
    return unclear in ([], [-1])


def _beside_neutral(view: View, node: onnx.NodeProto) -> str | None:
    """The other operand, where one is the neutral constant and does not widen the result."""
    if node.op_type not in NEUTRAL:
        return None
    value, either = NEUTRAL[node.op_type]
    for index in (1, 0) if either else (1,):
        constant, other = view.constant(node.input[index]), str(node.input[1 - index])
        if constant is not None and bool((constant == value).all()) and _fits_inside(constant.shape, view.shape(other)):
            return other
    return None


def _fits_inside(shape: tuple[int, ...], around: tuple[int | None, ...] | None) -> bool:
    """Whether broadcasting a constant of `shape` onto a tensor leaves the tensor's shape as it is."""
    if not shape:
        return True
    if around is None or len(shape) > len(around):
        return False
    return all(size in (1, known) for size, known in zip(shape[::-1], around[::-1], strict=False))


def _rename_reads(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let everything that reads `old` read `new`, in the bodies of loops and branches too."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _rename_reads(body, old, new)
    for output in graph.output:
        output.name = new if output.name == old else output.name


def _rename(graph: onnx.GraphProto, maker: onnx.NodeProto, old: str, new: str) -> None:
    """Give a tensor that a node makes the name of an output of the graph."""
    maker.output[list(maker.output).index(old)] = new
    _rename_reads(graph, old, new)
