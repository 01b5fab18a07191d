"""The executed-kernel audit of OpenVINO: declared in the file as OpenVINO reads it, executed in the compiled runtime model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edge_latup.runtimes.audit import precision_name
from edge_latup.runtimes.macs import openvino_macs
from edge_latup.runtimes.matching import Declared, Executed, Kind
from edge_latup.runtimes.openvino_graph import WITHOUT_BIASES, sources

KINDS: Final[dict[str, Kind]] = {
    "Convolution": "convolution", "GroupConvolution": "convolution",
    "ConvolutionBackpropData": "transposed convolution", "GroupConvolutionBackpropData": "transposed convolution", "MatMul": "dense",
}  # fmt: skip
EXECUTED_KINDS: Final[dict[str, Kind]] = {
    "Convolution": "convolution", "Deconvolution": "transposed convolution", "FullyConnected": "dense", "MatMul": "dense",
}  # fmt: skip
"""layerType of the runtime model."""
MOVES: Final = (
    "Concat", "MaxPool", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Interpolate", "Pad", "Slice", "StridedSlice", "Split",
    "VariadicSplit", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip
"""Operations that move or pick values: what was quantized before them is quantized after them."""
LEVELS: Final = 256
NOT_TIMED: Final = "not_executed"
NOT_COMPUTING: Final = ("Parameter", "Result", "Const", "Input", "Output", "Constant")
FLOATS: Final = ("f32", "f16", "bf16")
TOLD: Final = ("layerType", "primitiveType", "runtimePrecision", "originalLayersNames", "execTimeMcs")


def declared_layers(model: Any, float_precision: str) -> list[Declared]:
    """Layers with multiply-accumulates of a model with known shapes, in execution order."""
    nodes = model.get_ordered_ops()
    varying: set[str] = set()
    layers: dict[str, Declared] = {}
    for node in nodes:
        name, operation = str(node.get_friendly_name()), str(node.get_type_name())
        if operation == "Parameter" or any(source.get_friendly_name() in varying for source in sources(node)):
            varying.add(name)
        kind = KINDS.get(operation)
        if kind is not None and name in varying:
            own = name if name.removesuffix(WITHOUT_BIASES) in layers else name.removesuffix(WITHOUT_BIASES)
            precision = "int8" if all(_quantized(source) for source in sources(node)[:2]) else float_precision
            macs = openvino_macs(operation, node)
            layers[own] = Declared(name=own, node=name, operation=operation, kind=kind, precision=precision, macs=macs)
    return list(layers.values())


def quantized_dense(model: Any) -> tuple[str, ...]:
    """Names of the matrix products of an uncompiled model that read quantized activations."""
    products = (node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul")
    return tuple(str(node.get_friendly_name()) for node in products if any(_quantized_activation(source) for source in sources(node)))


def _quantized_activation(node: Any) -> bool:
    return _quantized(node) and not _from_constant(node)


def _from_constant(node: Any) -> bool:
    """Whether a tensor is computed from constants alone, as stored 8-bit weights are."""
    return node.get_type_name() != "Parameter" and all(_from_constant(source) for source in sources(node))


def _quantized(node: Any) -> bool:
    """Whether a tensor has at most 256 levels: FakeQuantize, or restored from 8-bit integers, or moved from such a one."""
    operation = node.get_type_name()
    if operation == "FakeQuantize":
        return bool(node.get_attributes()["levels"] <= LEVELS)
    if operation == "Convert":
        kind = node.input_value(0).get_element_type()
        return bool(kind.is_integral() and kind.size == 1) or _quantized(node.input_value(0).get_node())
    if operation in ("Subtract", "Multiply"):
        return _is_constant(node.input_value(1).get_node()) and _restores(node)
    if operation == "Concat":
        return all(_quantized(source) for source in sources(node))
    return operation in MOVES and _quantized(node.input_value(0).get_node())


def _restores(node: Any) -> bool:
    """Whether a node is the arithmetic (integer -> float, minus zero point, times scale) of a dequantization."""
    source = node.input_value(0).get_node()
    operation = source.get_type_name()
    return _quantized(source) if operation == "Convert" else operation == "Subtract" and _restores(source)


def _is_constant(node: Any) -> bool:
    return node.get_type_name() == "Constant" or (node.get_type_name() in ("Convert", "Reshape") and _is_constant(sources(node)[0]))


def executed_operations(runtime_model: Any) -> list[Executed]:
    """Operations of a compiled model's runtime model, in execution order; timed where it was compiled to be profiled and has run."""
    return [_executed(str(node.get_friendly_name()), info) for node, info in computing(runtime_model)]


def computing(runtime_model: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    """Nodes of a runtime model that compute something, each with what the plugin says of it."""
    for node in runtime_model.get_ordered_ops():
        told = node.get_rt_info()
        info = {key: str(told[key].astype(str)) for key in TOLD if key in told}
        if info["layerType"] not in NOT_COMPUTING:
            yield node, info


def kernel_precision(info: dict[str, str]) -> str:
    """What an operation computes in, as OpenVINO calls it.

    OpenVINO 2026.4 says "i8" or "f16" of a layer whose weights are stored so and whose arithmetic is float32: its implementation's name,
    which ends in what it reads, goes before that.
    """
    read = info["primitiveType"].rsplit("_", 1)[-1].lower()
    told = info.get("runtimePrecision", read).lower()
    return read if read in FLOATS else told


def _executed(name: str, info: dict[str, str]) -> Executed:
    nodes = frozenset({name, *info.get("originalLayersNames", "").split(",")}) - {""}
    time = info.get("execTimeMcs", NOT_TIMED)
    return Executed(
        nodes=nodes,
        # A dequantization that is fused into a layer may take its name: "conv" is then known as "conv/DequantizationMultiply".
        hints=frozenset(part.rpartition("/")[0] for part in nodes) - {""},
        kind=EXECUTED_KINDS.get(info["layerType"]),
        precision=precision_name(kernel_precision(info)),
        kernel=info["primitiveType"],
        microseconds=None if time == NOT_TIMED else float(time),
    )
