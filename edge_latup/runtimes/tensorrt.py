"""TensorRT: artifacts are made and checked for it here, and executed where its GPU is. This version opens none."""

from __future__ import annotations

from typing import Final, NoReturn

from edge_latup.artifact import Artifact
from edge_latup.errors import MissingDependencyError
from edge_latup.runtimes.base import RuntimeInfo, SessionOptions
from edge_latup.versions import version_of

NOT_EXECUTED: Final = (
    "edge-latup does not execute TensorRT: of its artifacts the file's rules and the reference numerics were checked, no engine was built"
)
BUILD: Final = (
    "build it on the GPU's machine: trtexec --onnx=model.onnx --saveEngine=model.engine (with TensorRT 10 also --stronglyTyped); "
    "check the file's rules here: edge-latup inspect ARTIFACT --rules tensorrt"
)


def is_available() -> bool:
    """False, also where the package is installed: what cannot be executed is not there."""
    return False


def describe() -> RuntimeInfo:
    """The package's version, if any, and no devices."""
    return RuntimeInfo(name="tensorrt", version=version_of("tensorrt"), devices=())


def open(artifact: Artifact, options: SessionOptions) -> NoReturn:  # noqa: A001  (the Protocol's verb)
    """Refuse.

    Raises:
        MissingDependencyError: always; it says what was checked instead, and what to do.
    """
    raise MissingDependencyError(f"{artifact.folder} is for TensorRT, and {NOT_EXECUTED}", BUILD)
