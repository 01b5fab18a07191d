"""Rewrites a foreign ONNX graph into the house form: (1, C, x, y, z) float32 in, probabilities (1, K, x, y, z) out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edge_latup.errors import ArtifactError
from edge_latup.export.foreign_model import Foreign, graphs_of
from edge_latup.export.foreign_spec import HOUSE
from edge_latup.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET: Final = 17
"""Older graphs are converted: Q/DQ per channel, Softmax along one axis and Squeeze with its axes as an input came before it."""
IR_VERSION: Final = 8
"""The first that opset 17 may have; from 4 on an initializer need not be an input too."""
AXES: Final = dict(zip("xyz", ("left_right", "front_back", "down_up"), strict=True))
FLAT_AXIS: Final = "edge_latup.flat_axis"


def to_house(foreign: Foreign, output: str, *, dynamic: bool) -> onnx.ModelProto:
    """The graph of `foreign` in the house form, with `output` alone; its sizes are the spec's unless `dynamic`.

    Raises:
        ArtifactError: an old graph cannot be converted, or the result is no valid ONNX.
    """
    import onnx

    proto = _current(foreign)
    graph = proto.graph
    _lift_constants(graph)
    _keep_output(graph, output)
    _turn_input(graph, foreign, dynamic=dynamic)
    _finish_output(graph, foreign, output, dynamic=dynamic)
    tidied = _tidy(proto)
    try:
        onnx.checker.check_model(tidied)
    except onnx.checker.ValidationError as error:
        raise ArtifactError(f"{foreign.path} is no valid ONNX: {str(error).strip()}", "export the network to ONNX again") from error
    return tidied


def _current(foreign: Foreign) -> onnx.ModelProto:
    """A copy with local functions inlined, in an opset that the compression methods know."""
    import onnx
    from onnx import inliner

    proto = onnx.ModelProto()
    proto.CopyFrom(foreign.model.proto)
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    if foreign.model.opset >= OLDEST_OPSET:
        return proto
    try:
        proto = onnx.version_converter.convert_version(proto, OLDEST_OPSET)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ArtifactError(
            f"{foreign.path} has opset {foreign.model.opset}, which cannot be converted to {OLDEST_OPSET}: {reason}",
            f"export the network with opset {OLDEST_OPSET} or newer",
        ) from error
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    return proto


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes that hold a tensor become initializers, where the compression methods look for weights."""
    for node in [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].HasField("t")]:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)


def _reads(node: onnx.NodeProto) -> set[str]:
    """All names that a node may read, those inside its own graphs included."""
    inner = {name for attribute in node.attribute for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
             for part in graphs_of(graph) for step in part.node for name in step.input}  # fmt: skip
    inner |= {value.name for attribute in node.attribute if attribute.HasField("g") for value in attribute.g.output}
    return {name for name in {*node.input, *inner} if name}


def _keep_output(graph: onnx.GraphProto, output: str) -> None:
    """Drop the other outputs, and every node and constant that only they need."""
    made = {name: node for node in graph.node for name in node.output}
    needed: set[str] = set()
    waiting = [output]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(_reads(made[name]) if name in made else ())
    for part, kept in (
        (graph.node, [node for node in graph.node if needed & set(node.output)]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
        (graph.output, [value for value in graph.output if value.name == output]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        del part[:]
        part.extend(copies)
    constants = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in constants or value.name not in needed]:
        graph.input.remove(value)


def fresh(graph: onnx.GraphProto, name: str) -> str:
    """`name`, or `name` with underscores where the graph has it already."""
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in (*graph.input, *graph.output)}
    for part in graphs_of(graph):
        taken |= {name for node in part.node for name in (*node.input, *node.output)}
    while name in taken:
        name += "_"
    return name


def _house_shape(foreign: Foreign, dynamic: bool) -> list[int | str]:
    """(1, C, x, y, z), with names where a size is left free."""
    model = foreign.spec.model
    return [1, len(model.modalities), *(AXES[letter] if dynamic else side for letter, side in zip("xyz", model.spatial.size, strict=True))]


def _turn_input(graph: onnx.GraphProto, foreign: Foreign, *, dynamic: bool) -> None:
    """The input (1, C, x, y, z), transposed into the foreign layout; a 2-D network gets its slices as a batch."""
    from onnx import TensorProto, helper

    old, how = graph.input[0], foreign.how
    shape = _house_shape(foreign, dynamic)
    house = HOUSE[1:] if how.flat else HOUSE
    name = old.name if how.input_letters == HOUSE else fresh(graph, "image")
    nodes, source = [], name
    if how.flat:
        source = fresh(graph, "image_slices")
        nodes.append(helper.make_node("Squeeze", [name, _axis(graph)], [source], name="unbatch"))
    if how.input_letters != HOUSE:
        turn = [house.index(letter) for letter in how.input_letters]
        nodes.append(helper.make_node("Transpose", [source], [old.name], name="turn_input", perm=turn))
    _insert_first(graph, nodes)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _axis(graph: onnx.GraphProto) -> str:
    """Name of the constant [0], the axis that a 2-D network does not have."""
    from onnx import TensorProto, helper

    if all(tensor.name != FLAT_AXIS for tensor in graph.initializer):
        graph.initializer.append(helper.make_tensor(FLAT_AXIS, TensorProto.INT64, [1], [0]))
    return FLAT_AXIS


def _insert_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    others = [type(node).FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *others])


def _finish_output(graph: onnx.GraphProto, foreign: Foreign, output: str, *, dynamic: bool) -> None:
    """Turn the output into (1, K, x, y, z), apply the activation along K and pick the foreground."""
    from onnx import TensorProto, helper

    how, model, current = foreign.how, foreign.spec.model, output

    def then(operation: str, name: str, *more: str, **attributes: Any) -> None:
        nonlocal current
        made = fresh(graph, name)
        graph.node.append(helper.make_node(operation, [current, *more], [made], name=name, **attributes))
        current = made

    house = HOUSE[1:] if how.flat else HOUSE
    if how.output_letters != house:
        then("Transpose", "turn_output", perm=[how.output_letters.index(letter) for letter in house])
    if how.flat:
        then("Unsqueeze", "batch", _axis(graph))
    if how.activation != "none":
        then("Softmax", "softmax", axis=1) if how.activation == "softmax" else then("Sigmoid", "sigmoid")
    if how.foreground is not None:
        index = fresh(graph, "foreground_channel")
        graph.initializer.append(helper.make_tensor(index, TensorProto.INT64, [1], [how.foreground]))
        then("Gather", "foreground", index, axis=1)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(current, TensorProto.FLOAT, _output_shape(model, foreign, dynamic)))


def _output_shape(model: ModelSpec, foreign: Foreign, dynamic: bool) -> list[int | None]:
    channels = model.channels if len(foreign.spec.imports) == 1 else 1
    return [1, channels, *([None] * 3 if dynamic else model.output_size)]


def _tidy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Shapes noted for other sizes go, and what names the exporter's own files; every node gets a name of its own."""
    import onnx

    graph = proto.graph
    del graph.value_info[:]
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return onnx.shape_inference.infer_shapes(proto)
