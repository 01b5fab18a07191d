"""What a Q/DQ ONNX file must keep so that TensorRT takes it, computes what was meant, and does so in INT8. Read off the file; no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from edge_latup.errors import ArtifactError
from edge_latup.onnx_wire import refuse_external_data
from edge_latup.quantize.onnx_graph import GraphIndex
from edge_latup.quantize.tensorrt_checks import CHECKS, dla_breaches

if TYPE_CHECKING:
    import onnx

Severity = Literal["error", "warning"]
"""error: TensorRT refuses the file, computes something else, or leaves the layer in float. warning: slower, less exact, or unsettled."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule; `source` is the page, file or thread that it was read in."""

    severity: Severity
    remedy: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A node that breaks a rule."""

    rule: str
    severity: Severity
    node: str
    message: str
    remedy: str
    source: str


_EXPLICIT: Final = "docs.nvidia.com/deeplearning/tensorrt: Explicit Quantization"
_TYPES: Final = "docs.nvidia.com/deeplearning/tensorrt: Working with Quantized Types"
_IMPORTER: Final = "onnx/onnx-tensorrt builtin_op_importers.cpp, QuantDequantLinearHelper"
_OPERATORS: Final = "onnx/onnx-tensorrt docs/operators.md"
_REMAKE: Final = "make the file again: edge-latup quantize ARTIFACT --method int8 --runtime tensorrt"

RULES: Final[dict[str, Rule]] = {
    "not-quantized": Rule(severity="error", remedy=_REMAKE, source=_EXPLICIT),
    "opset": Rule(severity="error", remedy="export at opset 17 to 20", source="onnx/onnx docs/Changelog.md; " + _OPERATORS),
    "foreign-operation": Rule(severity="error", remedy=_REMAKE, source=_OPERATORS),
    "zero-point": Rule(severity="error", remedy="quantize symmetrically; " + _REMAKE, source=_IMPORTER),
    "type": Rule(severity="error", remedy="quantize to int8, and say so with an int8 zero point; " + _REMAKE, source=_IMPORTER),
    "scale": Rule(severity="error", remedy="store positive constant scales, FP16 ones at opset 19 or newer", source=_IMPORTER),
    "weight-axis": Rule(
        severity="error", remedy="one scale per output channel: axis 0 of Conv, 1 of ConvTranspose",
        source="NVIDIA/TensorRT#1694; NVIDIA/Model-Optimizer onnx/quantization/ort_utils.py",
    ),
    "weight-per-tensor": Rule(
        severity="warning", remedy="one scale per output channel loses less; " + _REMAKE, source=_TYPES,
    ),
    "transposed-axis-unsettled": Rule(
        severity="warning",
        remedy="compare the engine's output with the reference numerics; one scale per tensor means the same along both axes",
        source="NVIDIA/TensorRT#1694 and #2380 (TensorRT 8: scales along axis 0) against Model-Optimizer's ONNX quantizer (axis 1)",
    ),
    "activation-per-channel": Rule(severity="error", remedy="one scale per activation tensor; " + _REMAKE, source=_IMPORTER),
    "half-quantized": Rule(severity="error", remedy="quantize both the input and the weight of a layer, or neither", source=_EXPLICIT),
    "bias": Rule(
        severity="error", remedy="store the bias as float",
        source="onnx/onnx-tensorrt builtin_op_importers.cpp, Conv: the bias is an initialiser",
    ),
    "dangling": Rule(severity="error", remedy="follow every QuantizeLinear by a DequantizeLinear; " + _REMAKE, source=_EXPLICIT),
    "transposed-output": Rule(
        severity="error", remedy="add Q/DQ behind the layer, or behind its activation", source="NVIDIA/TensorRT#3412, #4668, #1699",
    ),
    "float-operation": Rule(
        severity="error", remedy="let norms, softmax and attention read the float tensor",
        source="NVIDIA/TensorRT#1408, #2691; pytorch/pytorch#54837",
    ),
    "concat-scales": Rule(
        severity="warning", remedy="give the inputs of a concat one scale",
        source="NVIDIA/TensorRT#2597; NVIDIA/Model-Optimizer concat_elimination",
    ),
    "resize": Rule(
        severity="warning", remedy="start from the artifact of --method rewrite, which has no Resize before a convolution",
        source="NVIDIA/TensorRT#1310",
    ),
    "grouped": Rule(severity="warning", remedy="leave grouped 3-D convolutions in float", source="NVIDIA/TensorRT#1176"),
    "alignment": Rule(
        severity="warning", remedy="use widths in multiples of 32, or leave the layer in float",
        source="NVIDIA/TensorRT#1310; format kCDHW32",
    ),
    "dla": Rule(
        severity="error", remedy="build for the GPU: no version of DLA takes 3-D convolutions",
        source="docs.nvidia.com/deeplearning/tensorrt: DLA Layer Restrictions",
    ),
}  # fmt: skip


def check_model(model: onnx.ModelProto, *, dla: bool = False) -> list[Finding]:
    """Every breach of `RULES`, in the order of the rules; `dla` also asks whether a Deep Learning Accelerator could run it."""
    index = GraphIndex(model.graph)
    breaches = [breach for check in CHECKS for breach in check(model, index)]
    breaches += dla_breaches(model, index) if dla else []
    order = list(RULES)
    found = [_finding(*breach) for breach in dict.fromkeys(breaches)]
    return sorted(found, key=lambda finding: order.index(finding.rule))


def _finding(rule: str, node: str, message: str) -> Finding:
    broken = RULES[rule]
    return Finding(rule=rule, severity=broken.severity, node=node, message=message, remedy=broken.remedy, source=broken.source)


def check_file(path: Path, *, dla: bool = False) -> list[Finding]:
    """`check_model` on an ONNX file.

    Raises:
        ArtifactError: it is missing, not ONNX, or keeps weights in other files.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, an OSError, or what onnx makes of a wrong ending
        raise ArtifactError(f"{path} cannot be read as ONNX: {error}", "give an .onnx file, or the folder of an ONNX artifact") from error
    if not model.graph.node:  # bytes that are no ONNX at all may parse as an empty message
        raise ArtifactError(f"{path} is not ONNX: it holds no graph", "give an .onnx file, or the folder of an ONNX artifact")
    refuse_external_data(path)
    return check_model(model, dla=dla)


def errors_of(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that keep a file from being shipped."""
    return [finding for finding in findings if finding.severity == "error"]


def refuse_errors(findings: Sequence[Finding], what: str) -> None:
    """Refuse a file that breaks a rule.

    Raises:
        ArtifactError: with the first breach and how many there are.
    """
    if errors := errors_of(findings):
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ArtifactError(f"{what} breaks TensorRT's rule {first.rule!r} at {first.node}: {first.message}{more}", first.remedy)
