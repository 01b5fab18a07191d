"""Runtimes: software that executes an artifact. One Protocol, one dict, no scanning."""

from __future__ import annotations

from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, MissingDependencyError
from edge_latup.manifest import RuntimeName
from edge_latup.runtimes import onnxruntime, openvino, pytorch
from edge_latup.runtimes.base import RuntimeModule, Session, SessionOptions

RUNTIMES: Final[dict[RuntimeName, RuntimeModule]] = {
    "openvino": openvino,
    "onnxruntime": onnxruntime,
    "pytorch": pytorch,
}

INSTALL: Final[dict[RuntimeName, str]] = {
    "openvino": "pip install 'edge-latup[core]'",
    "onnxruntime": "pip install 'edge-latup[onnxruntime]'",
    "pytorch": "pip install 'edge-latup[engineer]'",
}


def open_session(artifact: Artifact, runtime: RuntimeName | None = None, options: SessionOptions | None = None) -> Session:
    """Open `artifact` on a runtime (default: the first it was made for).

    Raises:
        ArtifactError: the artifact was not made for that runtime.
        MissingDependencyError: the runtime is not installed.
    """
    chosen = runtime or artifact.manifest.runtimes[0]
    if chosen not in artifact.manifest.runtimes:
        raise ArtifactError(
            f"{artifact.folder} was made for {', '.join(artifact.manifest.runtimes)}, not for {chosen}",
            f"choose one of those, or make a file for it: edge-latup quantize ARTIFACT --runtime {chosen}",
        )
    if not RUNTIMES[chosen].is_available():
        raise MissingDependencyError(f"runtime {chosen} is not installed", INSTALL[chosen])
    return RUNTIMES[chosen].open(artifact, options or SessionOptions())
