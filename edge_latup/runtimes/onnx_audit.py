"""What an ONNX file declares: its layers with multiply-accumulates, and which of them Q/DQ or integer operators make INT8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_latup.errors import ArtifactError
from edge_latup.runtimes.audit import precision_name
from edge_latup.runtimes.macs import convolution_macs, dense_macs
from edge_latup.runtimes.matching import Declared, Kind

if TYPE_CHECKING:
    import onnx

KINDS: Final[dict[str, Kind]] = {
    "Conv": "convolution", "QLinearConv": "convolution", "ConvInteger": "convolution", "ConvTranspose": "transposed convolution",
    "MatMul": "dense", "Gemm": "dense", "QLinearMatMul": "dense", "MatMulInteger": "dense",
}  # fmt: skip
INTEGER: Final = ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger")
SECOND_OPERAND: Final = {"QLinearConv": 3, "QLinearMatMul": 3}
"""Index of the second operand, usually the weights, where it is not 1."""
MOVES: Final = (
    "Concat", "MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Resize", "Upsample", "Pad", "Slice", "Split",
    "DepthToSpace", "SpaceToDepth", "Identity",
)  # fmt: skip
"""Operators that move or pick values: what was quantized before them is quantized after them."""


def declared_layers(path: Path, input_shape: tuple[int, ...], float_precision: str | None = None) -> list[Declared]:
    """Layers with multiply-accumulates of the file at `path`, for one input of a shape.

    `float_precision`: what the float part is computed in; None where the number types in the graph say it, layer by layer.

    Raises:
        ArtifactError: the shapes in its graph cannot be inferred.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    fix_input(model.graph, input_shape)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ArtifactError(f"{path} cannot be audited: {str(error).strip().partition(chr(10))[0]}", "make the artifact again") from error
    return _Graph(inferred.graph, path).layers(float_precision)


def fix_input(graph: onnx.GraphProto, shape: tuple[int, ...]) -> None:
    """Give the first input of a graph that is no constant a fixed shape."""
    constants = {tensor.name for tensor in graph.initializer}
    first = next(value for value in graph.input if value.name not in constants)
    for axis, size in zip(first.type.tensor_type.shape.dim, shape, strict=True):
        axis.dim_value = size


class _Graph:
    """One graph with shapes, and who made each tensor."""

    def __init__(self, graph: onnx.GraphProto, path: Path) -> None:
        self._nodes, self._path = graph.node, path
        self._makers = {name: node for node in graph.node for name in node.output}
        self._constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._types: dict[str, Any] = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
        self._eight_bit = {tensor.name for tensor in graph.initializer if tensor.data_type in _eight_bit_types()}

    def layers(self, float_precision: str | None) -> list[Declared]:
        """In the order of the file."""
        seen: set[str] = set()
        layers = []
        for node in self._nodes:
            if node.op_type in KINDS:
                name = node.name if node.name and node.name not in seen else node.output[0]
                seen.add(name)
                layers.append(self._layer(node, name, float_precision))
        return layers

    def _layer(self, node: onnx.NodeProto, name: str, float_precision: str | None) -> Declared:
        second = node.input[SECOND_OPERAND.get(node.op_type, 1)]
        integer = node.op_type in INTEGER or (self._quantized(node.input[0]) and self._quantized(second))
        bias = node.input[2:3] if node.op_type in ("Conv", "ConvTranspose", "Gemm") else ()
        roots = (self._root(tensor) for tensor in (second, *bias))
        return Declared(
            name=name, node=node.name, operation=node.op_type, kind=KINDS[node.op_type],
            precision="int8" if integer else float_precision or self._typed(node.input[0]),
            macs=self._macs(node, second), tensors=(*(root for root in roots if root in self._constants), node.output[0]),
        )  # fmt: skip

    def _typed(self, tensor: str) -> str:
        import onnx

        known = self._types.get(tensor)
        return "fp32" if known is None else precision_name(onnx.TensorProto.DataType.Name(known.elem_type))

    def _macs(self, node: onnx.NodeProto, second: str) -> int:
        if KINDS[node.op_type] == "dense":
            axis = 0 if any(attribute.name == "transA" and attribute.i for attribute in node.attribute) else -1
            return dense_macs(self._shape(node.output[0]), self._shape(node.input[0])[axis])
        voxels = self._shape(node.input[0] if node.op_type == "ConvTranspose" else node.output[0])
        return convolution_macs(voxels, self._shape(second))

    def _shape(self, tensor: str) -> tuple[int, ...]:
        if tensor in self._constants:
            return self._constants[tensor]
        known = self._types.get(tensor)
        if known is None or not known.HasField("shape") or not all(axis.HasField("dim_value") for axis in known.shape.dim):
            hint = "audit it on another runtime, or export it with a fixed size"
            raise ArtifactError(f"{self._path} cannot be audited: the shape of its tensor {tensor!r} cannot be inferred", hint)
        return tuple(axis.dim_value for axis in known.shape.dim)

    def _quantized(self, tensor: str) -> bool:
        """Whether a tensor was restored from 8-bit integers, or moved from such ones."""
        maker = self._makers.get(tensor)
        if maker is None:
            return False
        if maker.op_type == "DequantizeLinear":
            return self._is_eight_bit(maker.input[0])
        moved = maker.input if maker.op_type == "Concat" else maker.input[:1] if maker.op_type in MOVES else ()
        return bool(moved) and all(self._quantized(source) for source in moved)

    def _is_eight_bit(self, tensor: str) -> bool:
        known = self._types.get(tensor)
        return tensor in self._eight_bit or (known is not None and known.elem_type in _eight_bit_types())

    def _root(self, tensor: str) -> str:
        """The tensor that the arithmetic of a quantized weight starts from."""
        while (maker := self._makers.get(tensor)) is not None and maker.input:
            tensor = maker.input[0]
        return tensor


def _eight_bit_types() -> tuple[int, int]:
    import onnx

    return onnx.TensorProto.INT8, onnx.TensorProto.UINT8
