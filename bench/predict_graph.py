"""The operations a runtime will execute, read from an artifact's graph: what is fused, in which precision, how many bytes each moves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, InputError
from edge_latup.manifest import Precision
from edge_latup.runtimes.base import peak_of_lifetimes
from edge_latup.runtimes.macs import openvino_macs
from edge_latup.runtimes.openvino import openvino_core
from edge_latup.runtimes.openvino_audit import declared_layers
from edge_latup.runtimes.openvino_graph import dequantizes, sources
from edge_latup.spec import Size
from edge_latup.targets.roofline import MULTIPLYING, Operation, OperationKind, inside_share

KINDS: Final[dict[str, OperationKind]] = {
    "Convolution": "convolution", "GroupConvolution": "convolution", "ConvolutionBackpropData": "transposed convolution",
    "GroupConvolutionBackpropData": "transposed convolution", "MatMul": "dense", "MVN": "norm", "ReduceMean": "reduction",
    "ReduceMax": "reduction", "MaxPool": "pooling", "AvgPool": "pooling", "Interpolate": "resampling", "Concat": "concatenation",
    "Softmax": "softmax",
}  # fmt: skip
"""OpenVINO's operations; every other that computes counts as elementwise."""
VIEWS: Final = ("Convert", "Reshape", "Squeeze", "Unsqueeze", "Pad")
"""No pass of their own; padding becomes part of the convolution behind it."""
MOVES: Final = ("MaxPool", "Concat", "Interpolate", "Transpose", "Slice", "StridedSlice", "Split", "VariadicSplit")
"""What leaves values as they came: 8 bits in are 8 bits out."""
FUSED: Final = (
    "Add", "Multiply", "Subtract", "Divide", "PRelu", "Relu", "LeakyRelu", "Elu", "Clamp", "Sigmoid", "Tanh", "HSwish", "Swish", "Gelu",
)  # fmt: skip
"""Computed while the operation before them writes, where that is read by nothing else and their other operand is a constant."""
ELEMENT_BYTES: Final[dict[Precision, int]] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one inference of an artifact is made of, in execution order."""

    input_shape: tuple[int, ...]
    operations: tuple[Operation, ...]
    weight_bytes: int
    activation_bytes: int
    """Most bytes of activations alive at once."""

    @property
    def macs(self) -> int:
        """Of all operations."""
        return sum(operation.macs for operation in self.operations)


def work_of(artifact: Artifact, size: Size | None = None, float_precision: Precision | None = None) -> Work:
    """Read an artifact's operations; nothing is compiled or run.

    Args:
        artifact: ONNX or OpenVINO.
        size: spatial size; default the spec's own.
        float_precision: of what is not INT8; default the manifest's.

    Raises:
        ArtifactError: the file cannot be read, or is a checkpoint.
        InputError: the model cannot take `size`.
    """
    spec = artifact.manifest.spec
    if artifact.manifest.format == "checkpoint":
        raise ArtifactError(f"{artifact.folder} is a checkpoint: it has no graph to predict from", "edge-latup export makes one")
    wanted = size or spec.spatial.size
    if bad := [side for side in wanted if side <= 0 or side % spec.divisor]:
        raise InputError(f"size {wanted}: {bad[0]} is not a multiple of {spec.divisor}", f"choose multiples of {spec.divisor}, such as 128")
    shape = (1, len(spec.modalities), *wanted)
    try:
        model = openvino_core().read_model(artifact.model_path)
        model.reshape({0: list(shape)})
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise InputError(
            f"{artifact.folder} cannot be read at the input {shape}: {reason}", "choose its own --size, or export it at this one"
        ) from error
    return read_work(model, float_precision or artifact.manifest.float_precision)


def read_work(model: Any, float_precision: Precision) -> Work:
    """The same of an OpenVINO model with known shapes."""
    return _Reader(model, float_precision).work()


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """A value as it lies in memory: who made it (-1: the network's input), elements, and bytes of each."""

    maker: int
    elements: int
    element_bytes: int

    @property
    def size(self) -> int:
        return self.elements * self.element_bytes


class _Reader:
    """One pass over a graph in execution order. Nodes are known by their friendly names, which are unique."""

    def __init__(self, model: Any, float_precision: Precision) -> None:
        self._model, self._float = model, float_precision
        self._nodes = model.get_ordered_ops()
        self._declared = {layer.node: layer.precision for layer in declared_layers(model, float_precision)}
        self._tensors: dict[str, _Tensor] = {}
        self._readers: dict[str, list[Any]] = {}
        self._operations: list[Operation] = []
        self._read_by: list[tuple[int, int]] = []
        """(operation that made a tensor, operation that reads it)."""
        for node in self._nodes:
            if node.get_type_name() != "ShapeOf":
                for source in sources(node):
                    self._readers.setdefault(_name(source), []).append(node)

    def work(self) -> Work:
        """Every operation on data that depends on the network's input."""
        for node in self._nodes:
            self._visit(node, _name(node), str(node.get_type_name()))
        image = tuple(int(side) for side in self._model.input(0).get_shape())
        return Work(
            input_shape=image, operations=tuple(self._operations), activation_bytes=self._peak(4 * math.prod(image)),
            weight_bytes=sum(operation.weight_bytes for operation in self._operations),
        )  # fmt: skip

    def _visit(self, node: Any, name: str, operation: str) -> None:
        if operation == "Parameter":
            self._tensors[name] = _Tensor(maker=-1, elements=_elements(node), element_bytes=ELEMENT_BYTES["fp32"])
        data = [source for source in sources(node) if _name(source) in self._tensors]
        if not data or operation in ("Parameter", "Result", "ShapeOf"):
            return
        first = self._tensors[_name(data[0])]
        if operation in VIEWS or dequantizes(node):
            self._tensors[name] = replace(first, elements=_elements(node) if operation != "Pad" else first.elements)
        elif operation == "FakeQuantize":
            self._quantize(node, name, data[0], first)
        elif operation in FUSED and len(data) == 1 and self._only_reader(data[0]) and first.maker >= 0:
            self._extend(node, name, first)
        else:
            self._add(node, name, operation, data)

    def _only_reader(self, source: Any) -> bool:
        return len(self._readers[_name(source)]) == 1

    def _quantize(self, node: Any, name: str, source: Any, read: _Tensor) -> None:
        """Part of the operation before it where nothing else reads that, which then leaves 8 bits; else a pass of its own."""
        if read.element_bytes == 1:
            self._tensors[name] = read
        elif read.maker >= 0 and self._only_reader(source):
            self._extend(node, name, replace(read, element_bytes=1))
        else:
            self._add(node, name, "FakeQuantize", [source], element_bytes=1)

    def _extend(self, node: Any, name: str, written: _Tensor) -> None:
        """Let the operation that made a tensor do this too."""
        made = self._operations[written.maker]
        precision = made.precision
        if made.kind not in MULTIPLYING:
            precision = "int8" if written.element_bytes == 1 else self._float
        self._operations[written.maker] = replace(made, writes=written.size, precision=precision)
        self._tensors[name] = replace(written, elements=_elements(node))

    def _add(self, node: Any, name: str, operation: str, data: list[Any], element_bytes: int | None = None) -> None:
        kind = KINDS.get(operation, "elementwise")
        reads = [self._tensors[_name(source)] for source in data]
        if element_bytes is None:
            kept = max(tensor.element_bytes for tensor in reads) if operation in MOVES else 4
            element_bytes = min(kept, ELEMENT_BYTES[self._float])
        written = _Tensor(maker=len(self._operations), elements=_elements(node), element_bytes=element_bytes)
        self._read_by += [(tensor.maker, written.maker) for tensor in reads]
        moved = Operation(
            name=name, kind=kind, precision="int8" if element_bytes == 1 else self._float, voxels=max(1, _voxels(node.output(0))),
            reads=tuple(tensor.size for tensor in reads), writes=written.size,
        )  # fmt: skip
        self._operations.append(self._multiplying(node, moved) if kind in MULTIPLYING else moved)
        self._tensors[name] = written

    def _multiplying(self, node: Any, moved: Operation) -> Operation:
        """With what the weights tell: MACs, kernel, channels, precision."""
        precision: Precision = self._declared.get(_name(node), self._float)  # type: ignore[assignment]  # a Declared holds text
        macs = openvino_macs(str(node.get_type_name()), node)
        weights = [int(side) for side in node.input_value(1).get_shape()]
        bytes_of_weights = math.prod(weights) * ELEMENT_BYTES[precision]
        if moved.kind == "dense":
            return replace(moved, precision=precision, macs=macs, needed_macs=macs, weight_bytes=bytes_of_weights)
        transposed = moved.kind == "transposed convolution"
        read, written = (int(node.input(0).get_shape()[1]), int(node.output(0).get_shape()[1]))
        return replace(
            moved, precision=precision, macs=macs, needed_macs=round(macs * _inside(node, transposed)), kernel=max(weights[-3:]),
            channels=(read, written), voxels=_voxels(node.input_value(0)) if transposed else moved.voxels, weight_bytes=bytes_of_weights,
        )  # fmt: skip

    def _peak(self, image_bytes: int) -> int:
        last = {made: made for made in range(-1, len(self._operations))}
        for made, reader in self._read_by:
            last[made] = max(last[made], reader)
        sizes = {-1: image_bytes, **{number: operation.writes for number, operation in enumerate(self._operations)}}
        return peak_of_lifetimes((max(made, 0), last[made], size) for made, size in sizes.items())


def _inside(node: Any, transposed: bool) -> float:
    """Share of the products that fall on data: padding is known to be zero, whether the convolution or a Pad before it adds it."""
    own = node.get_attributes()
    if own.get("auto_pad", "explicit") not in ("explicit", "EXPLICIT"):
        return 0.0 if transposed else _same_padded(node, own)
    source = node.input_value(0)
    read, written = ([int(side) for side in port.get_shape()[2:]] for port in (source, node.output(0)))
    pads = list(own["pads_begin"])
    if not transposed and source.get_node().get_type_name() == "Pad":
        padded = source.get_node()
        read = [int(side) for side in padded.input_value(0).get_shape()[2:]]
        before = padded.input_value(1).get_node()
        pads = [pad + int(more) for pad, more in zip(pads, before.get_data()[2:], strict=True)]
    span, positions = (written, read) if transposed else (read, written)
    return _product(span, positions, node, own, pads)


def _same_padded(node: Any, own: dict[str, Any]) -> float:
    read, written = ([int(side) for side in port.get_shape()[2:]] for port in (node.input_value(0), node.output(0)))
    kernel = [int(side) for side in node.input_value(1).get_shape()][-len(read) :]
    steps = zip(read, written, kernel, own["strides"], own["dilations"], strict=True)
    pads = [max(0, (out - 1) * stride + (side - 1) * dilation + 1 - size) // 2 for size, out, side, stride, dilation in steps]
    return _product(read, written, node, own, pads)


def _product(span: list[int], positions: list[int], node: Any, own: dict[str, Any], pads: list[int]) -> float:
    kernel = [int(side) for side in node.input_value(1).get_shape()][-len(span) :]
    axes: Iterator[tuple[int, ...]] = zip(span, positions, kernel, own["strides"], own["dilations"], pads, strict=True)
    return math.prod(inside_share(*axis) for axis in axes)


def _name(node: Any) -> str:
    return str(node.get_friendly_name())


def _elements(node: Any) -> int:
    return math.prod(int(side) for side in node.output(0).get_shape())


def _voxels(port: Any) -> int:
    return math.prod(int(side) for side in port.get_shape()[2:])
