"""Ranges of activations over calibration inputs, found inside the graph so that few numbers of each channel leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import InputError
from edge_latup.quantize.onnx_graph import GraphIndex, opset_of, shapes_of, stored, with_shapes
from edge_latup.quantize.reduction_axes import fitted
from edge_latup.runtimes.openvino import compile_float

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

Looker = Literal["onnxruntime", "openvino"]
Run = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
Ranges = Mapping[str, tuple[float, float]]
"""Tensor name to its (smallest, largest) value over all calibration inputs, clipped or not by the estimator that found it."""

REDUCTIONS: Final = ("ReduceMin", "ReduceMax", "ReduceSum")
"""ONNX Runtime's minima and maxima pass over NaN; a sum does not."""
AXES: Final = "ranges.axes"
AXES_AS_INPUT: Final = {"ReduceMin": 18, "ReduceMax": 18, "ReduceSum": 13}
"""First opset in which the axes are an input rather than an attribute."""


ChannelRanges = dict[str, NDArray[np.float64]]
"""Tensor name to float64 (inputs, 2, C): smallest and largest value of each channel for each calibration input."""
Samples = dict[str, NDArray[np.float32]]
"""Tensor name to float32 (C, n): values of each channel at the points of a lattice, of all calibration inputs."""
SAMPLED: Final = 32_768
"""Values of a tensor that are kept of each input, at most, as long as it has not more channels than that."""
STEPS_SINCE: Final = 10
"""First opset whose Slice takes steps."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at the inputs found. `samples` are of the tensors whose shape can be inferred."""

    ranges: ChannelRanges
    samples: Samples


def look(
    onnx_path: Path, tensors: Sequence[str], inputs: Iterable[NDArray[np.float32]], *, whole: bool = False, runtime: Looker = "onnxruntime"
) -> Look:  # fmt: skip
    """Smallest and largest value of each channel of each tensor for every input, and a sample of its values.

    Reductions and strided slices behind each tensor replace the graph's outputs, and the runtime frees a tensor after its last
    reader: so memory stays near that of one inference, however many tensors are asked for and however many inputs there are. Inputs
    are read one at a time.

    Args:
        onnx_path: FP32 ONNX file with one input.
        tensors: names of activations (N, C, ...) with as many axes as the input, the input among them.
        inputs: float32 (1, C, D, H, W) each.
        whole: take each tensor as one channel; then it may have any number of axes.
        runtime: what computes them, in FP32.

    Raises:
        InputError: there are no inputs, a tensor is not in the graph, or a value is NaN or infinite.
    """
    import onnx

    model = onnx.load(onnx_path, load_external_data=False)
    asked = tuple(dict.fromkeys(tensors))
    check_tensors(model.graph, asked, onnx_path)
    run, found, seen, slices = None, [], [], {}
    for batch in inputs:
        if run is None:
            slices = _slices(model, asked, batch.shape)
            run = _RUNS[runtime](_with_reductions(model, asked, whole, slices))
        made, step = run(batch), len(REDUCTIONS)
        found.append([np.asarray(value, np.float64).reshape(-1) for value in made[: step * len(asked)]])
        _check_finite(asked, found[-1], len(found))
        seen.append([_by_channel(value, whole) for value in made[step * len(asked) :]])
    if not found:
        raise InputError("ranges need calibration inputs, and there are none", "add --calibration DIR")
    return Look(
        ranges={tensor: np.array([one[step * index : step * index + 2] for one in found]) for index, tensor in enumerate(asked)},
        samples={tensor: np.concatenate([one[index] for one in seen], axis=1) for index, tensor in enumerate(slices)},
    )


def _by_channel(values: NDArray[np.float32], whole: bool) -> NDArray[np.float32]:
    """(N, C, ...) as a copy of (C, values), or (1, values)."""
    channels = 1 if whole else values.shape[1]
    ordered = values if whole else np.moveaxis(values, 1, 0)
    return np.array(ordered, np.float32).reshape(channels, -1)


def _slices(model: onnx.ModelProto, asked: Sequence[str], shape: Sequence[int]) -> dict[str, onnx.NodeProto]:
    """A slice of each tensor whose shape is known: every so manieth voxel along each axis."""
    import onnx

    if opset_of(model) < STEPS_SINCE:
        return {}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = shapes_of(with_shapes(copy, shape).graph)
    return {name: _slice(model.graph, name, shapes[name]) for name in asked if name in shapes}


def _slice(graph: onnx.GraphProto, name: str, shape: Sequence[int]) -> onnx.NodeProto:
    from onnx import helper

    axes = np.arange(min(2, len(shape) - 1), len(shape))
    step = ceil((prod(shape) / SAMPLED) ** (1 / len(axes)))
    numbers = {"starts": axes * 0, "ends": np.array(shape)[axes], "axes": axes, "steps": axes * 0 + max(1, step)}
    graph.initializer.extend(stored(f"{name}.sample.{key}", value.astype(np.int64)) for key, value in numbers.items())
    return helper.make_node("Slice", [name, *(f"{name}.sample.{key}" for key in numbers)], [f"{name}.sample"])


def widest(ranges: Mapping[str, NDArray[np.float64]]) -> Ranges:
    """The range of each tensor over all its channels and all inputs."""
    return {name: (float(found[:, 0].min()), float(found[:, 1].max())) for name, found in ranges.items()}


def check_tensors(graph: onnx.GraphProto, asked: Sequence[str], path: Path) -> None:
    """Refuse names that are no tensors of a graph.

    Raises:
        InputError: there is one.
    """
    index = GraphIndex(graph)
    known = index.maker.keys() | {value.name for value in graph.input}
    if missing := [name for name in asked if name not in known]:
        raise InputError(f"{path} has no tensor {missing[0]!r}", "plan the quantization on the same file that is calibrated")


def _with_reductions(
    model: onnx.ModelProto, asked: Sequence[str], whole: bool, slices: Mapping[str, onnx.NodeProto]
) -> onnx.ModelProto:  # fmt: skip
    """The model with each asked tensor reduced and sliced right where it is made, and nothing else as output."""
    from onnx import TensorProto, helper, numpy_helper

    graph, nodes = model.graph, list(model.graph.node)
    axes = None if whole else _axes_but_channels(graph)
    graph.initializer.append(numpy_helper.from_array(np.array(axes or [], np.int64), AXES))
    reductions = {name: [_reduction(operation, name, axes, opset_of(model)) for operation in REDUCTIONS] for name in asked}
    behind = {name: [*nodes_of, *([slices[name]] if name in slices else [])] for name, nodes_of in reductions.items()}
    del graph.output[:], graph.node[:]
    graph.node.extend(added for value in graph.input for added in behind.get(value.name, []))
    for node in nodes:
        graph.node.extend([node, *(added for name in node.output for added in behind.get(name, []))])
    graph.output.extend(
        helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [] if whole else [None])
        for added in reductions.values()
        for node in added
    )
    graph.output.extend(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in slices.values())
    return model


def _axes_but_channels(graph: onnx.GraphProto) -> list[int]:
    return [axis for axis in range(len(graph.input[0].type.tensor_type.shape.dim)) if axis != 1]


def _reduction(operation: str, name: str, axes: Sequence[int] | None, opset: int) -> onnx.NodeProto:
    """Over some axes, or over all; where the operation takes its axes from depends on the opset."""
    from onnx import helper

    made = f"{name}.{operation}"
    if axes is None:
        return helper.make_node(operation, [name], [made], keepdims=0)
    if opset >= AXES_AS_INPUT[operation]:
        return helper.make_node(operation, [name, AXES], [made], keepdims=0)
    return helper.make_node(operation, [name], [made], keepdims=0, axes=axes)


def bounded_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session that lets each tensor go after its last reader, and keeps nothing for the next run."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.enable_cpu_mem_arena = False  # the arena keeps what it once took
    # Nodes in the order of the graph: by default the reductions come last, and every tensor is kept for its own.
    settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    return ort.InferenceSession(fitted(model, AXES).SerializeToString(), settings, providers=["CPUExecutionProvider"])


def _in_onnxruntime(model: onnx.ModelProto) -> Run:
    session = bounded_session(model)
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})


def _in_openvino(model: onnx.ModelProto) -> Run:
    compiled = compile_float(fitted(model, AXES).SerializeToString())
    return lambda batch: list(compiled([batch]).values())


_RUNS: Final[Mapping[Looker, Callable[[onnx.ModelProto], Run]]] = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}


def _check_finite(asked: Sequence[str], found: Sequence[NDArray[np.float64]], count: int) -> None:
    for index, name in enumerate(asked):
        if not all(np.isfinite(found[len(REDUCTIONS) * index + kind]).all() for kind in range(len(REDUCTIONS))):
            raise InputError(f"tensor {name!r} is NaN or infinite for calibration input {count}", "look at that case, or at the checkpoint")


def usual(ranges: Mapping[str, NDArray[np.float64]]) -> Ranges:
    """The range of each tensor over all its channels, each end averaged over the inputs: one input with a freak value weighs little."""
    return {name: (float(found[:, 0].min(axis=1).mean()), float(found[:, 1].max(axis=1).mean())) for name, found in ranges.items()}
