"""What ONNX Runtime executes: the graph as it optimised it, and its profile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_latup.runtimes.matching import Executed, Kind
from edge_latup.runtimes.onnxruntime_providers import CPU

if TYPE_CHECKING:
    import onnx

INTEGER_OPERATIONS: Final = (
    "QLinearConv", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
)  # fmt: skip
"""Operations that multiply integers; an unfused QuantizeLinear/DequantizeLinear pair around a float Conv is not one."""
KINDS: Final[tuple[tuple[str, Kind], ...]] = (
    ("ConvTranspose", "transposed convolution"), ("Conv", "convolution"), ("MatMul", "dense"), ("Gemm", "dense"),
)  # fmt: skip
"""Part of an operation's name -> its kind; the first that fits."""
NOT_COMPUTING: Final = ("Constant",)
FUSED: Final = "fused "
TOKEN: Final = "_token_"
KERNEL_TIME: Final = "_kernel_time"


def executed_operations(
    graph: onnx.GraphProto, times: Mapping[str, float] | None = None, assigned: Mapping[str, str] | None = None
) -> list[Executed]:  # fmt: skip
    """Operations of the optimised graph.

    Args:
        graph: as ONNX Runtime wrote it.
        times: microseconds of one inference by node, where it was profiled.
        assigned: execution provider by node of the file; one that is not the CPU's is named before the kernel.
    """
    constants = {tensor.name for tensor in graph.initializer}
    return [_executed(node, constants, times, assigned or {}) for node in graph.node if node.op_type not in NOT_COMPUTING]


def _executed(node: onnx.NodeProto, constants: set[str], times: Mapping[str, float] | None, assigned: Mapping[str, str]) -> Executed:
    provider = assigned.get(_original(node.name), CPU)
    who = "" if provider == CPU else f"{provider.removesuffix('ExecutionProvider')}: "
    return Executed(
        nodes=frozenset({node.name, _original(node.name)}) - {""},
        hints=frozenset({*(name for name in node.input if name in constants), *node.output}) - {""},
        kind=next((kind for part, kind in KINDS if part in node.op_type), None),
        precision="int8" if node.op_type in INTEGER_OPERATIONS else "fp32",
        kernel=who + (f"{node.domain}.{node.op_type}" if node.domain else node.op_type),
        microseconds=None if times is None else times.get(node.name, 0.0),
    )


def _original(name: str) -> str:
    """A node's name in the file: the optimiser adds "fused ", "_token_7" or "/MatMulAddFusion"."""
    return name.removeprefix(FUSED).partition(TOKEN)[0].partition("/MatMulAddFusion")[0].partition("/MatmulTransposeFusion")[0]


def profiled(path: Path) -> dict[str, float]:
    """Microseconds of one inference by node, the mean over all inferences in a profile that ONNX Runtime wrote."""
    events = json.loads(path.read_text(encoding="utf-8"))
    runs = sum(event.get("name") == "model_run" for event in events)
    times: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL_TIME):
            times[event["name"].removesuffix(KERNEL_TIME)] += event["dur"]
    return {name: time / runs for name, time in times.items()} if runs else {}
