"""`edge-latup bench`: time artifacts side by side and record their drift."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_latup.artifact import open_artifact
from edge_latup.cli.options import Threads, parse_runtime
from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.bench.run import Entry
    from edge_latup.bench.store import LoadedRun


def parse_entry(text: str) -> Entry:
    """ARTIFACT or ARTIFACT@runtime; a folder whose own name holds an @ is taken as it is."""
    from edge_latup.bench.run import Entry
    from edge_latup.runtimes import choose_runtime

    folder, at, runtime = text.rpartition("@")
    if not at or Path(text).is_dir():
        folder, runtime = text, ""
    artifact = open_artifact(Path(folder))
    chosen = choose_runtime(artifact, parse_runtime(runtime) if runtime else None)
    return Entry(artifact=artifact, runtime=chosen, timed_only=chosen == "pytorch")


def bench(
    artifacts: Annotated[list[str], typer.Argument(help="Artifact folders; ARTIFACT@runtime chooses another runtime than its first.")],
    out: Annotated[Path, typer.Option(help="Run folder for the records; must not hold a run yet.")],
    cases: Annotated[list[Path] | None, typer.Option(help="Cases to measure drift on; may be repeated.")] = None,
    reference: Annotated[str | None, typer.Option(help="Artifact the others are compared with; the first that is not PyTorch.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Artifact the others' latency is divided by; the first.")] = None,
    runs: Annotated[int, typer.Option(min=2, help="Timed runs of each artifact, unless --seconds ends first.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of timed runs after which an artifact has been timed enough.")] = 10.0,
    threads: Threads = 0,
) -> None:
    """Time artifacts, each in a process of its own, and record their drift on cases. PyTorch is timed only."""
    from edge_latup.bench.run import Plan, run_bench
    from edge_latup.bench.store import load_run
    from edge_latup.cases.layout import find_cases
    from edge_latup.runtimes.base import usable_cores

    entries = tuple(parse_entry(text) for text in artifacts)
    compared = [entry.name for entry in entries if not entry.timed_only]
    if not compared:
        raise InputError("there is no artifact to compare: PyTorch is only timed", "add the artifact that edge-latup export made")
    plan = Plan(
        entries=entries, cases=tuple(case for folder in cases or [] for case in find_cases(folder)), reference=reference or compared[0],
        baseline=baseline or entries[0].name, threads=threads or usable_cores(), min_runs=runs, min_seconds=seconds,
        command=shlex.join(["edge-latup", *sys.argv[1:]]),
    )  # fmt: skip
    run_bench(plan, out, output.note)
    show_run(load_run(out))


def show_run(run: LoadedRun) -> None:
    """Write the run's tables beside its records and print them."""
    from edge_latup.bench import table
    from edge_latup.bench.cautions import cautions
    from edge_latup.records import write_text

    for name, text in (("table.csv", table.to_csv(run)), ("table.md", table.to_markdown(run)), ("table.json", table.to_json(run))):
        write_text(text, run.folder / name)
    for shown in table.tables(run):
        output.table(shown.title, shown.columns, shown.rows, left=shown.left)
    output.line(f"machine: {run.record.host.summary}")
    for caution in cautions(run):
        output.warning(str(caution))
    output.result(table.as_data(run), f"records and tables in {run.folder}")
