"""`edge-latup engine`: build, prove and keep the TensorRT engine of an artifact for this GPU, or show the one that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_latup.cli.output import output

if TYPE_CHECKING:
    from edge_latup.runtimes.tensorrt_options import EngineRecord


def engine(
    artifact: Annotated[Path, typer.Argument(help="ONNX artifact made for TensorRT.")],
    cache: Annotated[Path | None, typer.Option(help="Folder the engine is kept in; the user's own cache folder unless given.")] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Runs on later TensorRT versions; can be slower, and the plan holds code.")
    ] = False,
    hardware: Annotated[
        str, typer.Option(help="none, ampere-plus (every GPU from Ampere on, slower) or same-compute-capability (not in TensorRT 10.3).")
    ] = "none",
    tf32: Annotated[bool, typer.Option("--tf32", help="Let FP32 layers multiply in TF32: faster, and no FP32 reference.")] = False,
    optimisation_level: Annotated[int, typer.Option(help="0 to 5: how long to search for fast kernels.")] = 3,
    workspace_mib: Annotated[int | None, typer.Option(help="Scratch memory of a layer; from what is free unless given.")] = None,
) -> None:
    """Build the TensorRT engine of an artifact on this machine's GPU, read its precision back, test it against itself and keep it."""
    from edge_latup.artifact import open_artifact
    from edge_latup.runtimes import choose_runtime
    from edge_latup.runtimes.base import SessionOptions
    from edge_latup.runtimes.tensorrt_engine import engine_record
    from edge_latup.runtimes.tensorrt_options import engine_options

    given = {
        "version-compatible": str(version_compatible), "hardware": hardware, "tf32": str(tf32),
        "optimisation-level": str(optimisation_level), **({} if workspace_mib is None else {"workspace-mib": str(workspace_mib)}),
    }  # fmt: skip
    engine_options(given)  # what is mistyped is told before what is missing
    opened = open_artifact(artifact)
    choose_runtime(opened, "tensorrt")
    output.note("building takes minutes where no engine is kept for this GPU, driver, TensorRT and these options")
    record, path = engine_record(opened, SessionOptions(cache_dir=cache, runtime_options=given))
    _show(record, path)


def _show(record: EngineRecord, path: Path) -> None:
    from edge_latup.runtimes.audit import sentence
    from edge_latup.runtimes.tensorrt_options import COSTS

    test = record.self_test
    output.line(f"{path}: {record.engine_bytes / 2**20:,.1f} MiB, TensorRT {record.tensorrt}, {record.gpu}, driver {record.driver}")
    output.line(f"precision read back: {sentence(record.audit)}")
    output.line(f"same input, {test.rows} answers: at most {test.max_abs:.2g} apart (allowed {test.tolerance:g})")
    chosen = [name for name, on in (("version-compatible", record.options.version_compatible), ("tf32", record.options.tf32)) if on]
    for name in (*chosen, record.options.hardware):
        if name in COSTS:
            output.line(f"{name}: {COSTS[name]}")
    for note in record.notes:
        output.warning(note)
    data: dict[str, Any] = {"engine": str(path), **record.model_dump(mode="json")}
    output.result(data)
