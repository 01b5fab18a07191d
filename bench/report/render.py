"""From a run's records to one HTML file that needs nothing else."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_latup.bench.cautions import cautions
from edge_latup.bench.columns import DRIFT, TIMING, shown
from edge_latup.bench.judging import MARGIN
from edge_latup.bench.report.cases import attribution, case_tables, pictured, pictured_origin
from edge_latup.bench.report.drift_plots import case_plot, trade_plot
from edge_latup.bench.report.pictures import DIFFERENCE_COLOURS, LABEL_COLOURS, case_panels, picture_rows
from edge_latup.bench.report.speed_plots import latency_plot, memory_plot, size_plot
from edge_latup.bench.report.sweep import sweep_context
from edge_latup.bench.report.theme import ORIGIN_MARKS
from edge_latup.bench.speed_up import times_as_fast
from edge_latup.bench.store import LoadedRun, load_run
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.bench.table import tables
from edge_latup.bench.verdict import GAIN, Verdict, verdict
from edge_latup.errors import InputError, MissingDependencyError, install_hint
from edge_latup.records import write_text

if TYPE_CHECKING:
    import jinja2

HERE: Final = Path(__file__).parent
NEEDED: Final = {"jinja2": "jinja2", "plotly": "plotly", "PIL": "pillow"}
"""Packages of the report, by the name they are imported by."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One large figure at the top."""

    value: str
    caption: str


def render_report(run_folder: Path, out_html: Path, sweep: LoadedSweep | None = None) -> Path:
    """Write the report of a run, and of a sweep where one is given, as one self-contained HTML file, replacing `out_html` in one step.

    Raises:
        InputError: `out_html` is a folder; nothing is written.
        SpecError: a record of the run is missing, damaged or of another artifact; nothing is written.
        MissingDependencyError: jinja2, plotly or pillow is not installed; nothing is written.
    """
    if out_html.is_dir():
        raise InputError(f"{out_html} is a folder", f"name a file in it: {out_html / 'report.html'}")
    run = load_run(run_folder)
    _need_packages()
    page = _environment().get_template("report.html.j2").render(_context(run) | sweep_context(sweep))
    out_html.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, out_html)
    return out_html


def _need_packages() -> None:
    for module, package in NEEDED.items():
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"the report needs {package}, which is not installed", install_hint("engineer")) from error


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = shown
    return environment


def _context(run: LoadedRun) -> dict[str, Any]:
    judgement = verdict(run)
    return {
        "run": run,
        "record": run.record,
        "rows": list(run.rows.values()),
        "verdict": judgement,
        "tiles": _tiles(run, judgement),
        "warnings": cautions(run),
        "tables": tables(run, full=True),
        "columns": [column for columns in (TIMING, DRIFT[1:]) for column in columns],
        "plots": _plots(run),
        "case_tables": case_tables(run),
        "attribution": attribution(run),
        "limits": {"margin": MARGIN, "gain": GAIN},
        "style": (HERE / "report.css").read_text(encoding="utf-8"),
        "plotly_js": str(importlib.import_module("plotly.offline").get_plotlyjs()),
    } | _pictures(run)


def _plots(run: LoadedRun) -> list[dict[str, Any]]:
    made = (trade_plot(run), size_plot(run), memory_plot(run), latency_plot(run), case_plot(run))
    return [vars(plot) for plot in made if plot is not None]


def _pictures(run: LoadedRun) -> dict[str, Any]:
    picture = run.picture
    if picture is None:
        return {"picture": None}
    origin = pictured_origin(run)
    return {
        "picture": picture,
        "picture_origin": ORIGIN_MARKS[origin][0] if origin else "",
        "case_panels": case_panels(picture),
        "picture_rows": [(row, pictured(run, row.artifact)) for row in picture_rows(run, picture)],
        "legends": (list(LABEL_COLOURS.values()), list(DIFFERENCE_COLOURS.values())),
    }


def _tiles(run: LoadedRun, judgement: Verdict) -> list[Tile]:
    if judgement.use is None:
        return []
    row = run.rows[judgement.use]
    share = 100 * row.model_bytes / run.reference.model_bytes
    return [
        Tile(value=f"{times_as_fast(run, row, run.baseline):.1f}x", caption=f"as fast as {run.record.baseline}"),
        Tile(value=f"{row.p50_ms:,.0f} ms", caption=f"median of {len(row.samples_ms)} runs"),
        Tile(value=f"{row.model_bytes / 1e6:,.1f} MB", caption=f"file, {share:.0f} % of the reference's"),
        Tile(value=f"{row.peak_rss_bytes / 2**20:,.0f} MiB", caption="peak memory of the process"),
    ]
