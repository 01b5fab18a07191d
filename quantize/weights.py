"""Weights stored small in a portable ONNX file: int8 per output channel, or float16 / bfloat16. Arithmetic stays float."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import ArtifactError

if TYPE_CHECKING:
    import onnx

SMALLEST: Final = 256
"""Elements below which a tensor is left alone: its scale would cost more than it saves."""
OUTPUT_AXIS: Final[dict[str, int]] = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": 1}
"""Axis of a weight tensor that counts output channels (Gemm with transB: 0). The wrong one loads and runs, and a channel whose
weights are small is rounded to nothing beside a large one."""
CLIPS: Final = (1.0, 0.99, 0.97, 0.95, 0.92, 0.89, 0.86)
"""Shares of a channel's largest weight that are tried as its range."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A constant weight: the tensor's name, its values, and the axis of its output channels."""

    name: str
    values: NDArray[np.float32]
    axis: int


def _scales(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row, from the range among `CLIPS` that has the least squared error."""
    largest = np.abs(rows).max(axis=1)
    best, scales = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=np.float32)
    for clip in CLIPS:
        # Runtimes flush denormal scales to zero, so a channel of zeros gets the smallest normal one.
        trial = np.maximum(largest * clip / 127, np.finfo(np.float32).tiny).astype(np.float32)[:, None]
        rounded = np.clip(np.rint(rows / trial), -127, 127) * trial
        error = ((rounded - rows) ** 2).sum(axis=1)
        scales = np.where(error < best, trial[:, 0], scales)
        best = np.minimum(error, best)
    return scales


def quantize_per_channel(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 along `axis`: (values int8 of the same shape, scales float32 (channels,)), zero point 0.

    Each channel's range is the one of `CLIPS` with the least squared error; see `round_keeping_sums` for the rest.
    """
    scales = _scales(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1))
    shape = [-1 if a == axis % weight.ndim else 1 for a in range(weight.ndim)]
    return round_keeping_sums(weight / scales.reshape(shape)), scales


def quantize_per_tensor(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The same with one scale, float32 (), for all channels."""
    scale = _scales(weight.reshape(1, -1))[0]
    return round_keeping_sums(weight / scale), np.asarray(scale)


def round_keeping_sums(exact: NDArray[np.float32]) -> NDArray[np.int8]:
    """Round weights (two channel axes, then the taps of a kernel) to -127..127 so that each kernel's sum moves by half a step at most.

    Images are smooth: a kernel's 8 to 125 taps read nearly the same value, so what matters first is the sum of their errors. Where
    rounding to nearest moves it by more than half a step, the taps that were rounded farthest that way are rounded the other way. A
    matrix has kernels of one tap, which are rounded to nearest. The idea is from SQuant (Guo et al., ICLR 2022).

    Args:
        exact: float (channels, channels, ...) in steps of the scale.
    """
    taps = exact.astype(np.float64).reshape(*exact.shape[:2], -1)
    nearest = np.clip(np.rint(taps), -127, 127)
    error = nearest - taps
    excess = error.sum(axis=-1, keepdims=True)
    farthest = np.argsort(np.argsort(-error * np.sign(excess), axis=-1), axis=-1)
    moved = nearest - np.sign(excess) * ((farthest < np.rint(np.abs(excess))) & (error * excess > 0))
    rounded: NDArray[np.int8] = np.clip(moved, -127, 127).reshape(exact.shape).astype(np.int8)
    return rounded


def find_weights(graph: onnx.GraphProto) -> list[Weight]:
    """Constant float32 weights of convolutions and matrix products with at least `SMALLEST` elements."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, Weight] = {}
    for node in graph.node:
        axis = _output_axis(node)
        tensor = constants.get(node.input[1]) if axis is not None and len(node.input) > 1 else None
        if tensor is None or axis is None:
            continue
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= SMALLEST:
            found[tensor.name] = Weight(name=tensor.name, values=values, axis=axis % values.ndim)
    return list(found.values())


def _output_axis(node: onnx.NodeProto) -> int | None:
    if node.op_type == "Gemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return OUTPUT_AXIS.get(node.op_type)


def _check_finite(values: NDArray[Any], weight: Weight, kept_as: str) -> None:
    if not np.isfinite(values).all():
        raise ArtifactError(f"weight {weight.name} holds values that {kept_as} cannot", "choose another method, or look at the checkpoint")


def _replace(graph: onnx.GraphProto, weight: Weight, constants: list[onnx.TensorProto], node: onnx.NodeProto) -> None:
    """Put `constants` and the node that restores the float tensor in the place of an initializer, under the same name."""
    old = next(tensor for tensor in graph.initializer if tensor.name == weight.name)
    graph.initializer.remove(old)
    graph.initializer.extend(constants)
    graph.node.insert(0, node)


def store_int8(graph: onnx.GraphProto, weight: Weight) -> None:
    """int8 values and a DequantizeLinear over the output-channel axis (opset 13)."""
    from onnx import helper, numpy_helper

    _check_finite(weight.values, weight, "int8")
    values, scales = quantize_per_channel(weight.values, weight.axis)
    names = [f"{weight.name}.int8", f"{weight.name}.scale"]
    constants = [numpy_helper.from_array(values, names[0]), numpy_helper.from_array(scales, names[1])]
    node = helper.make_node("DequantizeLinear", names, [weight.name], name=f"{weight.name}.dequantize", axis=weight.axis)
    _replace(graph, weight, constants, node)


def _store_half(graph: onnx.GraphProto, weight: Weight, data_type: int) -> None:
    from onnx import TensorProto, helper, numpy_helper

    dtype: Any = helper.tensor_dtype_to_np_dtype(data_type)
    with np.errstate(over="ignore"):
        values = weight.values.astype(dtype)
    _check_finite(values, weight, str(values.dtype))
    stored = numpy_helper.from_array(values, f"{weight.name}.half")
    node = helper.make_node("Cast", [stored.name], [weight.name], name=f"{weight.name}.restore", to=TensorProto.FLOAT)
    _replace(graph, weight, [stored], node)


def store_float16(graph: onnx.GraphProto, weight: Weight) -> None:
    """float16 values and a Cast."""
    from onnx import TensorProto

    _store_half(graph, weight, TensorProto.FLOAT16)


def store_bfloat16(graph: onnx.GraphProto, weight: Weight) -> None:
    """bfloat16 values and a Cast."""
    from onnx import TensorProto

    _store_half(graph, weight, TensorProto.BFLOAT16)


def rewrite_weights(source: Path, destination: Path, store: Callable[[onnx.GraphProto, Weight], None]) -> int:
    """Copy an ONNX file with every large weight stored by `store`; returns how many were.

    Raises:
        ArtifactError: a weight is NaN, infinite, or too large for what it is to be stored as.
    """
    import onnx

    model = onnx.load(source, load_external_data=False)
    weights = find_weights(model.graph)
    for weight in weights:
        store(model.graph, weight)
    onnx.checker.check_model(model)
    onnx.save(model, destination)
    return len(weights)
