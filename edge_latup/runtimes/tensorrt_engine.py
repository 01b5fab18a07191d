"""From an artifact to an engine that may be used: found in the cache, or checked, built in a process of its own, proven and kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from edge_latup.artifact import Artifact, sha256_of
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError
from edge_latup.records import read_record, write_record
from edge_latup.runtimes.base import SessionOptions, fixed_shape
from edge_latup.runtimes.fresh import run_fresh
from edge_latup.runtimes.onnx_facts import facts_of
from edge_latup.runtimes.tensorrt_cache import engine_folder, engine_key, engine_name, find_engine, keep_engine, read_engine, timing_cache
from edge_latup.runtimes.tensorrt_cuda import Device, describe_device
from edge_latup.runtimes.tensorrt_limits import TargetFacts, refuse
from edge_latup.runtimes.tensorrt_log import explain_skipped
from edge_latup.runtimes.tensorrt_options import BuildReport, BuildRequest, EngineOptions, EngineRecord, engine_options
from edge_latup.runtimes.tensorrt_proof import prove_precision, self_test
from edge_latup.runtimes.tensorrt_session import TensorRtSession, load_engine

WORKER: Final = "edge_latup.runtimes.tensorrt_worker"


def tensorrt_version() -> str:
    """Of the installed bindings."""
    import tensorrt as trt

    return str(trt.__version__)


def open_engine(artifact: Artifact, options: SessionOptions) -> TensorRtSession:
    """The artifact as an engine in use; built first where none is kept for this GPU, driver, TensorRT and these options.

    Raises:
        ArtifactError: it is no ONNX artifact, cannot be built, or the engine failed a proof; or a kept engine is not the one recorded.
        InputError: an option is unknown, or a fixed size cannot be changed.
        MissingDependencyError: the GPU or TensorRT does not start, or has too little memory.
    """
    record, path = engine_record(artifact, options)
    plan = read_engine(path.parent, record)
    engine = load_engine(plan, str(path), host_code=record.options.version_compatible)
    return TensorRtSession(engine, artifact, record.input_shape, profile=options.profile)


def engine_record(artifact: Artifact, options: SessionOptions) -> tuple[EngineRecord, Path]:
    """The record of the artifact's engine for this machine and the engine's path, built first where none is kept; not loaded.

    Raises:
        EdgeLatupError: see `open_engine`.
    """
    shape, wanted = engine_shape(artifact, options), engine_options(options.runtime_options)
    folder = engine_folder(options.cache_dir)
    record = ensure_engine(artifact, shape, wanted, describe_device(), folder)
    return record, folder / record.engine_file


def wanted_engine(artifact: Artifact, options: SessionOptions) -> tuple[Path, str]:
    """(folder, key) under which the artifact's engine for this machine is kept, or will be; nothing is built.

    Raises:
        EdgeLatupError: see `open_engine`.
    """
    folder, shape = engine_folder(options.cache_dir), engine_shape(artifact, options)
    wanted = engine_options(options.runtime_options)
    return folder, engine_key(artifact.digest, describe_device(), tensorrt_version(), shape, wanted)


def engine_shape(artifact: Artifact, options: SessionOptions) -> tuple[int, ...]:
    """The one input shape of the engine.

    Raises:
        ArtifactError: the artifact is no ONNX file.
        InputError: the artifact has another fixed size than asked for.
        MissingDependencyError: another float precision than the file's types say was asked for.
    """
    manifest = artifact.manifest
    if manifest.format != "onnx":
        raise ArtifactError(
            f"{artifact.folder} is {manifest.format}; TensorRT builds from ONNX", "make one: edge-latup quantize --runtime tensorrt"
        )
    if options.float_precision not in (None, manifest.float_precision):
        raise MissingDependencyError(
            f"TensorRT computes in what the graph's types say, {manifest.float_precision}, not in {options.float_precision}",
            f"make the file again: edge-latup quantize ... --runtime tensorrt --float-precision {options.float_precision}",
        )
    own = manifest.input_shape
    if options.input_size is None:
        return fixed_shape(own, manifest.spec)
    asked = (*own[:2], *options.input_size)
    if any(size not in (-1, wanted) for size, wanted in zip(own, asked, strict=True)):
        raise InputError(f"{artifact.folder} takes {own}, not {asked}", "export with --dynamic, or with this size")
    return tuple(1 if size == -1 else size for size in asked)


def ensure_engine(artifact: Artifact, shape: tuple[int, ...], options: EngineOptions, device: Device, folder: Path) -> EngineRecord:
    """The record of a kept engine, which is built where there is none.

    Raises:
        EdgeLatupError: see `open_engine`.
    """
    key = engine_key(artifact.digest, device, tensorrt_version(), shape, options)
    return find_engine(folder, key) or _build(artifact, shape, options, device, folder, key)


def _build(
    artifact: Artifact, shape: tuple[int, ...], options: EngineOptions, device: Device, folder: Path, key: str
) -> EngineRecord:  # fmt: skip
    refuse(facts_of(artifact.model_path, shape), target_of(device), artifact.manifest.precision, str(artifact.folder))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as place:
        plan, report = Path(place) / "plan", Path(place) / "report.json"
        request = BuildRequest(
            model=str(artifact.model_path.absolute()), plan=str(plan), input_shape=shape, options=options,
            timing_cache=str(timing_cache(folder, device, tensorrt_version())),
        )  # fmt: skip
        write_record(request, Path(place) / "request.json")
        run_fresh(WORKER, [str(Path(place) / "request.json"), str(report)], f"the TensorRT engine of {artifact.folder}")
        record = _prove(artifact, request, read_record(BuildReport, report), device, key)
        keep_engine(folder, key, plan, record)
    return record


def _prove(artifact: Artifact, request: BuildRequest, built: BuildReport, device: Device, key: str) -> EngineRecord:
    """Load the new engine, read its precision back and test it against itself.

    Raises:
        ArtifactError: it is not what was asked for, or not one function.
    """
    manifest, plan = artifact.manifest, Path(request.plan)
    engine = load_engine(plan.read_bytes(), f"the new engine of {artifact.folder}", host_code=request.options.version_compatible)
    with TensorRtSession(engine, artifact, request.input_shape) as session:
        audit = session.audit().summary
        notes = prove_precision(audit, manifest.precision, tf32=request.options.tf32)
        tested = self_test(session.infer, request.input_shape, manifest.precision, manifest.float_precision)
    told = explain_skipped(built.skipped_tactics, built.workspace_bytes)
    return EngineRecord(
        artifact=artifact.digest, gpu=device.identity, compute_capability=device.compute_capability, driver=device.driver,
        tensorrt=built.tensorrt, input_shape=request.input_shape, options=request.options, precision=manifest.precision,
        float_precision=manifest.float_precision, engine_file=engine_name(key, plan), engine_bytes=plan.stat().st_size,
        engine_sha256=sha256_of(plan), build=built, audit=audit, self_test=tested, notes=(*notes, *([told] if told else [])),
    )  # fmt: skip


def target_of(device: Device) -> TargetFacts:
    """This machine, as the limits ask for it: of its memory what is free now, which the system no longer takes from."""
    return TargetFacts(
        name=device.name, compute_capability=device.compute_capability, tensorrt=tensorrt_version(), memory_bytes=device.free,
        unified=device.unified, reserved_bytes=0,
    )  # fmt: skip
