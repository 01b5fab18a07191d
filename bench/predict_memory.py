"""Predicted peak memory of an artifact on a target, and what to do where it does not fit."""

from __future__ import annotations

import math
from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.bench.predict_graph import Work
from edge_latup.bench.predict_records import MemoryPrediction
from edge_latup.segmentation.memory import FLOAT32, RUNTIME_WORKING, SMALLER_WINDOWS, in_gib
from edge_latup.targets.profile import Profile, TargetKind

RUNTIME_BYTES: Final[dict[TargetKind, int]] = {"x86": 90 << 20, "gpu": 600 << 20, "jetson": 600 << 20}
"""Of a process before it holds a model. x86: what a bench row held before its model was loaded. NVIDIA: 600 MB for the libraries
that TensorRT loads, NVIDIA's answer in https://forums.developer.nvidia.com/t/183109/3; newer TensorRT may take more or less."""
SYSTEM_BYTES: Final[dict[TargetKind, int]] = {"x86": 2 << 30, "gpu": 1 << 30, "jetson": 3 << 29}
"""Assumed share of the operating system with a desktop, or of driver and display on a card of its own."""
ALLOWANCE: Final = 1.15
"""On the activations alive at once: no runtime's memory plan is the tightest one. As large as the error that
tests/integration/test_memory.py allows the forecast of a whole case."""
COPIES: Final[dict[TargetKind, int]] = {"x86": 2, "gpu": 1, "jetson": 1}
"""Of the weights: OpenVINO keeps the file's beside those in its kernels' layout."""


def predict_memory(artifact: Artifact, work: Work, profile: Profile) -> MemoryPrediction:
    """Weights, activations, arrays and runtime against what the target leaves a model."""
    voxels, spec = math.prod(work.input_shape[2:]), artifact.manifest.spec
    arrays = FLOAT32 * voxels * (work.input_shape[1] + spec.channels)
    predicted = MemoryPrediction(
        weights=COPIES[profile.kind] * work.weight_bytes, activations=int(ALLOWANCE * work.activation_bytes), arrays=arrays,
        runtime=RUNTIME_BYTES[profile.kind] + RUNTIME_WORKING,
        available=max(0, int(profile.memory_gib.value * 2**30) - SYSTEM_BYTES[profile.kind]), fits=True,
    )  # fmt: skip
    if predicted.total <= predicted.available:
        return predicted
    reason = (
        f"it needs {in_gib(predicted.total)} and {profile.title} leaves about {in_gib(predicted.available)} of "
        f"{profile.memory_gib.value:g} GiB to a model"
    )
    return predicted.model_copy(update={"fits": False, "reason": reason, "instead": _instead(artifact, predicted, voxels)})


def _instead(artifact: Artifact, predicted: MemoryPrediction, voxels: int) -> str:
    """The largest window that fits, else a smaller precision, else another target. Activations and arrays go with the voxels."""
    fixed, per_voxel = predicted.weights + predicted.runtime, (predicted.activations + predicted.arrays) / voxels
    for side in (side for side in SMALLER_WINDOWS if side**3 < voxels and side % artifact.manifest.spec.divisor == 0):
        needed = int(fixed + per_voxel * side**3)
        if needed <= predicted.available:
            return f"sliding windows of {side}x{side}x{side} would need {in_gib(needed)}: export with --size {side}"
    if artifact.manifest.precision != "int8":
        return "an INT8 artifact holds a quarter of the bytes: edge-latup quantize ARTIFACT --method int8, then predict again"
    return "a target with more memory: edge-latup targets lists them"
