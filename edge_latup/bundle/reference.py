"""What a TensorRT artifact must give, computed where bundles are made: on the CPU, node by node, because no engine can be built there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from edge_latup.artifact import Artifact
from edge_latup.manifest import RuntimeName
from edge_latup.runtimes import choose_runtime, open_session
from edge_latup.runtimes.base import Batch, SessionOptions, fixed_shape
from edge_latup.segmentation.engine import Predictor


def predictor_of(artifact: Artifact, runtime: RuntimeName, threads: int) -> AbstractContextManager[Predictor]:
    """What computes an expectation: the runtime of the target, or reference numerics where that is TensorRT.

    Raises:
        EdgeLatupError: the artifact cannot be opened here.
    """
    if runtime == "tensorrt":
        return nullcontext(ReferenceNumerics(artifact))
    return open_session(artifact, choose_runtime(artifact, runtime), SessionOptions(threads=threads))


class ReferenceNumerics:
    """A predictor (`segmentation.engine.Predictor`) that computes a TensorRT artifact's graph in float, Q/DQ rounding as it stands.

    Raises:
        ArtifactError: ONNX Runtime cannot load the file.
    """

    def __init__(self, artifact: Artifact) -> None:
        from edge_latup.quantize.tensorrt_int8 import simulator

        self._run, manifest = simulator(artifact.model_path), artifact.manifest
        self._shape = fixed_shape(manifest.input_shape, manifest.spec)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, D, H, W): that of the engine which will be built."""
        return self._shape

    def infer(self, batch: Batch) -> Batch:
        """Class probabilities float32 (N, classes, D, H, W) of float32 (N, C, D, H, W)."""
        return self._run(batch)
