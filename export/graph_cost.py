"""The cost of an ONNX or OpenVINO file, counted from the graph as OpenVINO reads it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_latup.errors import ArtifactError, InputError
from edge_latup.export.layers import CONVOLUTIONS, Cost, Layer
from edge_latup.runtimes.macs import openvino_macs
from edge_latup.runtimes.openvino import openvino_core
from edge_latup.runtimes.openvino_graph import WITHOUT_BIASES, dequantizes, sources

NO_WORK: Final = ("Convert", "FakeQuantize", "Reshape", "Squeeze", "Unsqueeze")
"""Quantization and views: runtimes fuse them into their neighbours."""
HOLDERS: Final = (*CONVOLUTIONS, "MatMul", "Add", "Multiply")
"""Operations whose constant operand was trained: weights, biases, norm scales."""
TAKES_BIAS: Final = (*CONVOLUTIONS, "MatMul", "MVN")
"""Operations that a following Add or Multiply with a constant is part of; MVN is what instance norm becomes."""


def cost_of_graph(path: Path, source: str, shape: tuple[int, ...]) -> Cost:
    """Cost of the model file at `path` for one input of `shape`.

    Raises:
        ArtifactError: OpenVINO cannot read the file.
        InputError: the model has a fixed input of another shape, or cannot take this one.
    """
    try:
        model = openvino_core().read_model(path)
    except RuntimeError as error:
        raise ArtifactError(f"{path} cannot be read: {str(error).strip().splitlines()[-1]}", "make the artifact again") from error
    own = model.input(0).get_partial_shape()
    if own.is_static and tuple(own.to_shape()) != shape:
        raise InputError(f"{path.parent} has the fixed input {tuple(own.to_shape())}", "leave out --size, or export with --dynamic")
    try:
        model.reshape(list(shape))
    except RuntimeError as error:
        raise InputError(f"{path.parent} cannot take the input {shape}", "choose another --size") from error
    return Cost(source=source, input_shape=shape, layers=_Walk(model).layers())


class _Walk:
    """One pass over a graph in execution order."""

    def __init__(self, model: Any) -> None:
        self._nodes = model.get_ordered_ops()
        self._names = {node.get_friendly_name() for node in self._nodes}
        computing = [node for node in self._nodes if node.get_type_name() != "ShapeOf"]
        self._readers = Counter(source.get_friendly_name() for node in computing for source in sources(node))
        self._varying: set[str] = set()
        self._counted: set[str] = set()
        self._layers: dict[str, Layer] = {}
        self._produced: dict[str, str] = {}
        """Node -> the layer whose output it hands on; "" for the network's input."""

    def layers(self) -> tuple[Layer, ...]:
        """Every operation on data that depends on the network's input, biases and norm scales merged into their layer."""
        for node in self._nodes:
            self._visit(node, node.get_friendly_name(), str(node.get_type_name()))
        return tuple(self._layers.values())

    def _visit(self, node: Any, name: str, operation: str) -> None:
        data = [source for source in sources(node) if source.get_friendly_name() in self._varying]
        if operation == "Parameter":
            self._varying.add(name)
            self._produced[name] = ""
        # What is computed from a shape is known before the network runs.
        if not data or operation in ("Result", "ShapeOf"):
            return
        self._varying.add(name)
        if operation in NO_WORK or dequantizes(node):
            self._produced[name] = self._produced[data[0].get_friendly_name()]
            return
        layer = self._layer(node, data)
        self._layers[layer.name] = layer
        self._produced[name] = layer.name

    def _layer(self, node: Any, data: list[Any]) -> Layer:
        operation, shape = str(node.get_type_name()), _shape(node)
        constants = [source for source in sources(node) if source.get_friendly_name() not in self._varying]
        trained = sum(map(self._once, constants)) if operation in HOLDERS else 0
        name = self._name(node)
        begun = self._begun(operation, shape, data)
        if begun is not None:
            del self._layers[begun.name]
            return replace(begun, name=name, parameters=begun.parameters + trained)
        inputs = tuple(producer for source in data if (producer := self._produced[source.get_friendly_name()]))
        return Layer(
            name=name, operation=operation, inputs=inputs, output_shape=shape, parameters=trained, macs=openvino_macs(operation, node)
        )

    def _once(self, constant: Any) -> int:
        """Elements of a constant operand, 0 where another layer reads it too and has counted it."""
        name = constant.get_friendly_name()
        counted = name in self._counted
        self._counted.add(name)
        return 0 if counted else _elements(constant)

    def _name(self, node: Any) -> str:
        name = str(node.get_friendly_name())
        return name if name.removesuffix(WITHOUT_BIASES) in self._names else name.removesuffix(WITHOUT_BIASES)

    def _begun(self, operation: str, shape: tuple[int, ...], data: list[Any]) -> Layer | None:
        """The layer that this Add or Multiply with a constant completes, if it does."""
        if operation not in ("Add", "Multiply") or len(data) != 1 or self._readers[data[0].get_friendly_name()] != 1:
            return None
        layer = self._layers.get(self._produced[data[0].get_friendly_name()])
        return layer if layer is not None and layer.operation in TAKES_BIAS and layer.output_shape == shape else None


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in node.output(0).get_shape())


def _elements(constant: Any) -> int:
    """Elements of a constant operand; a single number is arithmetic (an epsilon, a factor of 1), not a parameter."""
    shape = _shape(constant)
    return math.prod(shape) if len(shape) > 1 or math.prod(shape) > 1 else 0
