"""Ranges of activations over calibration inputs, found inside the graph so that only two numbers of each tensor leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import InputError
from edge_latup.quantize.onnx_graph import GraphIndex

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name to its (smallest, largest) value over all calibration inputs, clipped or not by the estimator that found it."""

REDUCTIONS: Final = ("ReduceMin", "ReduceMax", "ReduceSum")
"""ONNX Runtime's minima and maxima pass over NaN; a sum does not."""


def minmax_ranges(onnx_path: Path, tensors: Sequence[str], inputs: Iterable[NDArray[np.float32]]) -> Ranges:
    """Smallest and largest value of each tensor over the inputs, which are read one at a time.

    Reductions behind each tensor replace the graph's outputs, and ONNX Runtime frees a tensor after its last
    reader: so memory stays near that of one inference, however many tensors are asked for and however many inputs there are.

    Args:
        onnx_path: FP32 ONNX file with one input.
        tensors: names of activations, graph inputs among them.
        inputs: float32 (1, C, D, H, W) each.

    Raises:
        InputError: there are no inputs, a tensor is not in the graph, or a value is NaN or infinite.
    """
    import onnx

    model = onnx.load(onnx_path, load_external_data=False)
    asked = tuple(dict.fromkeys(tensors))
    _check_tensors(model.graph, asked, onnx_path)
    session = _session(_with_reductions(model, asked))
    name = session.get_inputs()[0].name
    lowest, highest = np.full(len(asked), np.inf), np.full(len(asked), -np.inf)
    count = 0
    for batch in inputs:
        count += 1
        found = np.array(session.run(None, {name: batch}), dtype=np.float64).reshape(len(asked), len(REDUCTIONS))
        _check_finite(asked, found, count)
        lowest, highest = np.minimum(lowest, found[:, 0]), np.maximum(highest, found[:, 1])
    if not count:
        raise InputError("ranges need calibration inputs, and there are none", "add --calibration DIR")
    return {tensor: (float(low), float(high)) for tensor, low, high in zip(asked, lowest, highest, strict=True)}


def _check_tensors(graph: onnx.GraphProto, asked: Sequence[str], path: Path) -> None:
    index = GraphIndex(graph)
    known = index.maker.keys() | {value.name for value in graph.input}
    if missing := [name for name in asked if name not in known]:
        raise InputError(f"{path} has no tensor {missing[0]!r}", "plan the quantization on the same file that is calibrated")


def _with_reductions(model: onnx.ModelProto, asked: Sequence[str]) -> onnx.ModelProto:
    """The model with each asked tensor reduced right where it is made, and nothing else as output."""
    from onnx import TensorProto, helper

    graph, nodes = model.graph, list(model.graph.node)
    reductions = {
        name: [helper.make_node(operation, [name], [f"{name}.{operation}"], keepdims=0) for operation in REDUCTIONS] for name in asked
    }
    del graph.output[:], graph.node[:]
    graph.node.extend(added for value in graph.input for added in reductions.get(value.name, []))
    for node in nodes:
        graph.node.extend([node, *(added for name in node.output for added in reductions.get(name, []))])
    graph.output.extend(
        helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, []) for added in reductions.values() for node in added
    )
    return model


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.enable_cpu_mem_arena = False  # the arena keeps what it once took
    # Nodes in the order of the graph: by default the reductions come last, and every tensor is kept for its own.
    settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    return ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def _check_finite(asked: Sequence[str], found: NDArray[np.float64], count: int) -> None:
    if (bad := ~np.isfinite(found).all(axis=1)).any():
        name = asked[int(np.argmax(bad))]
        raise InputError(f"tensor {name!r} is NaN or infinite for calibration input {count}", "look at that case, or at the checkpoint")


ESTIMATORS: Final[dict[str, Callable[[Path, Sequence[str], Iterable[NDArray[np.float32]]], Ranges]]] = {"min-max": minmax_ranges}
"""Ways to find ranges, by the name that the recipe records."""
