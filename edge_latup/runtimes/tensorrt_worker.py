"""Builds one engine, in a process of its own that holds TensorRT and nothing else.

Nothing but TensorRT's Python bindings is called here, for TensorRT 10.3 to 10.16 and 11. What both generations have is called plainly;
where they differ, the difference is one of the functions `network_flags` and `set_hardware_level`. Contract-tested against NVIDIA's
genuine bindings of both (tests/contracts/test_tensorrt_api.py); no build was executed by this project's tests.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_latup.errors import ArtifactError, MissingDependencyError
from edge_latup.records import read_record, replacing, write_record
from edge_latup.runtimes.fresh import tell_failure
from edge_latup.runtimes.tensorrt_cuda import describe_device, workspace_bytes
from edge_latup.runtimes.tensorrt_log import KEPT, build_failure, make_log, skipped_tactics
from edge_latup.runtimes.tensorrt_options import HARDWARE_LEVELS, OLDEST, STRONG_ONLY, BuildReport, BuildRequest, EngineOptions
from edge_latup.runtimes.tensorrt_session import sizes
from edge_latup.runtimes.tensorrt_system import allow_system_tensorrt

if TYPE_CHECKING:
    import tensorrt as trt

FLOATS: Final = 4
"""Bytes of one value of input or output."""


def main(arguments: list[str]) -> int:
    """`main([request.json, report.json])`; the exit code."""
    allow_system_tensorrt()
    return tell_failure(lambda: write_record(build(read_record(BuildRequest, Path(arguments[0]))), Path(arguments[1])))


def version() -> tuple[int, int]:
    """(major, minor) of the installed TensorRT.

    Raises:
        MissingDependencyError: it is older than this runtime is for.
    """
    import tensorrt as trt

    major, minor = (int(part) for part in trt.__version__.split(".")[:2])
    if (major, minor) < OLDEST:
        raise MissingDependencyError(
            f"TensorRT {trt.__version__} is installed; engines are built with {OLDEST[0]}.{OLDEST[1]} or newer, strongly typed",
            "on JetPack 4 and 5 build with the board's own tool: trtexec --onnx=model.onnx --int8 --fp16 --saveEngine=model.engine",
        )
    return major, minor


def network_flags() -> int:
    """Flags of a strongly typed network: TensorRT 10 is asked for it, 11 has no other."""
    import tensorrt as trt

    return 0 if version()[0] >= STRONG_ONLY else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def build(request: BuildRequest) -> BuildReport:
    """Write the plan and the timing cache.

    Raises:
        EdgeLatupError: TensorRT does not start, cannot parse or build the file, or memory is short.
    """
    import tensorrt as trt

    log, warnings, errors = make_log()
    builder = _builder(log, errors)
    network = builder.create_network(network_flags())
    _parse(network, log, Path(request.model))
    device = describe_device()
    workspace = workspace_bytes(
        device.free, unified=device.unified, needed=held_bytes(network, request),
        asked=None if request.options.workspace_mib is None else request.options.workspace_mib << 20,
    )  # fmt: skip
    config = configure(builder, network, request, workspace)
    plan: Any = builder.build_serialized_network(network, config)
    if plan is None:
        raise build_failure(errors, workspace, request.model)
    with replacing(Path(request.plan)) as temporary:
        temporary.write_bytes(plan)
    _keep_timing(config, Path(request.timing_cache))
    return BuildReport(
        tensorrt=trt.__version__, workspace_bytes=workspace, free_bytes=device.free, skipped_tactics=skipped_tactics(warnings),
        warnings=tuple(warnings[:KEPT]),
    )  # fmt: skip


def _builder(log: trt.ILogger, errors: list[str]) -> trt.Builder:
    import tensorrt as trt

    try:
        return trt.Builder(log)
    except TypeError as error:  # pybind11's word for a factory that returned nothing: no GPU, or libraries of another version
        told = f": {errors[0]}" if errors else ""
        raise MissingDependencyError(
            f"TensorRT {trt.__version__} does not start{told}", "check the GPU with nvidia-smi, and that libnvinfer is of the same version"
        ) from error


def _parse(network: trt.INetworkDefinition, log: trt.ILogger, model: Path) -> None:
    """Read the ONNX file into the network.

    Raises:
        ArtifactError: the parser refuses it; with the node and the parser's own words.
    """
    import tensorrt as trt

    parser = trt.OnnxParser(network, log)
    if parser.parse(model.read_bytes(), str(model)):
        return
    told = [parser.get_error(index) for index in range(parser.num_errors)]
    first = f"{told[0].node_operator()} {told[0].node_name()}: {told[0].desc()}" if told else "it gave no reason"
    raise ArtifactError(
        f"the parser of TensorRT {trt.__version__} refuses {model}: {first}",
        "check the file's rules and the target: edge-latup inspect ARTIFACT --rules tensorrt --target NAME",
    )


def held_bytes(network: trt.INetworkDefinition, request: BuildRequest) -> int:
    """What a build holds besides its workspace: weights twice (as read, and laid out for a kernel), the inputs and the outputs."""
    outputs = [sizes(network.get_output(index).shape) for index in range(network.num_outputs)]
    values = sum(abs(math.prod(shape)) for shape in (request.input_shape, *outputs))
    return 2 * Path(request.model).stat().st_size + FLOATS * values


def configure(builder: trt.Builder, network: trt.INetworkDefinition, request: BuildRequest, workspace: int) -> trt.IBuilderConfig:
    """The configuration of a build: nothing in it says a precision, the graph's types do.

    Raises:
        MissingDependencyError: this TensorRT does not have what an option asks for.
    """
    import tensorrt as trt

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = request.options.optimisation_level
    if not request.options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if request.options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    set_hardware_level(config, request.options)
    _one_profile(builder, network, config, request.input_shape)
    _use_timing(config, Path(request.timing_cache))
    return config


def set_hardware_level(config: trt.IBuilderConfig, options: EngineOptions) -> None:
    """Ask for an engine that other GPUs run too.

    Raises:
        MissingDependencyError: this TensorRT has no such level.
    """
    import tensorrt as trt

    if options.hardware == "none":
        return
    level = getattr(trt.HardwareCompatibilityLevel, HARDWARE_LEVELS[options.hardware], None)
    if level is None:
        raise MissingDependencyError(
            f"TensorRT {trt.__version__} has no hardware compatibility {options.hardware!r}",
            "use ampere-plus (slower), or build on each kind of GPU: the ONNX artifact and the timing cache are what is shipped",
        )
    config.hardware_compatibility_level = level


def _one_profile(builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, shape: tuple[int, ...]) -> None:
    """Where a size of the input is free, fix it: smallest, usual and largest are the same."""
    import tensorrt as trt

    entry = network.get_input(0)
    if -1 not in sizes(entry.shape):
        return
    profile, fixed = builder.create_optimization_profile(), trt.Dims(list(shape))
    profile.set_shape(entry.name, fixed, fixed, fixed)
    config.add_optimization_profile(profile)


def _use_timing(config: trt.IBuilderConfig, path: Path) -> None:
    """Attach what earlier builds measured; a cache of another GPU or version is left aside and written anew."""
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
    if not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timing(config: trt.IBuilderConfig, path: Path) -> None:
    measured: Any = config.get_timing_cache().serialize()
    with replacing(path) as temporary:
        temporary.write_bytes(measured)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
