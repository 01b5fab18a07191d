"""`edge-latup quantize`: an FP32 artifact to a smaller or faster one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edge_latup.artifact import open_artifact, refuse_existing
from edge_latup.cli.options import OutArtifact, Overwrite, parse_runtime
from edge_latup.cli.output import output
from edge_latup.cli.rewriting import Measure, Passes, Rewrite, TrustBatchNorm, rewriting_of
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.manifest import Precision


def quantize(
    artifact: Annotated[Path, typer.Argument(help="FP32 ONNX artifact, as `edge-latup export` makes it.")],
    out: OutArtifact,
    method: Annotated[str, typer.Option(help="rewrite, dynamic-range, fp16, bf16, int8 or dynamic-int8.")],
    runtime: Annotated[str, typer.Option(help="The runtime that will run it.")] = "openvino",
    calibration: Annotated[list[Path] | None, typer.Option(help="Cases for int8, never evaluated on; may be repeated.")] = None,
    crops_per_case: Annotated[int, typer.Option(min=1, help="Calibration crops of a case: the deployed one, then ones with tumour.")] = 1,
    keep_float: Annotated[list[str] | None, typer.Option(help="Module that int8 leaves in float, like decoder1; may be repeated.")] = None,
    float_precision: Annotated[str | None, typer.Option(help="What int8's float part is computed in: fp32 or bf16.")] = None,
    passes: Passes = None,
    measure: Measure = True,
    trust_batch_norm: TrustBatchNorm = False,
    rewrite: Rewrite = None,
    overwrite: Overwrite = False,
) -> None:
    """Compress an FP32 artifact for the runtime that will run it, and run it there once."""
    from edge_latup.quantize.calibration import make_calibration
    from edge_latup.quantize.fastest import quantize_fastest
    from edge_latup.quantize.methods import check_calibration, choose
    from edge_latup.quantize.methods import quantize as compress

    if float_precision not in (None, "fp32", "bf16"):
        raise InputError(f"--float-precision {float_precision!r} is not known", "choose fp32 or bf16")
    chosen, _ = choose(method, parse_runtime(runtime))
    check_calibration(method, given=bool(calibration))
    rewriting = rewriting_of(method, passes, measure, trust_batch_norm, rewrite)
    refuse_existing(out, overwrite)
    source = open_artifact(artifact)
    inputs = None
    if calibration:
        output.note("reading calibration cases")
        inputs = make_calibration(calibration, source.manifest.spec, crops_per_case=crops_per_case)
    output.note(f"{method} for {runtime}: {chosen.summary}")
    made = (quantize_fastest if rewrite else compress)(
        source, method, out, runtime=parse_runtime(runtime), calibration=inputs, keep_float=keep_float or (),
        float_precision=cast("Precision | None", float_precision), rewriting=rewriting, overwrite=overwrite,
    )  # fmt: skip
    share = made.manifest.model_size / source.manifest.model_size
    moved = made.manifest.parity[-1]
    output.result(
        made.manifest.model_dump(mode="json"),
        f"{out}: {made.manifest.model_size / 1e6:.2f} MB ({share:.1%} of the FP32 file); "
        f"on one phantom crop the same class as FP32 in {moved.argmax_agreement:.4%} of voxels",
    )
