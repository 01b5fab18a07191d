"""Whole activations of a graph, a few at a time: the graph is executed in segments, and a tensor is let go after its last reader."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import InputError
from edge_latup.quantize.onnx_graph import shapes_of, with_shapes
from edge_latup.quantize.pace import Tell, paced, silent
from edge_latup.quantize.ranges import bounded_session, check_tensors

if TYPE_CHECKING:
    import onnx

BUDGET: Final = 320 * 2**20
"""Bytes of tensors that one segment hands out to be looked at, beside what the network itself keeps alive. One tensor of LATUP-Net's
first level, 32 channels of 128^3, takes 256 MiB; while one is looked at, there is a second copy of it."""
ITEM_BYTES: Final = 4

See = Callable[[str, NDArray[np.float32]], None]
"""Called with a tensor's name and values, once for every input."""


def plan_groups(sizes: Sequence[int], budget: int) -> tuple[range, ...]:
    """Neighbours together as long as the sum of their sizes stays within the budget; what is larger alone is alone."""
    groups: list[range] = []
    total = 0
    for number, size in enumerate(sizes):
        if groups and total + size <= budget:
            groups[-1] = range(groups[-1].start, number + 1)
            total += size
        else:
            groups.append(range(number, number + 1))
            total = size
    return tuple(groups)


@dataclass(kw_only=True)
class Segment:
    """Consecutive nodes. reads: tensors of earlier segments, or the graph's input. wanted: to be looked at. carried: for later ones."""

    reads: dict[str, None] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    carried: dict[str, None] = field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        """What it hands out."""
        return list(dict.fromkeys((*self.wanted, *self.carried)))


def plan_segments(graph: onnx.GraphProto, wanted: Sequence[str], sizes: Mapping[str, int], budget: int) -> list[Segment]:
    """Cut a graph behind the last wanted tensor of each group of `plan_groups`; nodes that no wanted tensor depends on are in none.

    Args:
        graph: nodes in an order in which they can be computed.
        wanted: tensors that nodes make.
        sizes: bytes of each wanted tensor.
        budget: see `plan_groups`.
    """
    entry = graph.input[0].name
    position = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    order = sorted(dict.fromkeys(wanted), key=position.__getitem__)
    groups = plan_groups([sizes[name] for name in order], budget)
    ends = [position[order[group[-1]]] for group in groups]
    segments = [Segment(wanted=tuple(order[number] for number in group)) for group in groups]
    needed, moving = _ancestors(graph, order), _descendants(graph, entry)
    for number, node in enumerate(graph.node):
        if number not in needed:
            continue
        here = bisect_left(ends, number)
        for name in node.input:
            # What is computed from constants alone is computed again in each segment that reads it.
            made = -1 if name == entry else bisect_left(ends, position[name]) if name in moving else here
            if made < here:
                segments[here].reads[name] = None
                if made >= 0:
                    segments[made].carried[name] = None
    return segments


def _ancestors(graph: onnx.GraphProto, tensors: Sequence[str]) -> set[int]:
    """Numbers of the nodes that some tensors depend on."""
    missing, found = set(tensors), set()
    for number, node in reversed(list(enumerate(graph.node))):
        if missing.intersection(node.output):
            found.add(number)
            missing.update(node.input)
    return found


def _descendants(graph: onnx.GraphProto, entry: str) -> set[str]:
    """Tensors that depend on the graph's input."""
    found = {entry}
    for node in graph.node:
        if found.intersection(node.input):
            found.update(name for name in node.output if name)
    return found


def for_each_tensor(
    onnx_path: Path, tensors: Sequence[str], inputs: Sequence[NDArray[np.float32]], see: See, *, budget: int = BUDGET,
    tell: Tell = silent,
) -> None:  # fmt: skip
    """Show whole activations to `see`, for every input, while few of them exist at once.

    A segment's wanted tensors exist together and stay within the budget, unless one alone is larger; beside them there is what an
    ordinary inference keeps for later readers, and a copy of the one that is being looked at.

    Args:
        onnx_path: FP32 ONNX file with one input.
        tensors: names of activations, the input among them.
        inputs: float32 (1, C, D, H, W), all of one shape.
        see: is called in the graph's order for one input after the other.
        budget: bytes.
        tell: gets a line now and then.

    Raises:
        InputError: there are no inputs, or a tensor is not in the graph.
    """
    import onnx
    import onnxruntime as ort

    if not inputs:
        raise InputError("ranges need calibration inputs, and there are none", "add --calibration DIR")
    model = onnx.load(onnx_path, load_external_data=False)
    check_tensors(model.graph, tensors, onnx_path)
    model, entry = with_shapes(model, inputs[0].shape), model.graph.input[0].name
    wanted = [name for name in dict.fromkeys(tensors) if name != entry]
    segments = plan_segments(model.graph, wanted, _bytes(model.graph, wanted, budget), budget)
    sessions = _sessions(model, segments)
    for batch in paced(inputs, "counting values", tell):
        if entry in tensors:
            see(entry, batch)
        alive: dict[str, Any] = {entry: ort.OrtValue.ortvalue_from_numpy(batch)}
        for number, (segment, session) in enumerate(zip(segments, sessions, strict=True)):
            made = dict(zip(segment.outputs, session.run_with_ort_values(segment.outputs, _read(alive, segment)), strict=True))
            for name in segment.wanted:
                see(name, made[name].numpy())
            later = {name for other in segments[number + 1 :] for name in other.reads}
            alive = {name: value for name, value in (alive | made).items() if name in later}
            del made


def _read(alive: dict[str, Any], segment: Segment) -> dict[str, Any]:
    return {name: alive[name] for name in segment.reads}


def _bytes(graph: onnx.GraphProto, tensors: Sequence[str], unknown: int) -> dict[str, int]:
    """What tensors take; `unknown` for one whose shape cannot be inferred, so that it is alone."""
    shapes = shapes_of(graph)
    return {name: ITEM_BYTES * prod(shapes[name]) if name in shapes else unknown for name in tensors}


def _sessions(model: onnx.ModelProto, segments: Sequence[Segment]) -> list[Any]:
    from onnx.utils import Extractor

    extractor = Extractor(model)
    return [bounded_session(extractor.extract_model(list(segment.reads), segment.outputs)) for segment in segments]
