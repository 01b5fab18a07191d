"""`edge-latup demo`: the main job from end to end."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.output import output


def demo(
    cases: Annotated[list[Path] | None, typer.Option(help="Your own cases, evaluated beside the phantoms; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for phantoms, artifacts, records and report.")] = Path("edge-latup-demo"),
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder; the embedded demo network unless given.")] = None,
    phantoms: Annotated[int, typer.Option(min=1, help="Held-out phantoms to evaluate on.")] = 8,
) -> None:
    """Export, compress, benchmark and report the embedded network on this machine, in about ten minutes on two cores."""
    from edge_latup.bench.demo import demo_checkpoint, run_demo
    from edge_latup.bench.store import load_run
    from edge_latup.cli.bench import show_run

    began = time.monotonic()
    made = run_demo(
        out,
        checkpoint=checkpoint or demo_checkpoint(),
        cases=cases or [],
        phantoms=phantoms,
        command=shlex.join(["edge-latup", *sys.argv[1:]]),
        progress=lambda line: output.note(f"[{time.monotonic() - began:5.0f} s] {line}"),
    )
    show_run(load_run(made.run))
    output.line(f"report: {made.report.resolve()}")
