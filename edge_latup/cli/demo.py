"""`edge-latup demo`: the main job from end to end."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_latup.cli.output import output

if TYPE_CHECKING:
    from edge_latup.bench.full import Full


def demo(
    cases: Annotated[list[Path] | None, typer.Option(help="Your own cases, evaluated beside the phantoms; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for phantoms, artifacts, records and report.")] = Path("edge-latup-demo"),
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder; the embedded demo network unless given.")] = None,
    phantoms: Annotated[int, typer.Option(min=1, help="Held-out phantoms to evaluate on.")] = 8,
    full: Annotated[bool, typer.Option("--full", help="Also rewrite the graph, judge by the gate, and sweep instruction sets.")] = False,
) -> None:
    """Export, compress, benchmark and report the embedded network on this machine, in about ten minutes on two cores."""
    from edge_latup.bench.demo import demo_checkpoint, run_demo
    from edge_latup.bench.full import run_full
    from edge_latup.bench.store import load_run
    from edge_latup.cli.bench import show_run

    network, command = checkpoint or demo_checkpoint(), shlex.join(["edge-latup", *sys.argv[1:]])
    if full:
        show_full(run_full(out, checkpoint=network, cases=cases or [], phantoms=phantoms, command=command, progress=_timed()))
        return
    made = run_demo(out, checkpoint=network, cases=cases or [], phantoms=phantoms, command=command, progress=_timed())
    show_run(load_run(made.run))
    output.line(f"report: {made.report.resolve()}")


def _timed() -> Callable[[str], None]:
    """Progress with the seconds since now in front."""
    began = time.monotonic()
    return lambda line: output.note(f"[{time.monotonic() - began:5.0f} s] {line}")


def show_full(made: Full) -> None:
    """Print what every stage found."""
    from edge_latup.bench import sweep_table, table
    from edge_latup.bench.sweep_bounds import check_bounds
    from edge_latup.cli.bench import print_run
    from edge_latup.cli.bench_sweep import print_sweep

    print_run(made.run)
    output.line("audit:")
    for line in made.audit:
        output.line(f"  {line}")
    output.line("gate:")
    for decision in made.decisions:
        found = "accepted" if decision.accepted else f"refused: {'; '.join(decision.reasons)}"
        output.line(f"  {decision.candidate}: {found}")
    print_sweep(made.sweep)
    bounds = [checked.line for checked in check_bounds(made.sweep)]
    for line in bounds:
        output.line(line)
    output.table("Time", ("stage", "s"), [(name, f"{seconds:,.0f}") for name, seconds in made.seconds.items()])
    told = {
        "run": table.as_data(made.run), "audit": list(made.audit), "accepted": {one.candidate: one.accepted for one in made.decisions},
        "sweep": sweep_table.as_data(made.sweep), "bounds": bounds, "seconds": made.seconds, "report": str(made.report.resolve()),
    }  # fmt: skip
    output.result(told, f"report: {made.report.resolve()}")
