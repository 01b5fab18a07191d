"""What a TensorRT or a GPU cannot do, known before hours of building: the reason, the next best option, and where that is written.

Rules are data with a source; a target is plain values, so that profiles, a probed GPU and a test all ask the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edge_latup.errors import ArtifactError
from edge_latup.runtimes.onnx_facts import ModelFacts

Asked = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Version = tuple[int, int]

_MATRIX: Final = "docs.nvidia.com/deeplearning/tensorrt: Support Matrix, hardware and precision"
_NOTES: Final = "docs.nvidia.com/deeplearning/tensorrt: Release Notes 10.5.0, Volta support removed"
_OPERATORS: Final = "github.com/onnx/onnx-tensorrt docs/operators.md"
_MIGRATION: Final = "docs.nvidia.com/deeplearning/tensorrt: Migrating from TensorRT 10.x to 11.x"
_DLA: Final = "docs.nvidia.com/deeplearning/tensorrt: Working with DLA, layer support and restrictions"

FIRST_WITH: Final[dict[Asked, tuple[str, str]]] = {
    "fp8": ("8.9", "build INT8 (edge-latup quantize --method int8 --runtime tensorrt), which this GPU has tensor cores for"),
    "bf16": ("8.0", "build FP16 with norms in FP32: edge-latup quantize --method typed-fp16 --runtime tensorrt"),
    "int8": ("6.1", "build FP16 with norms in FP32: edge-latup quantize --method typed-fp16 --runtime tensorrt"),
    "fp16": ("5.3", "build FP32"),
}
"""Precision -> (the first compute capability that has it, what to do on older ones)."""
WITHOUT_INT8: Final = ("6.2",)
"""Newer than 6.1 and yet without INT8 in NVIDIA's table."""
LEAST_CAPABILITY: Final[tuple[tuple[Version, str], ...]] = (((10, 5), "7.5"), ((10, 0), "7.0"), ((8, 0), "5.0"))
"""TensorRT from a version on -> the oldest compute capability it runs on."""
OLDEST_EXPORTED: Final = 17
"""Of `edge-latup export --opset`."""
NEWEST_OPSET: Final[tuple[tuple[Version, int], ...]] = (((10, 15), 24), ((10, 0), 20), ((8, 5), 17), ((7, 2), 13))
"""TensorRT from a version on -> the newest ONNX operator set its parser is documented for. 10.0 to 10.14: at least that."""
PARSED_SINCE: Final[dict[str, Version]] = {
    "LayerNormalization": (8, 6), "GroupNormalization": (8, 6), "MeanVarianceNormalization": (8, 5), "Reciprocal": (8, 5), "Mod": (8, 5),
    "OneHot": (8, 5), "NonZero": (8, 5), "GridSample": (8, 5), "HardSwish": (8, 5), "Trilu": (8, 5), "Shrink": (8, 5),
}  # fmt: skip
"""Operators that older parsers have no importer for; read off the tables of the 8.4 and 8.5 releases (and NVIDIA/TensorRT#3642)."""
STRONGLY_TYPED: Final[Version] = (10, 3)
"""The first TensorRT that this project's runtime builds with."""
GIB: Final = 1 << 30
SYSTEM: Final = {False: GIB // 2, True: 2 * GIB}
"""Unified memory? -> bytes that are never the model's: CUDA's own, and on a board the system's. An assumption of this project."""


@dataclass(frozen=True, kw_only=True)
class TargetFacts:
    """Where an engine is to be built and run.

    memory_bytes: all there is, None where that is not known. reserved_bytes: of it, never the model's; None assumes `SYSTEM`.
    """

    name: str
    compute_capability: str | None
    tensorrt: str
    memory_bytes: int | None = None
    unified: bool = False
    dla: bool = False
    reserved_bytes: int | None = None

    @property
    def version(self) -> Version:
        """(major, minor); a series such as "11" counts as its first."""
        found = re.search(r"(\d+)(?:\.(\d+))?", self.tensorrt)
        return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """One thing that will not work: why, what to do instead, where that is written."""

    key: str
    reason: str
    instead: str
    source: str


Rule = Callable[[ModelFacts, TargetFacts, Asked], "Refused | None"]


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _since(table: Sequence[tuple[Version, str | int]], version: Version) -> str | int | None:
    """The entry of the newest row that is not newer than a version."""
    return next((value for first, value in table if version >= first), None)


def _dla(model: ModelFacts, target: TargetFacts, asked: Asked) -> Refused | None:
    if not (target.dla and model.spatial_axes == 3):
        return None
    return Refused(
        key="dla", reason="the network is 3-D, and a Deep Learning Accelerator takes 2-D tensors only",
        instead="build for the board's GPU: leave out --dla", source=_DLA,
    )  # fmt: skip


def _precision(model: ModelFacts, target: TargetFacts, asked: Asked) -> Refused | None:
    own = target.compute_capability
    wanted: list[Asked] = [asked]
    wanted += ["fp8"] if any(name.startswith("float8") for name in model.types) else []
    wanted += ["bf16"] if "bfloat16" in model.types else []
    wanted += ["int8"] if model.quantized else []
    for precision in wanted:
        first, instead = FIRST_WITH.get(precision, ("0.0", ""))
        if own is not None and (_capability(own) < _capability(first) or (precision == "int8" and own in WITHOUT_INT8)):
            return Refused(
                key=precision, source=_MATRIX, instead=instead,
                reason=f"{precision.upper()} needs compute capability {first} or newer; {target.name} has {own}",
            )  # fmt: skip
    return None


def _no_qdq(model: ModelFacts, target: TargetFacts, asked: Asked) -> Refused | None:
    if asked not in ("int8", "fp8") or model.quantized:
        return None
    gone = "TensorRT 11 has no calibrators" if target.version >= (11, 0) else "calibrators are not used: engines are strongly typed"
    return Refused(
        key="no-qdq", source=_MIGRATION,
        reason=f"{asked.upper()} was asked from a graph without Q/DQ: its types say float, so every layer would run in float ({gone})",
        instead="make an explicitly quantized file: edge-latup quantize ARTIFACT --method int8 --runtime tensorrt --calibration DIR",
    )  # fmt: skip


def _old_gpu(model: ModelFacts, target: TargetFacts, asked: Asked) -> Refused | None:
    least = _since(LEAST_CAPABILITY, target.version)
    if least is None or target.compute_capability is None or _capability(target.compute_capability) >= _capability(str(least)):
        return None
    return Refused(
        key="old-gpu", source=f"{_NOTES}; {_MATRIX}",
        reason=f"TensorRT {target.tensorrt} runs on compute capability {least} and newer; {target.name} has {target.compute_capability}",
        instead="use the TensorRT of the board's own JetPack, or ONNX Runtime with its CUDA provider",
    )  # fmt: skip


def _opset(model: ModelFacts, target: TargetFacts, asked: Asked) -> Refused | None:
    newest = _since(NEWEST_OPSET, target.version)
    if not isinstance(newest, int) or model.opset <= newest:
        return None
    if newest >= OLDEST_EXPORTED:
        instead = f"edge-latup export --opset {newest}, quantized with its float part in FP32 (FP16 scales need opset 19)"
    else:
        instead = f"install a newer JetPack, or run the FP32 artifact in ONNX Runtime: edge-latup exports opset {OLDEST_EXPORTED} and newer"
    return Refused(
        key="opset", source=f"{_OPERATORS} of the release",
        reason=f"the file has opset {model.opset}, and the parser of TensorRT {target.tensorrt} reads up to {newest}",
        instead=instead,
    )  # fmt: skip


def _operators(model: ModelFacts, target: TargetFacts, asked: Asked) -> Refused | None:
    missing = sorted(name for name in model.operators if PARSED_SINCE.get(name, (0, 0)) > target.version)
    if not missing and not model.foreign:
        return None
    named = ", ".join([*missing, *sorted(model.foreign)])
    return Refused(
        key="operators", source=_OPERATORS + ", tables of 8.4 and 8.5; NVIDIA/TensorRT#3642",
        reason=f"the parser of TensorRT {target.tensorrt} has no importer for {named}",
        instead="export so that they are spelled out in older operators (mean, subtract, multiply), or install a newer JetPack",
    )  # fmt: skip


def _old_tensorrt(model: ModelFacts, target: TargetFacts, asked: Asked) -> Refused | None:
    if target.version >= STRONGLY_TYPED:
        return None
    return Refused(
        key="old-tensorrt", source="docs.nvidia.com/deeplearning/tensorrt: Strongly Typed Networks",
        reason=f"engines are built strongly typed, with TensorRT 10.3 or newer; {target.name} has {target.tensorrt}",
        instead="build on the board with its own tool (trtexec --onnx=model.onnx --int8 --fp16 --saveEngine=model.engine) and read the"
        " precision back with --dumpLayerInfo --profilingVerbosity=detailed; or run the FP32 artifact in ONNX Runtime",
    )  # fmt: skip


def _memory(model: ModelFacts, target: TargetFacts, asked: Asked) -> Refused | None:
    if target.memory_bytes is None or model.activation_bytes is None:
        return None
    reserved = SYSTEM[target.unified] if target.reserved_bytes is None else target.reserved_bytes
    needed, left = model.weight_bytes + model.activation_bytes, target.memory_bytes - reserved
    if needed <= left:
        return None
    return Refused(
        key="memory", source="counted from the graph: weights, and the most activations alive at once; an estimate, engines fuse and reuse",
        reason=f"the model needs about {needed / GIB:.1f} GiB (computed), and {target.name} has about {max(left, 0) / GIB:.1f} GiB for it",
        instead="use a smaller patch (windows instead of the whole head), INT8 over FP16, or a narrower network",
    )  # fmt: skip


RULES: Final[tuple[Rule, ...]] = (_dla, _precision, _no_qdq, _old_gpu, _opset, _operators, _old_tensorrt, _memory)


def refusals(model: ModelFacts, target: TargetFacts, asked: Asked) -> list[Refused]:
    """Every reason why this file gives no engine of that precision there."""
    return [refused for rule in RULES if (refused := rule(model, target, asked)) is not None]


def refuse(model: ModelFacts, target: TargetFacts, asked: Asked, what: str) -> None:
    """Stop before anything is built.

    Raises:
        ArtifactError: with the first reason and the next best option.
    """
    if found := refusals(model, target, asked):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ArtifactError(f"{what} on {target.name}: {found[0].reason}{more} [{found[0].source}]", found[0].instead)
