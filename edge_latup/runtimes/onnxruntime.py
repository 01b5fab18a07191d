"""ONNX Runtime: the portable fallback, on the CPU unless its CUDA or TensorRT provider is asked for.

Its float part is always FP32: on x86 it has no other arithmetic, and TF32, the GPU's default, is switched off unless asked for.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, MissingDependencyError, install_hint
from edge_latup.runtimes.audit import Audit
from edge_latup.runtimes.base import Batch, Kernel, RuntimeInfo, SessionOptions, check_batch, fixed_shape, installed
from edge_latup.runtimes.matching import audited
from edge_latup.runtimes.onnx_audit import declared_layers
from edge_latup.runtimes.onnxruntime_audit import INTEGER_OPERATIONS, executed_operations, profiled
from edge_latup.runtimes.onnxruntime_providers import RECORD_ASSIGNMENT, alarm, choice_of, provider_list, refuse_silent_cpu

if TYPE_CHECKING:
    import onnxruntime as ort

OPTIMISED: Final = "optimised.onnx"


def is_available() -> bool:
    """Whether onnxruntime is installed."""
    return installed("onnxruntime")


def describe() -> RuntimeInfo:
    """Version and execution providers."""
    import onnxruntime as ort

    return RuntimeInfo(name="onnxruntime", version=ort.__version__, devices=tuple(ort.get_available_providers()))


def open(artifact: Artifact, options: SessionOptions) -> OnnxRuntimeSession:  # noqa: A001  (the Protocol's verb)
    """Create an inference session; runtime options: provider (cpu, cuda, tensorrt), tf32, fallback (see `onnxruntime_providers`).

    Raises:
        ArtifactError: ONNX Runtime cannot load the model.
        InputError: there is no such option.
        MissingDependencyError: another float precision than FP32 was asked for, a provider is missing or did not start, or the CPU was
            left with what multiplies.
    """
    import onnxruntime as ort

    asked = options.float_precision or artifact.manifest.float_precision
    if asked != "fp32":
        raise MissingDependencyError(f"ONNX Runtime's CPU provider computes in fp32, not {asked}", "use --runtime openvino")
    choice = choice_of(options.runtime_options)
    providers = provider_list(choice, ort.get_available_providers())
    folder = tempfile.TemporaryDirectory(prefix="edge-latup-")
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.thread_count
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # The optimised graph is what is executed: it is written out so that the kernels can be counted.
    settings.optimized_model_filepath = str(Path(folder.name) / OPTIMISED)
    settings.enable_profiling = options.profile
    settings.profile_file_prefix = str(Path(folder.name) / "profile")
    settings.add_session_config_entry(RECORD_ASSIGNMENT, "1")
    try:
        session = ort.InferenceSession(str(artifact.model_path), settings, providers=providers)
        refuse_silent_cpu(choice, session.get_providers())
        assigned = alarm(session, choice)
    except failures() as error:
        folder.cleanup()
        raise _refusal("load", artifact, error) from error
    except MissingDependencyError:
        folder.cleanup()
        raise
    return OnnxRuntimeSession(session, folder, artifact, profile=options.profile, assigned=assigned, tf32=choice.tf32)


def failures() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions: a dozen classes without a common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))


def _refusal(verb: str, artifact: Artifact, error: Exception) -> ArtifactError:
    reason = str(error).strip().partition("\n")[0]
    return ArtifactError(f"ONNX Runtime cannot {verb} {artifact.model_path}: {reason}", "use another runtime, or make the artifact again")


class OnnxRuntimeSession:
    """An inference session and its optimised graph on disk."""

    def __init__(
        self, session: ort.InferenceSession, folder: tempfile.TemporaryDirectory[str], artifact: Artifact, *, profile: bool = False,
        assigned: dict[str, str] | None = None, tf32: bool = False,
    ) -> None:  # fmt: skip
        self._session, self._folder, self._artifact = session, folder, artifact
        self._tf32 = tf32
        self.assigned = assigned
        """Node of the file -> execution provider that it was given to; None where this ONNX Runtime cannot tell."""
        self._times: dict[str, float] | None = None
        self._profiling = profile

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, D, H, W); -1 where the size is free."""
        return tuple(size if isinstance(size, int) else -1 for size in self._session.get_inputs()[0].shape)

    @property
    def float_precision(self) -> str:
        """Of the CPU's only float arithmetic, "f32"; or "tf32" where a GPU was allowed it."""
        return "tf32" if self._tf32 else "f32"

    def infer(self, batch: Batch) -> Batch:
        """See `Session.infer`."""
        checked = check_batch(batch, self.input_shape, self._artifact.manifest.spec.divisor)
        try:
            output: Batch = self._session.run(None, {self._session.get_inputs()[0].name: checked})[0]
        except failures() as error:
            raise _refusal("run", self._artifact, error) from error
        return output

    def executed_kernels(self) -> Sequence[Kernel]:
        """From the optimised graph.

        Raises:
            MissingDependencyError: onnx, which reads it, is not installed.
        """
        graph = self._optimised()
        return [
            Kernel(
                name=node.name,
                operation=node.op_type,
                precision="i8" if node.op_type in INTEGER_OPERATIONS else "f32",
                implementation=json.dumps([node.domain or "ai.onnx", node.op_type]),
            )
            for node in graph.node
        ]

    def audit(self) -> Audit:
        """See `Session.audit`; where profiled, of the inferences before the first audit.

        Raises:
            ArtifactError: the shapes in the file cannot be inferred.
            MissingDependencyError: onnx, which reads it, is not installed.
        """
        graph, manifest = self._optimised(), self._artifact.manifest
        if self._profiling:
            # A session writes one profile and then goes on without.
            self._profiling, self._times = False, profiled(Path(self._session.end_profiling()))
        shape = fixed_shape(self.input_shape, manifest.spec)
        declared = declared_layers(self._artifact.model_path, shape, manifest.float_precision)
        return audited("onnxruntime", shape, declared, executed_operations(graph, self._times, self.assigned))

    def _optimised(self) -> Any:
        if not installed("onnx"):
            raise MissingDependencyError("reading which kernels ONNX Runtime executes needs onnx", install_hint("engineer"))
        import onnx

        return onnx.load(str(Path(self._folder.name) / OPTIMISED), load_external_data=False).graph

    def activation_bytes(self) -> int | None:
        """None: ONNX Runtime's arena keeps what it once took, so the graph does not tell its peak."""
        return None

    def __enter__(self) -> OnnxRuntimeSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._session
        self._folder.cleanup()
