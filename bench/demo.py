"""The main job from end to end on the embedded checkpoint: phantoms, export, compression, bench, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.bench.report import render_report
from edge_latup.bench.run import Entry, Plan, run_bench
from edge_latup.cases.cohort import write_cohort
from edge_latup.cases.layout import CaseFiles, find_cases
from edge_latup.errors import MissingDependencyError
from edge_latup.export.torch_onnx import checkpoint_digest, export_onnx, export_reference, refuse_no_checkpoint
from edge_latup.manifest import Precision
from edge_latup.quantize.advice import int8_options
from edge_latup.quantize.calibration import make_calibration
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.prepared import looker, prepare
from edge_latup.runtimes.base import usable_cores
from edge_latup.targets.host import AMX, Host, describe_host

CALIBRATION_SEED: Final = 11
EVALUATION_SEED: Final = 12
"""Neither is a seed the demo checkpoint was trained on; the bench checks that by the cases' hashes."""
CALIBRATION_CASES: Final = 8
NOTE: Final = "demo checkpoint, trained briefly, mostly on synthetic cases: not for clinical use"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo made."""

    run: Path
    report: Path


def demo_checkpoint() -> Path:
    """Folder of the checkpoint that ships with the package: full LATUP-Net, its spec and its model card."""
    return Path(str(files("edge_latup") / "demo"))


def time_stamp() -> str:
    """Now in UTC, as a folder's name."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def notes_on(fp32: Artifact) -> tuple[str, ...]:
    """What a reader must know of the demo checkpoint, where it is what was exported."""
    exported = {step.parameters.get("checkpoint_sha256") for step in fp32.manifest.recipe}
    return (NOTE,) if checkpoint_digest(demo_checkpoint()) in exported else ()


def pairs_pay(host: Host) -> bool:
    """Whether INT8 with its float part in BF16 is made with taps in pairs: half-filled AMX tiles are what they are for."""
    return AMX in host.isa


def make_phantoms(folder: Path, seed: int, count: int, progress: Callable[[str], None]) -> list[CaseFiles]:
    """The first `count` phantoms of a cohort; those that are in `folder` already are kept."""
    made = []
    for case in write_cohort(folder, cases=count, seed=seed, workers=usable_cores()):
        made.append(case)
        progress(f"phantom {len(made)} of {count} in {folder.name}")
    return made


def compress(
    fp32: Artifact, folder: Path, calibration: Path, progress: Callable[[str], None], *, stored: Sequence[str] = ("dynamic-range",)
) -> list[Entry]:  # fmt: skip
    """The methods `stored`, which only store weights smaller, then bf16 and int8 as far as this CPU runs them in OpenVINO."""
    made = []
    fast: Precision = "fp32"
    for method in (*stored, "bf16"):
        progress(f"compressing: {method}")
        try:
            made.append(quantize(fp32, method, folder / method))
            fast = made[-1].manifest.float_precision
        except MissingDependencyError as error:
            progress(f"no {method} row: {error.message}")
    calibrated = make_calibration([calibration], fp32.manifest.spec)
    options = int8_options(fp32)
    progress("looking at the calibration inputs")
    with prepare(fp32.model_path, calibrated.inputs, runtime=looker(fp32)) as prepared:
        forms: list[tuple[str, Precision]] = [("int8", "fp32"), *([("int8-bf16", fast)] if fast == "bf16" else [])]
        for name, precision in forms:
            progress(f"compressing: {name}")
            paired = precision == "bf16" and pairs_pay(describe_host())
            made.append(
                quantize(
                    fp32, "int8", folder / name, calibration=calibrated, prepared=prepared, float_precision=precision, paired=paired,
                    **options,
                )
            )  # fmt: skip
    return [Entry(artifact=artifact, runtime="openvino") for artifact in made]


def run_demo(
    out: Path, *, checkpoint: Path, cases: Sequence[Path], phantoms: int, command: str, progress: Callable[[str], None]
) -> Demo:  # fmt: skip
    """Run the road and render its report.

    Args:
        out: phantoms are kept here between runs; each run gets a folder of its own.
        checkpoint: checkpoint folder.
        cases: folders of the user's own cases, evaluated beside the phantoms.
        phantoms: how many held-out phantoms to evaluate on.
        command: as typed, for the record.
        progress: gets a line at each step.

    Raises:
        EdgeLatupError: any step's own error.
    """
    refuse_no_checkpoint(checkpoint)  # what is mistyped is told before phantoms take their time
    own = [case for folder in cases for case in find_cases(folder)]
    run = out / time_stamp()
    calibration, evaluation = out / "phantoms-calibration", out / "phantoms-evaluation"
    make_phantoms(calibration, CALIBRATION_SEED, CALIBRATION_CASES, progress)
    held_out = make_phantoms(evaluation, EVALUATION_SEED, phantoms, progress)
    progress("exporting to ONNX and proving parity with PyTorch")
    artifacts = run / "artifacts"
    reference = export_reference(checkpoint, artifacts / "pytorch")
    fp32 = export_onnx(checkpoint, artifacts / "fp32")
    entries = (
        Entry(artifact=reference, runtime="pytorch", timed_only=True),
        Entry(artifact=fp32, runtime="openvino"),
        *compress(fp32, artifacts, calibration, progress),
    )
    plan = Plan(
        entries=entries, cases=(*held_out, *own), reference="fp32", baseline="pytorch", command=command, notes=notes_on(fp32)
    )  # fmt: skip
    run_bench(plan, run / "records", progress)
    progress("rendering the report")
    return Demo(run=run / "records", report=render_report(run / "records", run / "report.html"))
