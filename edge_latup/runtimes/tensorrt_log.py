"""What TensorRT says while it builds, made into sentences: skipped tactics are harmless, what ran out of memory is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from edge_latup.errors import ArtifactError, EdgeLatupError
from edge_latup.runtimes.tensorrt_cuda import CLOSE, DeviceMemoryError

if TYPE_CHECKING:
    import tensorrt as trt

SKIPPED: Final = (re.compile(r"skipping tactic", re.I), re.compile(r"insufficient to use tactic|tactic device request", re.I))
"""Two ways of saying it; a tactic may be told of in both."""
OUT_OF_MEMORY: Final = re.compile(r"out of memory|outofmemory|insufficient memory|cudamalloc.*fail|allocation fail", re.I)
NO_IMPLEMENTATION: Final = re.compile(r"could not find any implementation for node (.+?)(?: due to .*|\.?\)*\.?)$", re.I)
NEWER_PLAN: Final = re.compile(r"serialization(version)?|version tag|incompatible|platform", re.I)
KEPT: Final = 20
"""So many warnings are kept in the record."""


def make_log() -> tuple[trt.ILogger, list[str], list[str]]:
    """(a logger for TensorRT, its warnings, its errors); the lists grow while TensorRT works."""
    import tensorrt as trt

    warnings: list[str] = []
    errors: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]  # untyped where TensorRT is not installed
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                errors.append(msg)
            elif severity == trt.ILogger.Severity.WARNING:
                warnings.append(msg)

    return Log(), warnings, errors


def skipped_tactics(lines: Sequence[str]) -> int:
    """How many kernels TensorRT passed over because they wanted more memory than it may take."""
    return max(sum(bool(words.search(line)) for line in lines) for words in SKIPPED)


def explain_skipped(count: int, workspace: int) -> str:
    """Why that is nothing to fear, in one sentence; empty where nothing was skipped."""
    if not count:
        return ""
    return (
        f"{count} tactics wanted more than the {workspace / 2**20:,.0f} MiB of workspace and were passed over for others: the engine is"
        " correct, maybe slower; close what else uses the GPU's memory to let them be tried"
    )


def build_failure(errors: Sequence[str], workspace: int, model: str) -> EdgeLatupError:
    """The error for a build that gave no engine: out of memory, a layer without a kernel, or TensorRT's own words."""
    for line in errors:
        if found := NO_IMPLEMENTATION.search(line):
            return ArtifactError(
                f"TensorRT has no kernel for {found[1]} of {model} in {workspace / 2**20:,.0f} MiB of workspace",
                "give more memory (--workspace-mib, or close other programs); where that is not it, leave that layer in float: "
                "edge-latup quantize ... --keep-float NAME",
            )
    if out := next((line for line in errors if OUT_OF_MEMORY.search(line)), None):
        return DeviceMemoryError(f"the GPU ran out of memory while TensorRT built {model}: {out.strip()}", CLOSE)
    told = errors[0].strip() if errors else "it gave no reason"
    return ArtifactError(f"TensorRT cannot build {model}: {told}", "check the file's rules: edge-latup inspect ARTIFACT --rules tensorrt")


def load_failure(errors: Sequence[str], engine: str) -> EdgeLatupError:
    """The error for an engine that was not deserialised."""
    told = errors[0].strip() if errors else "it gave no reason"
    if any(OUT_OF_MEMORY.search(line) for line in errors):
        return DeviceMemoryError(f"the GPU has no memory left to load {engine}: {told}", CLOSE)
    hint = "delete it, and it is built again for what is installed now" if NEWER_PLAN.search(told) else "delete it, and it is built again"
    return ArtifactError(f"TensorRT cannot load {engine}: {told}", hint)
