"""`edge-latup control`: INT8 that leaves in float what has to be, so that the gate accepts."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from edge_latup.cli.gate import parse_rule
from edge_latup.cli.options import Threads
from edge_latup.cli.output import output
from edge_latup.errors import ArtifactError, GateRefusedError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from edge_latup.artifact import Artifact
    from edge_latup.bench.accuracy_measure import Make
    from edge_latup.bench.accuracy_records import ControlResult
    from edge_latup.cases.layout import CaseFiles
    from edge_latup.manifest import Precision
    from edge_latup.quantize.calibration import Calibration
    from edge_latup.quantize.prepared import Prepared


def control(
    artifact: Annotated[Path, typer.Argument(help="FP32 ONNX artifact, as `edge-latup export` makes it.")],
    calibration: Annotated[list[Path], typer.Option(help="Cases that find the ranges; may be repeated.")],
    cases: Annotated[list[Path], typer.Option(help="Development cases: they rank the layers and choose; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder of the search; repeat the command to continue one that was interrupted.")],
    confirm: Annotated[
        list[Path] | None, typer.Option(help="Cases that judge the choice; else, of enough --cases, those whose hashes decide.")
    ] = None,
    margin: Annotated[float | None, typer.Option(help="Mean Dice drop that must be excluded in each region; 0.005.")] = None,
    rule: Annotated[Path | None, typer.Option(help="The gate's whole rule as JSON, instead of --margin.")] = None,
    float_precision: Annotated[str, typer.Option(help="What the float part is computed in: fp32 or bf16.")] = "fp32",
    crops_per_case: Annotated[int, typer.Option(min=1, help="Calibration crops of a case: the deployed one, then ones with tumour.")] = 1,
    beside: Annotated[
        list[Path] | None, typer.Option("--float", help="Float artifact to time the choice beside; a bf16 one is made where it can run.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Candidates that may come before the gate after the ranking.")] = None,
    runs: Annotated[int, typer.Option(min=2, help="Timed runs of each artifact at the end, unless --seconds ends first.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of timed runs after which an artifact has been timed enough.")] = 10.0,
    threads: Threads = 0,
) -> None:
    """Leave in float the layers whose INT8 costs most Dice on whole cases, until the gate accepts. Exit code 4 if it never does."""
    from edge_latup.artifact import open_artifact
    from edge_latup.bench.accuracy_run import ControlPlan
    from edge_latup.bench.accuracy_run import control as run
    from edge_latup.quantize.calibration import make_calibration
    from edge_latup.quantize.methods import choose
    from edge_latup.runtimes.base import usable_cores

    if float_precision not in ("fp32", "bf16"):
        raise InputError(f"--float-precision {float_precision!r} is not known", "choose fp32 or bf16")
    choose("int8", "openvino")
    fixed, source = parse_rule(margin, rule), open_artifact(artifact)
    if source.manifest.format != "onnx" or source.manifest.storage != "float32":
        raise ArtifactError(f"{artifact} is not an FP32 ONNX artifact", "give the artifact that edge-latup export made")
    output.note("reading calibration cases")
    inputs = make_calibration(calibration, source.manifest.spec, crops_per_case=crops_per_case)
    with _maker(source, inputs, cast("Precision", float_precision)) as make:
        plan = ControlPlan(
            reference=source, make=make, calibration=inputs.cases, cases=_found(cases),
            confirm=None if confirm is None else _found(confirm), rule=fixed,
            settings={"method": "int8", "float_precision": float_precision, "crops_per_case": crops_per_case, "bf16_beside": not beside},
            floats=tuple(open_artifact(folder) for folder in beside or ()),
            make_float=None if beside else functools.partial(_bf16, source),
            threads=threads or usable_cores(), max_steps=max_steps, min_runs=runs, min_seconds=seconds,
            command=shlex.join(["edge-latup", *sys.argv[1:]]),
        )  # fmt: skip
        result = run(plan, out, output.note)
    _show(result, out)


def _found(folders: list[Path]) -> tuple[CaseFiles, ...]:
    from edge_latup.cases.layout import find_cases

    return tuple(files for folder in folders for files in find_cases(folder))


@contextmanager
def _maker(source: Artifact, inputs: Calibration, float_precision: Precision) -> Iterator[Make]:
    """Makes every candidate from one calibration, which is done when the first is made: a search that goes on may need none."""
    from edge_latup.quantize.methods import quantize
    from edge_latup.quantize.prepared import looker, prepare

    with ExitStack() as stack:

        @functools.cache
        def prepared() -> Prepared:
            output.note("calibrating")
            return stack.enter_context(prepare(source.model_path, inputs.inputs, runtime=looker(source)))

        def make(keep_float: tuple[str, ...], folder: Path) -> Artifact:
            return quantize(
                source, "int8", folder, calibration=inputs, prepared=prepared(), keep_float=keep_float, float_precision=float_precision
            )

        yield make


def _bf16(source: Artifact, folder: Path) -> Artifact | None:
    """The BF16 artifact, the fastest float one where the CPU computes it; None where it does not."""
    from edge_latup.artifact import open_artifact
    from edge_latup.quantize.methods import quantize

    path = folder / "bf16"
    try:
        return open_artifact(path) if path.exists() else quantize(source, "bf16", path)
    except MissingDependencyError as error:
        output.note(f"no bf16 row: {error.message}")
        return None


def _show(result: ControlResult, out: Path) -> None:
    from edge_latup.bench.accuracy_table import control_lines, control_tables, control_warnings

    for table in control_tables(result):
        output.table(table.title, table.columns, table.rows, left=table.left)
    lines = list(control_lines(result))
    for warning in control_warnings(result):
        output.warning(warning)
    output.result(_data(result, lines), "\n".join([*lines, f"records in {out}"]))
    if not result.accepted:
        raise GateRefusedError(f"no INT8 candidate is accepted ({result.outcome})", _remedy(result))


def _data(result: ControlResult, lines: list[str]) -> dict[str, Any]:
    return result.model_dump(mode="json") | {"accepted": result.accepted, "text": lines}


REMEDIES = {
    "refused: INT8 cannot meet the rule": "use a float artifact, or calibrate on more cases",
    "refused: convolutions are not to blame": "all of them in float are refused too: look at the rule, the cases and --float-precision",
    "refused: INT8 does not run here": "look at edge-latup inspect --audit of the candidate; use a float artifact on this machine",
    "refused: out of steps": "repeat the command with more --max-steps: the search goes on where it stopped",
    "refused: not confirmed": "use a float artifact: choosing again by the same confirmation cases would prove nothing",
}


def _remedy(result: ControlResult) -> str:
    return REMEDIES[result.outcome]
