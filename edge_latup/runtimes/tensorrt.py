"""TensorRT 10.3 to 10.16 and 11 behind one interface: strongly typed engines from typed ONNX, proven when built, verified when loaded.

What can be checked without a GPU was: every name and call against NVIDIA's bindings of both generations, the logic against a recording
double. No engine was built or run by this project so far; docs/tensorrt.md says what to run where a GPU is.
"""

from __future__ import annotations

from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.errors import MissingDependencyError
from edge_latup.runtimes.base import RuntimeInfo, Session, SessionOptions, installed
from edge_latup.runtimes.tensorrt_system import allow_system_tensorrt
from edge_latup.versions import version_of

INSTALL: Final = (
    "in edge-latup's folder: pip install -c constraints.txt '.[audit,tensorrt]' tensorrt"
    " on a machine with an NVIDIA GPU; JetPack 6 has TensorRT: leave the last word out"
)
BUILD: Final = (
    f"{INSTALL}. Without Python there: trtexec --onnx=model.onnx --saveEngine=model.engine (with TensorRT 10 also --stronglyTyped). "
    "Check the file's rules here: edge-latup inspect ARTIFACT --rules tensorrt --target NAME"
)


def is_available() -> bool:
    """Whether TensorRT and cuda-bindings import, and a GPU answers."""
    return not missing()


def missing() -> str:
    """What is not here, in words; empty where an engine could be built and run."""
    allow_system_tensorrt()
    for package, name in (("tensorrt", "tensorrt"), ("cuda", "cuda-bindings")):
        if not installed(package):
            return f"TensorRT needs {name}, which is not installed"
    try:
        import tensorrt  # noqa: F401

        from edge_latup.runtimes.tensorrt_cuda import device_count

        devices = device_count()
    except (ImportError, OSError, RuntimeError) as error:
        return f"TensorRT does not import: {error}"
    return "" if devices else "TensorRT needs an NVIDIA GPU and its driver, and CUDA finds none"


def describe() -> RuntimeInfo:
    """The package's version, and GPU 0 where there is one."""
    if missing():
        return RuntimeInfo(name="tensorrt", version=version_of("tensorrt"), devices=())
    from edge_latup.runtimes.tensorrt_cuda import describe_device
    from edge_latup.runtimes.tensorrt_engine import tensorrt_version

    device = describe_device()
    return RuntimeInfo(
        name="tensorrt", version=tensorrt_version(), devices=(f"{device.identity}, compute capability {device.compute_capability}",)
    )


def open(artifact: Artifact, options: SessionOptions) -> Session:  # noqa: A001  (the Protocol's verb)
    """Find or build the artifact's engine for this GPU, and load it.

    Raises:
        ArtifactError: it cannot be built, or the engine is not what it should be.
        MissingDependencyError: TensorRT, cuda-bindings or a GPU is missing.
    """
    if told := missing():
        raise MissingDependencyError(f"{artifact.folder} is for TensorRT: {told}", BUILD)
    from edge_latup.runtimes.tensorrt_engine import open_engine

    return open_engine(artifact, options)
