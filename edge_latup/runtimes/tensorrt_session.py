"""An engine in use: buffers allocated once, copied to and from, every answer of TensorRT and CUDA checked.

Only TensorRT's Python bindings and cuda-python are called here, with names that 10.3 to 10.16 and 11 have in common. Contract-tested
against NVIDIA's genuine bindings (tests/contracts/test_tensorrt_api.py); never executed on a GPU by this project's tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, SupportsFloat

import numpy as np

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError
from edge_latup.runtimes.audit import Audit
from edge_latup.runtimes.base import Batch, Kernel, check_batch
from edge_latup.runtimes.onnx_audit import declared_layers
from edge_latup.runtimes.tensorrt_audit import audit_engine, kernels_of
from edge_latup.runtimes.tensorrt_cuda import DeviceMemoryError, Stream
from edge_latup.runtimes.tensorrt_log import load_failure, make_log

if TYPE_CHECKING:
    import tensorrt as trt

SHORT: Final = {"fp32": "f32", "fp16": "f16", "int8": "i8"}
"""As the other runtimes call them in `executed_kernels`; other names stay."""


def load_engine(plan: bytes, name: str, *, host_code: bool) -> trt.ICudaEngine:
    """Deserialise a plan whose hash was verified; `host_code`: allow the code that a version-compatible one holds.

    Raises:
        ArtifactError: TensorRT takes it for a damaged file, or for another GPU's or version's.
        DeviceMemoryError: it does not fit.
    """
    import tensorrt as trt

    log, _, errors = make_log()
    try:
        runtime = trt.Runtime(log)
    except TypeError as error:  # pybind11's word for a factory that returned nothing
        raise load_failure(errors or ["TensorRT does not start"], name) from error
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise load_failure(errors, name)
    return engine


def sizes(dims: trt.Dims) -> tuple[int, ...]:
    """TensorRT's shape as a tuple; -1 where a size is free."""
    return tuple(int(dims[axis]) for axis in range(len(dims)))


def engine_information(engine: trt.ICudaEngine) -> str:
    """The engine inspector's JSON."""
    import tensorrt as trt

    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def io_tensors(engine: trt.ICudaEngine) -> tuple[str, str]:
    """Names of the one input and the one output, both float32.

    Raises:
        ArtifactError: there are others.
    """
    import tensorrt as trt

    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
    if len(inputs) != 1 or not outputs:
        raise ArtifactError(f"the engine has inputs {inputs} and outputs {outputs}; one of each is used", "make the artifact again")
    for name in (inputs[0], outputs[0]):
        if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
            raise ArtifactError(f"the engine's tensor {name} is {engine.get_tensor_dtype(name)}, not float32", "keep input and output FP32")
    return inputs[0], outputs[0]


def make_profiler() -> tuple[trt.IProfiler, dict[str, list[float]]]:
    """(a profiler for an execution context, milliseconds of each layer, run by run)."""
    import tensorrt as trt

    times: dict[str, list[float]] = defaultdict(list)

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # untyped where TensorRT is not installed
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: SupportsFloat) -> None:
            times[layer_name].append(float(ms))

    return Profiler(), times


class TensorRtSession:
    """See `base.Session`."""

    def __init__(self, engine: trt.ICudaEngine, artifact: Artifact, shape: tuple[int, ...], *, profile: bool = False) -> None:
        self._engine, self._artifact, self._shape = engine, artifact, shape
        self._information: str | None = None
        self._times: dict[str, list[float]] = {}
        self._input, self._output = io_tensors(engine)
        self._stream = Stream()
        try:
            self._context = self._make_context(profile)
            self._host: Batch = np.empty(self._output_shape(), np.float32)
            self._addresses = self._bind()
        except BaseException:
            self._stream.close()
            raise

    def _make_context(self, profile: bool) -> trt.IExecutionContext:
        context = self._engine.create_execution_context()
        if context is None:
            raise DeviceMemoryError("the GPU has no memory left for the engine's activations", "use a smaller patch, or INT8")
        if not context.set_input_shape(self._input, self._shape):
            raise ArtifactError(f"the engine was not built for {self._shape}", "delete it, and it is built again")
        if profile:
            context.profiler, self._times = make_profiler()
        return context

    def _output_shape(self) -> tuple[int, ...]:
        return sizes(self._context.get_tensor_shape(self._output))

    def _bind(self) -> tuple[int, int]:
        """Buffers on the GPU for input and output, made known to the context once."""
        sizes = (4 * int(np.prod(self._shape)), self._host.nbytes)
        pair = tuple(self._stream.allocate(size, what) for size, what in zip(sizes, ("input", "output"), strict=True))
        for name, address in zip((self._input, self._output), pair, strict=True):
            if not self._context.set_tensor_address(name, address):
                raise ArtifactError(f"TensorRT takes no buffer for {name}", "delete the engine, and it is built again")
        return pair[0], pair[1]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, D, H, W): the one size the engine was built for."""
        return self._shape

    @property
    def float_precision(self) -> str:
        """Of the largest share of multiply-accumulates that is not INT8, as the inspector tells it; "i8" where all of them are."""
        executed = self.audit().summary.executed
        floats = [name for name in executed if name != "int8"]
        return SHORT.get(floats[0], floats[0]) if floats else "i8"

    def infer(self, batch: Batch) -> Batch:
        """See `Session.infer`.

        Raises:
            ArtifactError: TensorRT did not take the work.
            MissingDependencyError: CUDA failed.
        """
        checked = check_batch(batch, self._shape, self._artifact.manifest.spec.divisor)
        self._stream.upload(checked, self._addresses[0])
        if not self._context.execute_async_v3(self._stream.handle):
            raise ArtifactError("TensorRT did not start the inference", "run it once with --profile, and check the driver")
        self._stream.download(self._addresses[1], self._host)
        self._stream.wait()
        return self._host.copy()

    @property
    def information(self) -> str:
        """The engine inspector's JSON, read once."""
        if self._information is None:
            self._information = engine_information(self._engine)
        return self._information

    def executed_kernels(self) -> Sequence[Kernel]:
        """From the engine inspector."""
        return [
            dataclasses.replace(kernel, precision=SHORT.get(kernel.precision, kernel.precision)) for kernel in kernels_of(self.information)
        ]

    def audit(self) -> Audit:
        """See `Session.audit`; where profiled, of all inferences so far.

        Raises:
            ArtifactError: the shapes in the file cannot be inferred.
            MissingDependencyError: onnx, which reads it, is not installed.
        """
        declared = declared_layers(self._artifact.model_path, self._shape)  # strongly typed: the graph's types are what was asked for
        mean = {name: float(np.mean(times)) for name, times in self._times.items()}
        return audit_engine(self.information, declared, self._shape, mean or None)

    def activation_bytes(self) -> int | None:
        """Device memory of the execution context, as the engine tells it; None where this TensorRT does not."""
        told: Any = getattr(self._engine, "device_memory_size_v2", None)
        return None if told is None else int(told)

    def close(self) -> None:
        """Give buffers, context and engine back."""
        self._stream.close()
        for name in ("_context", "_engine"):
            with contextlib.suppress(AttributeError):
                delattr(self, name)

    def __enter__(self) -> TensorRtSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
