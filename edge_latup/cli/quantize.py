"""`edge-latup quantize`: an FP32 artifact to a smaller or faster one, for one runtime or for all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from edge_latup.cli.options import OutArtifact, Overwrite, parse_runtime
from edge_latup.cli.output import output
from edge_latup.cli.quantize_all import quantize_every
from edge_latup.cli.ranges import Choice, CompareRanges, Operators, PairTaps, Ranges, parse_choice, show_comparison
from edge_latup.cli.rewriting import Measure, Passes, Rewrite, TrustBatchNorm, rewriting_of
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.artifact import Artifact
    from edge_latup.manifest import Manifest, Precision
    from edge_latup.quantize.calibration import Calibration
    from edge_latup.quantize.every_runtime import Outcome

ALL: Final = "all"
OPENVINO: Final = "openvino"
COLUMNS: Final = ("runtime", "artifact", "MB", "of FP32", "same class", "relative L2", "rules", "compared in")


def quantize(
    artifact: Annotated[Path, typer.Argument(help="FP32 ONNX artifact, as `edge-latup export` makes it.")],
    out: OutArtifact,
    method: Annotated[
        str | None,
        typer.Option(
            help="rewrite, dynamic-range, dynamic-range-bf16, fp16, bf16, int8, dynamic-int8; for TensorRT int8, typed-fp16 or typed-fp32."
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="The runtime that will run it; with all, --out is a folder for an artifact for each runtime.")
    ] = OPENVINO,
    calibration: Annotated[list[Path] | None, typer.Option(help="Cases for int8, never evaluated on; may be repeated.")] = None,
    crops_per_case: Annotated[int, typer.Option(min=1, help="Calibration crops of a case: the deployed one, then ones with tumour.")] = 1,
    keep_float: Annotated[list[str] | None, typer.Option(help="Module that int8 leaves in float, like decoder1; may be repeated.")] = None,
    float_precision: Annotated[
        str | None, typer.Option(help="What int8's float part is computed in: fp32, bf16 (OpenVINO) or fp16 (TensorRT).")
    ] = None,
    passes: Passes = None,
    measure: Measure = True,
    trust_batch_norm: TrustBatchNorm = False,
    rewrite: Rewrite = None,
    ranges: Ranges = None,
    compare_ranges: CompareRanges = False,
    operators: Operators = None,
    pair_taps: PairTaps = False,
    overwrite: Overwrite = False,
    every: Annotated[
        bool, typer.Option("--all", help="Every method for every runtime installed here, each in a folder below --out.")
    ] = False,
) -> None:
    """Compress an FP32 artifact for the runtime that will run it, and run it there once. TensorRT's file is checked, not run."""
    from edge_latup.artifact import open_artifact
    from edge_latup.quantize.advice import advice
    from edge_latup.quantize.methods import check_calibration, check_source

    if every:
        others = {"--method": bool(method), "--keep-float": bool(keep_float), "--float-precision": bool(float_precision)}
        others |= {"--ranges": bool(ranges), "--compare-ranges": compare_ranges, "--operators": bool(operators), "--pair-taps": pair_taps}
        others |= {"--runtime": runtime != OPENVINO, "--rewrite": bool(rewrite), "--passes": bool(passes)}
        others |= {"--no-measure": not measure, "--trust-batch-norm": trust_batch_norm}
        quantize_every(artifact, out, calibration or [], crops_per_case, others | {"--overwrite": overwrite})
        return
    if method is None:
        raise InputError("no method is named", "add --method, or --all for every one")
    if float_precision not in (None, "fp32", "bf16", "fp16"):
        raise InputError(f"--float-precision {float_precision!r} is not known", "choose fp32, bf16 or fp16")
    summary = _summary(method, runtime)
    check_calibration(method, given=bool(calibration))
    choice = parse_choice(method, runtime, ranges, compare_ranges, operators, rewritten=bool(rewrite))
    rewriting = rewriting_of(method, passes, measure, trust_batch_norm, rewrite)
    if rewriting is not None and runtime == ALL:
        raise InputError("a rewrite is measured on one runtime", "name it with --runtime, or rewrite first: --method rewrite")
    if not choice.compared:
        _refuse_taken(method, runtime, out, overwrite)
    source = open_artifact(artifact)
    check_source(source)
    inputs = _calibrate(source, calibration, crops_per_case)
    output.note(f"{method} for {'every runtime' if runtime == ALL else runtime}: {summary}")
    if told := advice(source, method, runtime, keep_float or (), choice.estimator):
        output.note(told)
    options: dict[str, Any] = {
        "calibration": inputs, "keep_float": keep_float or (), "float_precision": cast("Precision | None", float_precision),
        "overwrite": overwrite,
    }  # fmt: skip
    if pair_taps and (choice.compared or choice.measured or runtime == ALL):
        raise InputError("--pair-taps is for one artifact for OpenVINO", "leave it out, or give --runtime openvino without comparisons")
    if choice.compared:
        show_comparison(source, out, parse_runtime(runtime), options | {"operators": operators})
    elif runtime == ALL:
        _for_all(source, method, out, options | {"estimator": choice.estimator})
    elif choice.measured:
        _show(_measured(source, out, choice, options), source, runtime)
    else:
        options |= choice.options() | {"rewriting": rewriting, "tell": output.note, "paired": pair_taps}
        _for_one(source, method, out, runtime, options, fastest=bool(rewrite))


def _summary(method: str, runtime: str) -> str:
    """What the method does; refuses one that makes nothing for the runtime, before anything slow."""
    from edge_latup.quantize.methods import choose
    from edge_latup.quantize.recipes import METHODS

    if runtime != ALL:
        return choose(method, parse_runtime(runtime))[0].summary
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}", f"choose one of: {', '.join(METHODS)}")
    return METHODS[method].summary


def _refuse_taken(method: str, runtime: str, out: Path, overwrite: bool) -> None:
    from edge_latup.artifact import refuse_existing
    from edge_latup.quantize.every_runtime import folders_of

    if runtime == ALL:
        folders_of(method, out, overwrite=overwrite)
    else:
        refuse_existing(out, overwrite)


def _calibrate(source: Artifact, folders: list[Path] | None, crops_per_case: int) -> Calibration | None:
    from edge_latup.quantize.calibration import make_calibration

    if not folders:
        return None
    output.note("reading calibration cases")
    return make_calibration(folders, source.manifest.spec, crops_per_case=crops_per_case)


def _for_one(source: Artifact, method: str, out: Path, runtime: str, options: dict[str, Any], *, fastest: bool) -> None:
    from edge_latup.quantize.fastest import quantize_fastest
    from edge_latup.quantize.methods import quantize as compress

    _show((quantize_fastest if fastest else compress)(source, method, out, runtime=parse_runtime(runtime), **options), source, runtime)


def _measured(source: Artifact, out: Path, choice: Choice, options: dict[str, Any]) -> Artifact:
    """With the operators that are fastest here."""
    from edge_latup.quantize.operators import quantize_fastest_operators

    return quantize_fastest_operators(source, out, estimator=choice.estimator, tell=output.note, **options)


def _show(artifact: Artifact, source: Artifact, runtime: str) -> None:
    from edge_latup.runtimes.audit import shortfall

    made = artifact.manifest
    if made.audit is not None and (text := shortfall(made.audit)):
        output.warning(text)
    share = made.model_size / source.manifest.model_size
    where = " (reference numerics, not executed in TensorRT)" if runtime == "tensorrt" else ""
    output.result(
        made.model_dump(mode="json"),
        f"{artifact.folder}: {made.model_size / 1e6:.2f} MB ({share:.1%} of the FP32 file); "
        f"on one phantom crop the same class as FP32 in {made.parity[-1].argmax_agreement:.4%} of voxels{where}",
    )


def _for_all(source: Artifact, method: str, out: Path, options: dict[str, Any]) -> None:
    """Make them all, tell what became of each, and end with the exit code of the first that failed."""
    from edge_latup.cli.rules import show_findings
    from edge_latup.quantize.every_runtime import quantize_for_all

    outcomes = quantize_for_all(source, method, out, progress=output.note, **options)
    output.table(f"{method} of {source.manifest.name}", COLUMNS, [_row(outcome, source.manifest) for outcome in outcomes], left=2)
    for outcome in outcomes:
        show_findings(outcome.findings, f"{outcome.runtime}: rules")
    output.result([_data(outcome) for outcome in outcomes])
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    for error in failed:
        output.error(error)
    if failed:
        raise typer.Exit(failed[0].exit_code)


def _row(outcome: Outcome, source: Manifest) -> tuple[str, ...]:
    if outcome.made is None:
        return (outcome.runtime, "not made", *[""] * (len(COLUMNS) - 2))
    made, parity = outcome.made.manifest, outcome.made.manifest.parity[-1]
    counts = [sum(finding.severity == severity for finding in outcome.findings) for severity in ("error", "warning")]
    rules = f"{counts[0]} errors, {counts[1]} warnings" if outcome.runtime == "tensorrt" else ""
    where = "reference numerics" if outcome.runtime == "tensorrt" else outcome.runtime
    return (
        outcome.runtime, str(outcome.made.folder), f"{made.model_size / 1e6:.2f}", f"{made.model_size / source.model_size:.1%}",
        f"{parity.argmax_agreement:.4%}", f"{parity.relative_l2:.4f}", rules, where,
    )  # fmt: skip


def _data(outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "runtime": outcome.runtime,
        "folder": None if outcome.made is None else str(outcome.made.folder),
        "manifest": None if outcome.made is None else outcome.made.manifest.model_dump(mode="json"),
        "error": None if outcome.error is None else {"message": outcome.error.message, "hint": outcome.error.hint},
        "findings": [asdict(finding) for finding in outcome.findings],
    }
