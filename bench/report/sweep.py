"""The report's section on a sweep: a verdict, a plot and a table for each instruction set, never one for several."""

from __future__ import annotations

from typing import Any, Final

from edge_latup.bench.pareto import OBJECTIVES, Front, drop_of, front_of
from edge_latup.bench.records import TimingRow
from edge_latup.bench.report.theme import Plot, axis, colours, heading, label, latency_axis, layout, panels, suffix
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.bench.sweep_table import sweep_tables, unmeasured
from edge_latup.bench.sweep_verdict import sweep_verdicts
from edge_latup.targets.isa import NATIVE, IsaName, title

SYMBOLS: Final = {"openvino": "circle", "onnxruntime": "square", "pytorch": "diamond"}
LEGEND: Final = {"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top", "font": {"size": 12}}
ABOUT: Final = (
    "Left is faster, lower is better. Filled marks are the front: no other row of the panel beats them in {objectives}. "
    "Circles ran on OpenVINO, squares on ONNX Runtime; larger marks took more memory.{left_out}"
)


def sweep_context(sweep: LoadedSweep | None) -> dict[str, Any]:
    """What the template needs; nothing is shown without a sweep."""
    if sweep is None:
        return {"sweep_verdicts": [], "sweep_plots": [], "sweep_tables": [], "unmeasured": []}
    return {
        "sweep_verdicts": [(title(verdict.isa), verdict) for verdict in sweep_verdicts(sweep)],
        "sweep_plots": [vars(plot) for plot in sweep_plots(sweep)],
        "sweep_tables": sweep_tables(sweep, full=True),
        "unmeasured": unmeasured(sweep),
    }


def sweep_plots(sweep: LoadedSweep) -> list[Plot]:
    """Native rows in a plot of their own, emulated ones in another with a panel for each instruction set."""
    measured = [isa for isa in sweep.isas if sweep.timings(isa)]
    groups = {
        "native": ("Sweep: native", [isa for isa in measured if isa == NATIVE]),
        "emulated": ("Sweep: emulated instruction sets", [isa for isa in measured if isa != NATIVE]),
    }
    return [_plot(sweep, f"sweep-{name}", heading, isas) for name, (heading, isas) in groups.items() if isas]


def _plot(sweep: LoadedSweep, name: str, title_text: str, isas: list[IsaName]) -> Plot:
    fronts = [front_of(sweep, isa) for isa in isas]
    judged = [len(front.objectives) == len(OBJECTIVES) for front in fronts]
    names = dict.fromkeys(row.artifact for row in sweep_rows(sweep))
    palette = colours(names)
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    for index, (isa, place, front) in enumerate(zip(isas, panels(len(isas), gap=0.09), fronts, strict=True)):
        rows = [row for row in sweep.timings(isa) if drop_of(sweep, row) is not None or not judged[index]]
        data += [_mark(sweep, row, front, palette[row.artifact], index, judged=judged[index]) for row in rows]
        ticks = latency_axis("median latency (logarithmic)", [row.p50_ms for row in rows], domain=place, anchor=f"y{suffix(index)}")
        axes[f"xaxis{suffix(index)}"] = ticks
        what = "worst mean Dice drop" if judged[index] else "file size in MB"
        axes[f"yaxis{suffix(index)}"] = axis(what if index == 0 else "", anchor=f"x{suffix(index)}", rangemode="tozero")
    _name_once(data)
    titles = [heading(title(isa), sum(place) / 2) for isa, place in zip(isas, panels(len(isas), gap=0.09), strict=True)]
    drawn = layout(380, **axes, annotations=titles, showlegend=True, legend=LEGEND)
    return Plot(name=name, title=title_text, about=_about(fronts), figure={"data": data, "layout": drawn})


def sweep_rows(sweep: LoadedSweep) -> list[TimingRow]:
    """Every measured row, for names and colours only: figures of two instruction sets are not compared."""
    return [row.timing for row in sweep.rows.values() if row.timing is not None]


def _mark(sweep: LoadedSweep, row: TimingRow, front: Front, colour: str, panel: int, *, judged: bool) -> dict[str, Any]:
    drop, size = drop_of(sweep, row), row.model_bytes / 1e6
    symbol = SYMBOLS.get(row.runtime, "cross") + ("" if row in front.rows else "-open")
    peak = row.peak_rss_bytes / 2**20
    said = f"{label(row.artifact)} on {row.runtime}, {row.threads} threads<br>%{{x:,.1f}} ms, {peak:,.0f} MiB, {size:,.2f} MB"
    return {
        "type": "scatter", "mode": "markers", "x": [row.p50_ms], "y": [drop if judged else size], "name": label(row.artifact),
        "legendgroup": row.artifact, "xaxis": f"x{suffix(panel)}", "yaxis": f"y{suffix(panel)}", "cliponaxis": False,
        "marker": {"color": colour, "symbol": symbol, "size": 9 + 9 * min(1.0, peak / 2048), "line": {"color": colour, "width": 2}},
        "hovertemplate": f"{said}<br>Dice drop {'unknown' if drop is None else f'{drop:.4f}'}<extra></extra>",
    }  # fmt: skip


def _name_once(data: list[dict[str, Any]]) -> None:
    """One legend entry for each artifact."""
    seen: set[str] = set()
    for trace in data:
        trace["showlegend"] = trace["name"] not in seen
        seen.add(trace["name"])


def _about(fronts: list[Front]) -> str:
    objectives = max((front.objectives for front in fronts), key=len)
    lacking = sum(len(front.without_drift) for front in fronts) if len(objectives) == len(OBJECTIVES) else 0
    left_out = f" Not drawn: {lacking} rows without known drift." if lacking else ""
    return ABOUT.format(objectives=", ".join(objectives), left_out=left_out)
