"""Runtimes: software that executes an artifact. One Protocol, one dict, no scanning."""

from __future__ import annotations

import platform
from typing import Final

from edge_latup.artifact import Artifact, refuse_outside
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError, install_hint
from edge_latup.manifest import RuntimeName
from edge_latup.runtimes import onnxruntime, openvino, pytorch, tensorrt
from edge_latup.runtimes.base import RuntimeModule, Session, SessionOptions

RUNTIMES: Final[dict[RuntimeName, RuntimeModule]] = {
    "openvino": openvino,
    "onnxruntime": onnxruntime,
    "pytorch": pytorch,
    "tensorrt": tensorrt,
}

ARM: Final = ("aarch64", "arm64")

INSTALL: Final[dict[RuntimeName, str]] = {
    "openvino": install_hint("core"),
    "onnxruntime": install_hint("onnxruntime"),
    "pytorch": install_hint("engineer"),
    "tensorrt": tensorrt.BUILD,
}


MAKE: Final[dict[RuntimeName, str]] = {
    "openvino": "edge-latup export CHECKPOINT --out ARTIFACT, then edge-latup quantize ARTIFACT --method bf16 --out OTHER (or int8)",
    "onnxruntime": "edge-latup export CHECKPOINT --out ARTIFACT, then edge-latup quantize ARTIFACT --method int8 --runtime onnxruntime"
    " --calibration CASES --out OTHER",
    "pytorch": "edge-latup export CHECKPOINT --reference --out ARTIFACT",
    "tensorrt": "edge-latup export CHECKPOINT --out ARTIFACT, then edge-latup quantize ARTIFACT --method typed-fp16 --runtime tensorrt"
    " --out OTHER (or int8, typed-fp32)",
}
"""What makes an artifact for a runtime."""

WITH_OPTIONS: Final[tuple[RuntimeName, ...]] = ("onnxruntime", "tensorrt")
"""Runtimes that read `SessionOptions.runtime_options`."""


def choose_runtime(artifact: Artifact, runtime: RuntimeName | None = None) -> RuntimeName:
    """The runtime that will execute `artifact`: the one asked for, or the first it was made for.

    Raises:
        ArtifactError: the artifact was not made for that runtime.
        MissingDependencyError: the runtime is not installed, or is executed elsewhere.
    """
    chosen = runtime_made_for(artifact, runtime or _preferred(artifact))
    if not RUNTIMES[chosen].is_available():
        message = tensorrt.missing() if chosen == "tensorrt" else f"runtime {chosen} is not installed"
        raise MissingDependencyError(message, INSTALL[chosen])
    return chosen


def preferred_on(machine: str, artifact: Artifact) -> RuntimeName:
    """The runtime that is best for `artifact` on a processor such as "x86_64": the first it was made for.

    On ARM, ONNX Runtime where the artifact may go there: OpenVINO 2026.4 has only reference kernels for 3-D convolutions there.
    """
    runtimes = artifact.manifest.runtimes
    return "onnxruntime" if machine in ARM and "onnxruntime" in runtimes else runtimes[0]


def _preferred(artifact: Artifact) -> RuntimeName:
    best = preferred_on(platform.machine(), artifact)
    return best if RUNTIMES[best].is_available() else artifact.manifest.runtimes[0]


def runtime_made_for(artifact: Artifact, runtime: RuntimeName | None = None) -> RuntimeName:
    """The runtime asked for, or the first `artifact` was made for, whether or not it is installed here.

    Raises:
        ArtifactError: the artifact was not made for that runtime.
    """
    chosen = runtime or artifact.manifest.runtimes[0]
    if chosen not in artifact.manifest.runtimes:
        made_for = ", ".join(artifact.manifest.runtimes)
        hint = f"use {made_for}, or make an artifact for {chosen}: {MAKE[chosen]}"
        raise ArtifactError(f"{artifact.folder} was made for {made_for}, not for {chosen}", hint)
    return chosen


def open_session(artifact: Artifact, runtime: RuntimeName | None = None, options: SessionOptions | None = None) -> Session:
    """Open `artifact` on a runtime (default: the first it was made for).

    Raises:
        ArtifactError: the artifact was not made for that runtime, or the runtime cannot load it, or it keeps weights outside itself.
        InputError: the runtime has no such option.
        MissingDependencyError: the runtime is not installed or does not start, or does not compute in the precision asked for.
    """
    chosen = choose_runtime(artifact, runtime)
    refuse_outside(artifact)
    if options is not None and options.runtime_options and chosen not in WITH_OPTIONS:
        raise InputError(
            f"{chosen} has no option {sorted(options.runtime_options)[0]!r}", f"only {' and '.join(WITH_OPTIONS)} have options"
        )
    try:
        return RUNTIMES[chosen].open(artifact, options or SessionOptions())
    except ImportError as error:
        raise MissingDependencyError(f"runtime {chosen} cannot be imported: {error}", f"install it again: {INSTALL[chosen]}") from error
