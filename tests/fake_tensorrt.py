"""A recording double of TensorRT and cuda-python: ONNX Runtime computes what an engine would, and every call is written down.

Its classes have only names that NVIDIA's genuine modules have; tests/contracts/test_tensorrt_api.py holds it to that. It proves our logic
around TensorRT and nothing about TensorRT.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

MIB = 1 << 20
LEVELS = ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY")
KINDS = {"ConvTranspose": "CaskDeconvolutionV2", "Conv": "CaskConvolution", "Gemm": "gemm", "MatMul": "gemm"}


@dataclass
class Behaviour:
    """What the double does, and what it was asked: `calls` has (name, arguments) in order."""

    version: str = "10.16.1.11"
    kernels: dict[str, str] = field(default_factory=dict)
    """Node -> the number type that its kernel runs in, such as "Int8"; others as `usual`."""
    usual: str = "FP32"
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    builds: bool = True
    loads: bool = True
    parses: bool = True
    context: bool = True
    drifting: float = 0.0
    """Added to every answer once more than to the one before it."""
    by_row: float = 0.0
    """Added to each row of a batch, times its index."""
    free: int = 6000 * MIB
    unified: bool = False
    integrated_name: str = "NVIDIA GeForce RTX 3060"
    processors: int = 28
    driver: int = 12080
    fails: str = ""
    """A CUDA call that reports an error."""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def told(self, name: str) -> list[Any]:
        """The arguments of every call of a name."""
        return [arguments for called, arguments in self.calls if called == name]


def install(monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour) -> Behaviour:
    """Put the double in place of both packages."""
    cuda, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
    runtime = cuda_runtime(behaviour)
    cuda.bindings, bindings.runtime = bindings, runtime  # type: ignore[attr-defined]
    modules = {"tensorrt": tensorrt(behaviour), "cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("edge_latup.runtimes.tensorrt.installed", lambda package: True)
    return behaviour


def tensorrt(does: Behaviour) -> types.ModuleType:
    """The module `tensorrt`."""
    module = types.ModuleType("tensorrt")
    enums = {
        "BuilderFlag": ("TF32", "VERSION_COMPATIBLE"), "MemoryPoolType": ("WORKSPACE",), "ProfilingVerbosity": ("DETAILED",),
        "HardwareCompatibilityLevel": LEVELS[: 2 if does.version.startswith("10.3") else 3],
        "LayerInformationFormat": ("JSON",), "TensorIOMode": ("INPUT", "OUTPUT"), "DataType": ("FLOAT", "HALF"),
    }  # fmt: skip
    for name, members in enums.items():
        setattr(module, name, enum.Enum(name, members))  # type: ignore[misc]
    creation = enum.IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
    vars(module).update(_classes(does), NetworkDefinitionCreationFlag=creation, __version__=does.version, DOES=does)
    return module


def _classes(does: Behaviour) -> dict[str, Any]:
    class ILogger:
        Severity = enum.Enum("Severity", ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"))

    class IProfiler:
        pass

    class Dims(list):  # type: ignore[type-arg]
        pass

    class ITensor:
        def __init__(self, name: str, shape: Sequence[int]) -> None:
            self.name, self.shape = name, Dims(shape)

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            does.calls.append(("create_network", flags))
            self._model: Any = None

        num_outputs = 1

        def get_input(self, index: int) -> ITensor:
            return _tensor(self._model.graph.input[index])

        def get_output(self, index: int) -> ITensor:
            return _tensor(self._model.graph.output[index])

    def _tensor(value: Any) -> ITensor:
        return ITensor(value.name, [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim])

    class ParserError:
        def desc(self) -> str:
            return "no importer registered"

        def node_operator(self) -> str:
            return "Einsum"

        def node_name(self) -> str:
            return "attention"

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            self._network = network

        num_errors = 1

        def get_error(self, index: int) -> ParserError:
            return ParserError()

        def parse(self, model: bytes, path: str | None = None) -> bool:
            import onnx

            self._network._model = onnx.load_from_string(model)
            return does.parses

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self) -> bytes:
            return self._content + b"+"

    class IOptimizationProfile:
        def set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> None:  # noqa: A002  (TensorRT's own names)
            does.calls.append(("set_shape", (input, tuple(min), tuple(opt), tuple(max))))

    class IBuilderConfig:
        def __init__(self) -> None:
            self.profiling_verbosity = self.hardware_compatibility_level = self.builder_optimization_level = None

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            does.calls.append(("set_memory_pool_limit", (pool.name, pool_size)))

        def set_flag(self, flag: Any) -> None:
            does.calls.append(("set_flag", flag.name))

        def clear_flag(self, flag: Any) -> None:
            does.calls.append(("clear_flag", flag.name))

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            return 0

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
            does.calls.append(("create_timing_cache", bytes(serialized_timing_cache)))
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            self._cache, foreign = cache, cache._content.startswith(b"foreign")
            return not foreign

        def get_timing_cache(self) -> ITimingCache:
            return self._cache

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
            does.calls.append(("build", config))
            for severity, lines in ((ILogger.Severity.WARNING, does.warnings), (ILogger.Severity.ERROR, does.errors)):
                for line in lines:
                    self._logger.log(severity, line)  # type: ignore[attr-defined]
            return network._model.SerializeToString() if does.builds else None

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger, self.engine_host_code_allowed = logger, False

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            does.calls.append(("deserialize", self.engine_host_code_allowed))
            for line in () if does.loads else does.errors:
                self._logger.log(ILogger.Severity.ERROR, line)  # type: ignore[attr-defined]
            return ICudaEngine(serialized_engine) if does.loads else None

    class EngineInspector:
        def __init__(self, model: Any) -> None:
            self._model = model

        def get_engine_information(self, format: Any) -> str:  # noqa: A002  (TensorRT's own name)
            return json.dumps({"Layers": [_layer(does, node) for node in self._model.graph.node]})

    class ICudaEngine:
        num_io_tensors = 2
        device_memory_size_v2 = 123 * MIB

        def __init__(self, plan: bytes) -> None:
            import onnx

            self._model = onnx.load_from_string(plan)

        def get_tensor_name(self, index: int) -> str:
            graph = self._model.graph
            return str((*graph.input, *graph.output)[index].name)

        def get_tensor_mode(self, name: str) -> Any:
            modes = sys.modules["tensorrt"].TensorIOMode
            return modes.INPUT if name == self._model.graph.input[0].name else modes.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return sys.modules["tensorrt"].DataType.FLOAT

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self._model)

        def create_execution_context(self) -> IExecutionContext | None:
            return IExecutionContext(self._model) if does.context else None

    class IExecutionContext:
        def __init__(self, model: Any) -> None:
            self._model, self._addresses, self._shape, self._runs = model, dict[str, int](), (0,), 0
            self.profiler: Any = None

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._shape = tuple(shape)
            return True

        def get_tensor_shape(self, name: str) -> Dims:
            return Dims(
                axis.dim_value or self._shape[index] for index, axis in enumerate(self._model.graph.output[0].type.tensor_type.shape.dim)
            )

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            does.calls.append(("execute", stream_handle))
            graph = self._model.graph
            given = does.memory[self._addresses[graph.input[0].name]].view(np.float32).reshape(self._shape)
            answer = _computed(self._model, given) + does.drifting * self._runs
            answer += does.by_row * np.arange(len(answer)).reshape(-1, 1, 1, 1, 1)
            does.memory[self._addresses[graph.output[0].name]].view(np.float32)[:] = answer.astype(np.float32).ravel()
            self._runs += 1
            for node in graph.node if self.profiler is not None else ():
                self.profiler.report_layer_time(node.name, 2.0)
            return True

    return {name: value for name, value in locals().items() if isinstance(value, type) and name != "Behaviour"}


def _computed(model: Any, given: Any) -> Any:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run(None, {model.graph.input[0].name: given})[0]


def _layer(does: Behaviour, node: Any) -> dict[str, Any]:
    kind = does.kernels.get(node.name, does.usual)
    split = not does.version.startswith("10")
    read = {"Name": "in", "Datatype": kind, "Format": "linear"} if split else {"Name": "in", "Format/Datatype": f"Row major linear {kind}"}
    return {
        "Name": node.name, "LayerType": KINDS.get(node.op_type, "PointWise"),
        "Inputs": [read], "Outputs": [read], "TacticName": f"sm86_{node.op_type}", "Metadata": f"[ONNX Layer: {node.name}]",
        **({"Weights": {"Type": kind}} if node.op_type in KINDS else {}),
    }  # fmt: skip


def cuda_runtime(does: Behaviour) -> types.ModuleType:
    """The module `cuda.bindings.runtime`, whose GPU is this process's memory."""
    module = types.ModuleType("cuda.bindings.runtime")
    status = enum.IntEnum("cudaError_t", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorIllegalAddress": 700})
    kinds = enum.IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})

    def answer(name: str, *values: Any) -> tuple[Any, ...]:
        does.calls.append((name, values))
        if name == does.fails:
            return (status(2 if name == "cudaMalloc" else 700), *(None for _ in values))
        return (status(0), *values)

    def malloc(size: int) -> tuple[Any, ...]:
        buffer = np.zeros(size, np.uint8)
        does.memory[buffer.ctypes.data] = buffer
        return answer("cudaMalloc", buffer.ctypes.data)

    def free(address: int) -> tuple[Any, ...]:
        del does.memory[address]
        return answer("cudaFree")

    def copy(dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple[Any, ...]:
        ctypes.memmove(dst, src, count)
        return answer("cudaMemcpyAsync")

    vars(module).update(
        cudaError_t=status, cudaMemcpyKind=kinds, cudaMalloc=malloc, cudaFree=free, cudaMemcpyAsync=copy,
        cudaGetErrorName=lambda code: (status(0), code.name.encode()), cudaGetDeviceCount=lambda: answer("cudaGetDeviceCount", 1),
        cudaMemGetInfo=lambda: answer("cudaMemGetInfo", does.free, 12288 * MIB),
        cudaDriverGetVersion=lambda: answer("cudaDriverGetVersion", does.driver),
        cudaStreamCreate=lambda: answer("cudaStreamCreate", 77), cudaStreamDestroy=lambda stream: answer("cudaStreamDestroy"),
        cudaStreamSynchronize=lambda stream: answer("cudaStreamSynchronize"),
        cudaGetDeviceProperties=lambda device: answer("cudaGetDeviceProperties", types.SimpleNamespace(
            name=does.integrated_name.encode(), major=8, minor=6, integrated=int(does.unified), multiProcessorCount=does.processors)),
    )  # fmt: skip
    return module


def names(version: str) -> dict[str, list[str]]:
    """Class or module -> its public names, for the contract test."""
    does = Behaviour(version=version)
    trt = tensorrt(does)
    told = {"cuda.bindings.runtime": [name for name in vars(cuda_runtime(does)) if not name.startswith("_")]}
    for name, value in vars(trt).items():
        if isinstance(value, type):
            members = [member.name for member in value] if issubclass(value, enum.Enum) else list(vars(value))
            told[name] = [member for member in members if not member.startswith("_")]
    return told
