"""A foreign ONNX file: read without trusting it, told in words."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_latup.errors import ArtifactError
from edge_latup.export.foreign_spec import ForeignSpec, ImportSpec
from edge_latup.onnx_wire import refuse_external_data

if TYPE_CHECKING:
    import onnx

OTHERS: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"PK\x03\x04", "a zip archive (PyTorch checkpoints are, with a pickle inside, and a pickle can run code)"),
    (0, b"\x80\x02", "a pickle, which can run code when it is read"),
    (0, b"\x80\x03", "a pickle, which can run code when it is read"),
    (0, b"\x80\x04", "a pickle, which can run code when it is read"),
    (0, b"\x80\x05", "a pickle, which can run code when it is read"),
    (0, b"\x89HDF", "an HDF5 file (Keras)"),
    (4, b"TFL3", "a TensorFlow Lite file"),
)
"""(offset, bytes there, what it is) of files that people take for models to import."""
STANDARD: Final = ("", "ai.onnx", "ai.onnx.ml")
MOVING: Final = ("Identity", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze")
COMPRESSED: Final = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output. dtype: such as "float32". shape: -1 where a size is free; None where not even the rank is known."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join("free" if side < 0 else str(side) for side in self.shape)
        return f"{self.name} {self.dtype} ({sizes})"


@dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """An ONNX file whose whole content is in it, and uses standard operators only."""

    path: Path
    sha256: str
    proto: onnx.ModelProto
    inputs: tuple[Tensor, ...]
    """Without those that have an initializer."""
    outputs: tuple[Tensor, ...]

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return max(int(entry.version) for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx"))


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """One ONNX file, its [import] table, and which of several it is."""

    model: ForeignModel
    spec: ForeignSpec
    nth: int = 0

    @property
    def how(self) -> ImportSpec:
        """Its table."""
        return self.spec.imports[self.nth]

    @property
    def path(self) -> Path:
        """Its file."""
        return self.model.path

    def change(self, key: str, value: str) -> str:
        """The line of the spec to change; of keys that every table has, the one in this file's."""
        return self.spec.change(key, value, self.nth if key in type(self.how).model_fields else 0)


def read_foreign(path: Path) -> ForeignModel:
    """Read an ONNX file and refuse what cannot be imported as it is.

    Raises:
        ArtifactError: it is missing, no ONNX, keeps weights in other files, is compressed already, or uses operators of one vendor.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise ArtifactError(f"{path} is not a file", "give an ONNX file: edge-latup import MODEL.onnx --spec spec.toml --out ARTIFACT")
    content = path.read_bytes()
    for offset, magic, what in OTHERS:
        if content[offset : offset + len(magic)] == magic:
            raise ArtifactError(f"{path} is {what}, not ONNX", "export the network to ONNX where you trust its source")
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ArtifactError(f"{path} is not ONNX, or is cut: {error}", "export the network to ONNX again") from error
    _refuse_unfit(path, proto)
    refuse_external_data(path)  # also in places where the walk over the graph does not look
    inferred = _inferred(proto)
    constants = {tensor.name for tensor in proto.graph.initializer}
    if not proto.graph.output or all(value.name in constants for value in proto.graph.input):
        raise ArtifactError(f"{path} has no input, or no output", "export the network to ONNX again")
    return ForeignModel(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        proto=proto,
        inputs=tuple(_tensor(value) for value in proto.graph.input if value.name not in constants),
        outputs=tuple(_tensor(value) for value in inferred.graph.output),
    )


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """With the shapes that can be told; a graph whose shapes contradict each other is left as it is, and fails when it is run."""
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(proto)
    except (onnx.shape_inference.InferenceError, ValueError):
        return proto


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    from onnx import TensorProto

    if not value.type.HasField("tensor_type"):
        return Tensor(name=value.name, dtype=str(value.type.WhichOneof("value")), shape=None)
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else -1 for side in tensor.shape.dim)
    dtype = TensorProto.DataType.Name(tensor.elem_type).lower()
    return Tensor(name=value.name, dtype={"float": "float32", "double": "float64"}.get(dtype, dtype), shape=shape)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside its nodes (branches of If, bodies of Loop)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from graphs_of(inner)


def _tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in graphs_of(proto.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else []) + list(attribute.tensors)


def _refuse_unfit(path: Path, proto: onnx.ModelProto) -> None:
    from onnx import TensorProto

    if not proto.graph.node or not any(entry.domain in ("", "ai.onnx") for entry in proto.opset_import):
        raise ArtifactError(f"{path} is not ONNX: it holds no graph", "export the network to ONNX again")
    tensors = list(_tensors_of(proto))
    outside = [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]
    if outside:
        files = sorted({entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"})
        inlined = path.with_name(f"{path.stem}-inlined.onnx")
        raise ArtifactError(
            f"{path} keeps {len(outside)} tensors in other files ({', '.join(files)}), which an artifact does not follow",
            f"put them inside: python -c \"import onnx; onnx.save(onnx.load('{path}'), '{inlined}')\", then import {inlined}",
        )
    nodes = [node for graph in graphs_of(proto.graph) for node in graph.node]
    compressed = sorted({node.op_type for node in nodes if node.op_type in COMPRESSED})
    half = [tensor.name for tensor in tensors if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) and tensor.dims]
    if compressed or half:
        what = ", ".join(compressed) if compressed else f"half-precision weights such as {half[0]}"
        raise ArtifactError(
            f"{path} is compressed already ({what})",
            "import the float32 original: every compression and comparison starts from it (PyTorch: network.float() before the export)",
        )
    local = {function.domain for function in proto.functions}
    if others := sorted({node.domain for node in nodes if node.domain not in STANDARD and node.domain not in local}):
        raise ArtifactError(
            f"{path} uses operators of {', '.join(others)}, which only some runtimes have", "export with standard operators"
        )


def likely_output(model: ForeignModel) -> Tensor:
    """The output that looks most like a segmentation: as many axes as the input, and the most voxels."""
    rank = len(model.inputs[0].shape or ())

    def voxels(tensor: Tensor) -> tuple[bool, int]:
        shape = tensor.shape or ()
        return len(shape) == rank, math.prod(max(side, 1) for side in shape)

    return max(model.outputs, key=voxels)


def last_operation(model: ForeignModel, output: str) -> str:
    """The operation that makes an output, looking behind those that only move values; "" where the output is an input."""
    made = {name: node for node in model.proto.graph.node for name in node.output}
    while output in made and made[output].op_type in MOVING:
        output = made[output].input[0]
    return made[output].op_type if output in made else ""
