"""`edge-latup quantize`: an FP32 artifact to a smaller or faster one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edge_latup.artifact import open_artifact, refuse_existing
from edge_latup.cli.options import OutArtifact, Overwrite, parse_runtime
from edge_latup.cli.output import output
from edge_latup.cli.quantize_all import quantize_every
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.manifest import Precision


def quantize(
    artifact: Annotated[Path, typer.Argument(help="FP32 ONNX artifact, as `edge-latup export` makes it.")],
    out: OutArtifact,
    method: Annotated[str | None, typer.Option(help="rewrite, dynamic-range, fp16, bf16, int8 or dynamic-int8.")] = None,
    runtime: Annotated[str, typer.Option(help="The runtime that will run it.")] = "openvino",
    calibration: Annotated[list[Path] | None, typer.Option(help="Cases for int8, never evaluated on; may be repeated.")] = None,
    crops_per_case: Annotated[int, typer.Option(min=1, help="Calibration crops of a case: the deployed one, then ones with tumour.")] = 1,
    keep_float: Annotated[list[str] | None, typer.Option(help="Module that int8 leaves in float, like decoder1; may be repeated.")] = None,
    float_precision: Annotated[str | None, typer.Option(help="What int8's float part is computed in: fp32 or bf16.")] = None,
    overwrite: Overwrite = False,
    every: Annotated[
        bool, typer.Option("--all", help="Every method for every runtime installed here, each in a folder below --out.")
    ] = False,
) -> None:
    """Compress an FP32 artifact for the runtime that will run it, and run it there once."""
    if every:
        others = {"--method": bool(method), "--keep-float": bool(keep_float), "--float-precision": bool(float_precision)}
        quantize_every(artifact, out, calibration or [], crops_per_case, others | {"--overwrite": overwrite})
        return
    if method is None:
        raise InputError("no method is named", "add --method, or --all for every one")
    from edge_latup.quantize.calibration import make_calibration
    from edge_latup.quantize.methods import check_calibration, choose
    from edge_latup.quantize.methods import quantize as compress

    if float_precision not in (None, "fp32", "bf16"):
        raise InputError(f"--float-precision {float_precision!r} is not known", "choose fp32 or bf16")
    chosen, _ = choose(method, parse_runtime(runtime))
    check_calibration(method, given=bool(calibration))
    refuse_existing(out, overwrite)
    source = open_artifact(artifact)
    inputs = None
    if calibration:
        output.note("reading calibration cases")
        inputs = make_calibration(calibration, source.manifest.spec, crops_per_case=crops_per_case)
    output.note(f"{method} for {runtime}: {chosen.summary}")
    made = compress(
        source, method, out, runtime=parse_runtime(runtime), calibration=inputs, keep_float=keep_float or (),
        float_precision=cast("Precision | None", float_precision), overwrite=overwrite,
    )  # fmt: skip
    share = made.manifest.model_size / source.manifest.model_size
    moved = made.manifest.parity[-1]
    output.result(
        made.manifest.model_dump(mode="json"),
        f"{out}: {made.manifest.model_size / 1e6:.2f} MB ({share:.1%} of the FP32 file); "
        f"on one phantom crop the same class as FP32 in {moved.argmax_agreement:.4%} of voxels",
    )
