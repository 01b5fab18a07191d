"""What an ONNX file asks of the software and hardware that is to run it: operators, types, rank, memory. Counted from the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_latup.errors import ArtifactError, MissingDependencyError, install_hint
from edge_latup.runtimes.base import installed, peak_of_lifetimes
from edge_latup.runtimes.onnx_audit import fix_input

if TYPE_CHECKING:
    import onnx

SPATIAL: Final = ("Conv", "ConvTranspose", "MaxPool", "AveragePool")
QDQ: Final = ("QuantizeLinear", "DequantizeLinear")
STANDARD: Final = ("", "ai.onnx")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One file.

    operators: types of its nodes. foreign: those of other operator sets. spatial_axes: of its convolutions, 0 without any.
    quantized: whether it holds Q/DQ. types: number types of what it stores and computes, as numpy and ONNX name them.
    weight_bytes: as stored. activation_bytes: most alive at once, each tensor freed behind its last reader and dequantized ones not
    stored; None where shapes cannot be inferred.
    """

    opset: int
    operators: frozenset[str]
    foreign: frozenset[str]
    spatial_axes: int
    quantized: bool
    types: frozenset[str]
    weight_bytes: int
    activation_bytes: int | None


def facts_of(path: Path, input_shape: tuple[int, ...] | None = None) -> ModelFacts:
    """Read the facts off a file, for inputs of a shape where that is given.

    Raises:
        ArtifactError: it is missing or not ONNX.
        MissingDependencyError: onnx, which reads it, is not installed.
    """
    if not installed("onnx"):
        raise MissingDependencyError(f"checking {path} before it is built needs onnx", install_hint("engineer"))
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, an OSError, or what onnx makes of a wrong ending
        raise ArtifactError(f"{path} cannot be read as ONNX: {error}", "give an .onnx file, or the folder of an ONNX artifact") from error
    graph = model.graph
    return ModelFacts(
        opset=max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0),
        operators=frozenset(node.op_type for node in graph.node if node.domain in STANDARD),
        foreign=frozenset(f"{node.domain}::{node.op_type}" for node in graph.node if node.domain not in STANDARD),
        spatial_axes=max((_axes(graph, node) for node in graph.node if node.op_type in SPATIAL), default=0),
        quantized=any(node.op_type in QDQ for node in graph.node),
        types=_types(graph),
        weight_bytes=sum(_bytes(tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer),
        activation_bytes=_activation_bytes(model, input_shape),
    )


def _axes(graph: onnx.GraphProto, node: onnx.NodeProto) -> int:
    """Spatial axes from the kernel's shape, or the stored weight's."""
    kernel = next((entry for entry in node.attribute if entry.name == "kernel_shape"), None)
    if kernel is not None:
        return len(kernel.ints)
    weight = next((tensor for tensor in graph.initializer if len(node.input) > 1 and tensor.name == node.input[1]), None)
    return len(weight.dims) - 2 if weight is not None else 0


def _types(graph: onnx.GraphProto) -> frozenset[str]:
    from onnx import TensorProto

    numbers = {tensor.data_type for tensor in graph.initializer}
    numbers |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    numbers |= {entry.i for node in graph.node if node.op_type == "Cast" for entry in node.attribute if entry.name == "to"}
    return frozenset(TensorProto.DataType.Name(number).lower() for number in numbers if number)


def _bytes(data_type: int, shape: tuple[int, ...]) -> int:
    import onnx

    try:
        size = onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except (KeyError, TypeError):
        size = 1
    return int(size) * math.prod(shape)


def _activation_bytes(model: onnx.ModelProto, input_shape: tuple[int, ...] | None) -> int | None:
    import onnx

    if input_shape is not None:
        fix_input(model.graph, input_shape)
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return None
    constants = {tensor.name for tensor in graph.initializer}
    values: dict[str, Any] = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    made: dict[str, tuple[int, int]] = {value.name: (0, 0) for value in graph.input if value.name not in constants}
    home: dict[str, str] = {}  # a dequantized tensor is not stored: reading it reads the int8 one
    for step, node in enumerate(graph.node, 1):
        for name in (home.get(name, name) for name in node.input):
            if name in made:
                made[name] = (made[name][0], step)
        if node.op_type == "DequantizeLinear" and home.get(node.input[0], node.input[0]) in made:
            home[node.output[0]] = home.get(node.input[0], node.input[0])
        elif not all(name in constants for name in node.input):
            made |= {name: (step, step) for name in node.output if name}
    sizes = {name: _known_bytes(values.get(name)) for name in made}
    if any(size is None for size in sizes.values()):
        return None
    return peak_of_lifetimes((*span, sizes[name] or 0) for name, span in made.items())


def _known_bytes(value: Any) -> int | None:
    if value is None or not value.HasField("shape") or not all(axis.HasField("dim_value") for axis in value.shape.dim):
        return None
    return _bytes(value.elem_type, tuple(axis.dim_value for axis in value.shape.dim))
