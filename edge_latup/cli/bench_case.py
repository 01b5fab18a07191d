"""`edge-latup bench-case`: one case from files to label map, beside MONAI."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from edge_latup.cli.bench import parse_entry
from edge_latup.cli.options import Threads, one_case
from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.bench.case.artifacts import DemoArtifacts
    from edge_latup.bench.case.policies import OwnPolicy
    from edge_latup.bench.case.store import LoadedComparison


def _policies(names: list[str] | None) -> tuple[OwnPolicy, ...]:
    from edge_latup.bench.case.policies import POLICIES

    if unknown := [name for name in names or () if name not in POLICIES]:
        raise InputError(f"unknown policy {unknown[0]!r}", f"choose among: {', '.join(POLICIES)}")
    return tuple(policy for policy in POLICIES if not names or policy in names)


def _artifacts(names: list[str], reference: Path | None, demo: Path) -> DemoArtifacts:
    """What was named, or else what the newest demo run made, or else what is made now."""
    from edge_latup.artifact import open_artifact
    from edge_latup.bench.case.artifacts import DemoArtifacts, make_artifacts, newest_artifacts, open_artifacts
    from edge_latup.bench.demo import demo_checkpoint

    if bool(names) != (reference is not None):
        hint = "name the PyTorch artifact with --reference and the others as arguments, or none of them for those of the demo"
        raise InputError("--reference and the artifacts go together", hint)
    if reference is not None:
        return DemoArtifacts(reference=open_artifact(reference), entries=tuple(parse_entry(name) for name in names))
    folder = newest_artifacts(demo) or make_artifacts(demo, demo_checkpoint(), output.note)
    output.note(f"artifacts of {folder}")
    return open_artifacts(folder)


def bench_case(
    case: Annotated[Path, typer.Argument(help="Case folder (BraTS names) or 4-D NIfTI file.")],
    out: Annotated[Path, typer.Option(help="Folder for records, label maps and tables; must not hold a comparison yet.")],
    artifacts: Annotated[list[str] | None, typer.Argument(help="Artifact folders (or ARTIFACT@runtime), FP32 among them.")] = None,
    reference: Annotated[Path | None, typer.Option(help="PyTorch artifact, as export --reference makes it.")] = None,
    demo: Annotated[Path, typer.Option(help="Where artifacts are looked for, or made, when none are named.")] = Path("edge-latup-demo"),
    policy: Annotated[list[str] | None, typer.Option(help="centre-crop, brain-crop, sliding-window or head-windows; all.")] = None,
    blending: Annotated[str, typer.Option(help="Weights of a window's voxels, on both sides: constant or gaussian.")] = "constant",
    repeats: Annotated[int, typer.Option(min=1, help="Warm runs of each of our rows, unless --seconds ends first.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of warm runs after which a row has run enough.")] = 60.0,
    monai_runs: Annotated[int, typer.Option(min=0, help="Runs of each MONAI row, which take minutes; 0 leaves MONAI out.")] = 1,
    threads: Threads = 0,
) -> None:
    """Segment one case with MONAI and PyTorch and with our own engine, each in a process of its own: time, memory, agreement."""
    from edge_latup.bench.case.plan import CasePlan
    from edge_latup.bench.case.run import compare
    from edge_latup.bench.case.with_monai import check_monai
    from edge_latup.runtimes.base import usable_cores
    from edge_latup.segmentation.overrides import parse_name
    from edge_latup.spec import Blending

    files, policies, weights = one_case(case), _policies(policy), parse_name(blending, get_args(Blending), "--blending")
    if monai_runs:
        check_monai()
    given = _artifacts(artifacts or [], reference, demo)
    plan = CasePlan(
        files=files, reference=given.reference, entries=given.entries, policies=policies, blending=weights, repeats=repeats,
        seconds=seconds, monai_runs=monai_runs, threads=threads or usable_cores(), command=shlex.join(["edge-latup", *sys.argv[1:]]),
    )  # fmt: skip
    show_comparison(compare(plan, out, output.note))


def show_comparison(run: LoadedComparison) -> None:
    """Write the comparison's tables beside its records and print them."""
    from edge_latup.bench.case import table
    from edge_latup.records import write_text

    for name, text in (("table.md", table.to_markdown(run)), ("table.json", table.to_json(run))):
        write_text(text, run.folder / name)
    for shown in table.tables(run):
        output.table(shown.title, shown.columns, shown.rows, left=shown.left)
    output.line(f"machine: {run.record.host.summary}")
    for caution in table.cautions(run):
        output.warning(caution)
    output.result(table.as_data(run), f"records, label maps and tables in {run.folder}")
