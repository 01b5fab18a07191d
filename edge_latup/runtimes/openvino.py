"""OpenVINO on the CPU: the x86 default. The precision is always pinned, because the default is silently BF16 on some CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, MissingDependencyError
from edge_latup.manifest import Precision
from edge_latup.runtimes.base import Batch, Kernel, RuntimeInfo, SessionOptions, check_batch, installed

if TYPE_CHECKING:
    import openvino as ov

ELEMENT_NAMES: Final[dict[Precision, str]] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
NOT_COMPUTING: Final = ("Parameter", "Result", "Const", "Input", "Output", "Constant")


def is_available() -> bool:
    """Whether openvino is installed."""
    return installed("openvino")


def describe() -> RuntimeInfo:
    """Version and devices."""
    import openvino as ov

    return RuntimeInfo(name="openvino", version=ov.__version__, devices=tuple(ov.Core().available_devices))


def _settings(precision: Precision, options: SessionOptions) -> dict[str, Any]:
    import openvino.properties as props
    from openvino import Type
    from openvino.properties import hint

    types = {"fp32": Type.f32, "fp16": Type.f16, "bf16": Type.bf16}
    settings: dict[str, Any] = {
        hint.inference_precision: types[precision],
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        props.inference_num_threads: options.thread_count,
        hint.enable_cpu_pinning: False,
    }
    if options.cache_dir is not None:
        options.cache_dir.mkdir(parents=True, exist_ok=True)
        settings[props.cache_dir] = str(options.cache_dir)
    return settings


def open(artifact: Artifact, options: SessionOptions) -> OpenVinoSession:  # noqa: A001  (the Protocol's verb)
    """Read, compile with the precision pinned, and check that the pin held.

    Raises:
        ArtifactError: OpenVINO cannot read the model.
        MissingDependencyError: this CPU does not compute in the precision that was asked for.
    """
    asked = options.float_precision or artifact.manifest.float_precision
    if asked == "int8":
        raise ArtifactError(f"float_precision cannot be int8 ({artifact.folder})", "use fp32, bf16 or fp16")
    session = OpenVinoSession(_compile(artifact.model_path, asked, options))
    if session.float_precision != ELEMENT_NAMES[asked]:
        raise MissingDependencyError(
            f"asked OpenVINO for {asked}, it would run {session.float_precision} on this CPU",
            "choose a precision this CPU computes in: edge-latup doctor lists them",
        )
    return session


def _compile(path: Path, precision: Precision, options: SessionOptions) -> ov.CompiledModel:
    import openvino as ov

    core = ov.Core()
    try:
        return core.compile_model(core.read_model(path), "CPU", _settings(precision, options))
    except RuntimeError as error:
        raise ArtifactError(f"OpenVINO cannot load {path}: {str(error).splitlines()[0]}", "export the model again") from error


class OpenVinoSession:
    """A compiled model and one infer request."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, D, H, W); -1 where the size is free."""
        shape = self._compiled.input(0).get_partial_shape()
        return tuple(int(size.get_length()) if size.is_static else -1 for size in shape)

    @property
    def float_precision(self) -> str:
        """The pinned precision, read back from the compiled model."""
        return str(self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def infer(self, batch: Batch) -> Batch:
        """See `Session.infer`."""
        checked = check_batch(batch, self.input_shape)
        self._request.infer([checked], share_inputs=True)
        output: Batch = self._request.get_output_tensor(0).data.copy()
        return output

    def executed_kernels(self) -> Sequence[Kernel]:
        """From the runtime model: every node after OpenVINO's own fusions."""
        kernels = []
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            operation = str(info["layerType"].astype(str))
            if operation in NOT_COMPUTING:
                continue
            implementation = str(info["primitiveType"].astype(str))
            precision = str(info["runtimePrecision"].astype(str)) if "runtimePrecision" in info else implementation.rsplit("_", 1)[-1]
            kernels.append(Kernel(name=node.get_friendly_name(), operation=operation, precision=precision.lower(), implementation=implementation))
        return kernels

    def __enter__(self) -> OpenVinoSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._request, self._compiled
