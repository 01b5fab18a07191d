"""OpenVINO on the CPU: the x86 default. The precision is always pinned, because the default is silently BF16 on some CPUs."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError
from edge_latup.manifest import Precision
from edge_latup.runtimes.audit import Audit
from edge_latup.runtimes.base import (
    Batch,
    Kernel,
    RuntimeInfo,
    SessionOptions,
    check_batch,
    fixed_shape,
    installed,
    peak_of_lifetimes,
)
from edge_latup.runtimes.matching import audited
from edge_latup.runtimes.openvino_audit import computing, declared_layers, executed_operations, kernel_precision, quantized_dense

if TYPE_CHECKING:
    import openvino as ov

ELEMENT_NAMES: Final[dict[Precision, str]] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
WEIGHTS: Final = ("Const", "Constant")
TELEMETRY: Final = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """OpenVINO and NNCF, imported inside this, report nothing.

    Each tells Google Analytics of its import and use, unasked, unless the package that does so is missing: what they then do
    is their own code. Nothing may leave a clinic's machine that its people did not send.
    """
    before = {name: module for name, module in sys.modules.items() if name == TELEMETRY}
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # Python's own way to say that a module is not there
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
        sys.modules.update(before)


def import_openvino() -> ModuleType:
    """The `openvino` module, without its telemetry. The one place that imports it."""
    with without_telemetry():
        return importlib.import_module("openvino")


@functools.cache
def openvino_core() -> ov.Core:
    """The one Core of this process, which lives as long as it does.

    OpenVINO's CPU plugin gives the thread that first uses a Core an alternate signal stack and unmaps it with the Core (2026.4). Where two
    Cores end in the order in which they began, or one ends on another thread, that thread is left with a stack that is gone, or by then
    somebody else's memory: the next Ctrl-C is a segmentation fault. `tests/integration/test_interrupt.py` holds the process against it.
    """
    return import_openvino().Core()


def is_available() -> bool:
    """Whether openvino is installed."""
    return installed("openvino")


def describe() -> RuntimeInfo:
    """Version and devices."""
    ov = import_openvino()
    return RuntimeInfo(name="openvino", version=ov.__version__, devices=tuple(openvino_core().available_devices))


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
        props.enable_profiling: options.profile,
        # By default OpenVINO rounds what a dense layer with stored 8-bit weights reads to 8 bits too, whatever precision is pinned.
        hint.dynamic_quantization_group_size: 0,
    }
    if options.cache_dir is not None:
        # OpenVINO takes a cached model for any precision and thread count, though its kernels differ: each gets a folder of its own.
        folder = options.cache_dir / f"{precision}-{options.thread_count}-threads"
        folder.mkdir(parents=True, exist_ok=True)
        settings[props.cache_dir] = str(folder)
    return settings


def open(artifact: Artifact, options: SessionOptions) -> OpenVinoSession:  # noqa: A001  (the Protocol's verb)
    """Read, compile with the precision pinned, and check that the pin held.

    Raises:
        ArtifactError: OpenVINO cannot read the model.
        InputError: INT8 dense layers on one thread.
        MissingDependencyError: this CPU does not compute in the precision that was asked for.
    """
    asked = options.float_precision or artifact.manifest.float_precision
    if asked == "int8":
        raise ArtifactError(f"float_precision cannot be int8 ({artifact.folder})", "use fp32, bf16 or fp16")
    session = OpenVinoSession(_compile(artifact, asked, options), artifact)
    if session.float_precision != ELEMENT_NAMES[asked]:
        raise MissingDependencyError(
            f"asked OpenVINO for {asked}, it would run {session.float_precision} on this CPU",
            "choose a precision this CPU computes in: edge-latup doctor lists them",
        )
    return session


def _refuse_one_thread(artifact: Artifact, model: ov.Model, threads: int) -> None:
    """On one thread OpenVINO 2026.4 gives other, wrong results with every compilation where a dense layer reads INT8 activations.

    `tests/integration/test_int8_threads.py` holds such a file against the same quantized graph computed in float, and one whose dense
    layers are float, which is right. When its test of the wrong one fails, OpenVINO is mended, and this can go.
    """
    if artifact.manifest.precision == "int8" and threads == 1 and (dense := quantized_dense(model)):
        raise InputError(
            f"{artifact.folder} quantizes what its dense layers read ({dense[0]}), and with that OpenVINO is wrong on one thread",
            "use --threads 2 or more, also where there is one core; or quantize again: edge-latup leaves dense layers in float",
        )


def _compile(artifact: Artifact, precision: Precision, options: SessionOptions) -> ov.CompiledModel:
    core = openvino_core()
    try:
        model = core.read_model(artifact.model_path)
        if options.input_size is not None:
            channels = len(artifact.manifest.spec.modalities)
            model.reshape({0: [1, channels, *options.input_size]})
        _refuse_one_thread(artifact, model, options.thread_count)
        return core.compile_model(model, "CPU", _settings(precision, options))
    except RuntimeError as error:
        raise _refusal("load", artifact, error) from error


def _refusal(verb: str, artifact: Artifact, error: RuntimeError) -> ArtifactError:
    """The last line says what is wrong; those above it name OpenVINO's source files."""
    reason = str(error).strip().rpartition("\n")[2]
    return ArtifactError(f"OpenVINO cannot {verb} {artifact.model_path}: {reason}", "use another runtime, or make the artifact again")


def compile_float(onnx: bytes) -> ov.CompiledModel:
    """Any ONNX graph, compiled in pinned FP32 on every core this process may use."""
    core = openvino_core()
    return core.compile_model(core.read_model(onnx), "CPU", _settings("fp32", SessionOptions()))


def _sources(node: Any) -> list[Any]:
    """The output ports that a node reads."""
    return [port.get_source_output() for port in node.inputs()]


def _port(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


class OpenVinoSession:
    """A compiled model and one infer request."""

    def __init__(self, compiled: ov.CompiledModel, artifact: Artifact) -> None:
        self._compiled, self._artifact = compiled, artifact
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
        checked = check_batch(batch, self.input_shape, self._artifact.manifest.spec.divisor)
        try:
            self._request.infer([checked], share_inputs=True)
        except RuntimeError as error:
            raise _refusal("run", self._artifact, error) from error
        output: Batch = self._request.get_output_tensor(0).data.copy()
        return output

    def executed_kernels(self) -> Sequence[Kernel]:
        """From the runtime model: every node after OpenVINO's own fusions."""
        return [
            Kernel(
                name=node.get_friendly_name(),
                operation=info["layerType"],
                precision=kernel_precision(info),
                implementation=info["primitiveType"],
            )
            for node, info in computing(self._compiled.get_runtime_model())
        ]

    def audit(self) -> Audit:
        """See `Session.audit`; the file is read a second time for what it declares."""
        shape = fixed_shape(self.input_shape, self._artifact.manifest.spec)
        try:
            model = openvino_core().read_model(self._artifact.model_path)
            model.reshape({0: list(shape)})
        except RuntimeError as error:
            raise _refusal("read", self._artifact, error) from error
        declared = declared_layers(model, self._artifact.manifest.float_precision)
        return audited("openvino", shape, declared, executed_operations(self._compiled.get_runtime_model()))

    def activation_bytes(self) -> int | None:
        """From the runtime model: sizes and types of what each operation leaves, and the last operation that reads it."""
        if -1 in self.input_shape:
            return None
        operations = self._compiled.get_runtime_model().get_ordered_ops()
        last_use = {_port(source): step for step, node in enumerate(operations) for source in _sources(node)}
        return peak_of_lifetimes(
            (step, last_use.get(_port(output), step), output.get_tensor().size)
            for step, node in enumerate(operations)
            if str(node.get_rt_info()["layerType"].astype(str)) not in WEIGHTS
            for output in node.outputs()
        )

    def __enter__(self) -> OpenVinoSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._request, self._compiled
