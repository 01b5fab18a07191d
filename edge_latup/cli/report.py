"""`edge-latup report`: one HTML file from a bench run's records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.output import output


def report(
    run: Annotated[Path, typer.Argument(help="Folder that `edge-latup bench --out` wrote.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; report.html in that folder unless given.")] = None,
    sweep: Annotated[Path | None, typer.Option(help="Folder that `edge-latup bench --sweep` wrote, shown in a section of its own.")] = None,
) -> None:
    """Write a bench run's report: one HTML file that opens without a network, all of it from the run's records."""
    from edge_latup.bench.report import render_report
    from edge_latup.bench.sweep_store import load_sweep

    path = render_report(run, out or run / "report.html", load_sweep(sweep) if sweep else None)
    output.result({"report": str(path)}, str(path))
