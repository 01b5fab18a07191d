"""Plots of what was timed: latency, file size, memory."""

from __future__ import annotations

from typing import Any

from edge_latup.bench.records import TimingRow
from edge_latup.bench.report.theme import FAINT, Plot, axis, colours, heading, label, latency_axis, layout, name_axis, panels
from edge_latup.bench.store import LoadedRun

BAR_HEIGHT = 34
FRAME_HEIGHT = 110


def size_plot(run: LoadedRun) -> Plot:
    """File size of every artifact."""
    megabytes = [row.model_bytes / 1e6 for row in run.rows.values()]
    bars = _bars(run, megabytes, marker={"color": list(colours(run.rows).values())}, text=[f"{size:,.2f}" for size in megabytes])
    drawn = {
        "data": [bars | {"hovertemplate": "%{y}: %{x:,.2f} MB<extra></extra>"}],
        "layout": _bar_layout(run, "MB (1,000,000 bytes)", megabytes),
    }
    return Plot(name="size", title="File size", about="All model files of the artifact.", figure=drawn)


def memory_plot(run: LoadedRun) -> Plot:
    """Peak memory: what the process held before the model, and what the model added."""
    rows = run.rows.values()
    peak = [row.peak_rss_bytes / 2**20 for row in rows]
    added = [row.rss_delta_bytes / 2**20 for row in rows]
    before = [total - delta for total, delta in zip(peak, added, strict=True)]
    data = [
        _bars(run, before, name="before the model", marker={"color": "#9CA3AF"}),
        _bars(
            run,
            added,
            name="added by the model",
            marker={"color": list(colours(run.rows).values())},
            text=[f"{total:,.0f}" for total in peak],
        ),
    ]
    for bars in data:
        bars["hovertemplate"] = "%{y}: %{x:,.0f} MiB %{data.name}<extra></extra>"
    about = (
        "Peak resident memory of the timing process. Grey: held after its imports, before the model was loaded; colour: what came on top."
    )
    drawn = {"data": data, "layout": _bar_layout(run, "MiB", peak) | {"barmode": "stack"}}
    return Plot(name="memory", title="Peak memory", about=about, figure=drawn)


def latency_plot(run: LoadedRun) -> Plot:
    """Every latency sample: left as it is, right relative to the artifact's own median."""
    left, right = panels(2)
    samples = [value for row in run.rows.values() for value in row.samples_ms]
    data = [strip for row in run.rows.values() for strip in (_strip(run, row, row.samples_ms, ""), _strip(run, row, _relative(row), "2"))]
    drawn = layout(
        FRAME_HEIGHT + 52 * len(run.rows),
        xaxis=latency_axis("latency of one input (logarithmic)", samples, domain=left),
        xaxis2=axis("difference from the artifact's own median", domain=right, ticksuffix=" %", zeroline=True, zerolinecolor="#9CA3AF"),
        yaxis=name_axis(run.rows),
        yaxis2=name_axis(run.rows, anchor="x2", showticklabels=False),
        annotations=[heading("absolute", sum(left) / 2), heading("spread", sum(right) / 2)],
    )
    about = (
        "Each point is one timed run (spread vertically only to be seen); the box spans the quartiles. "
        "The right panel shows how steady each artifact is."
    )
    return Plot(name="latency", title="Latency samples", about=about, figure={"data": data, "layout": drawn})


def _bars(run: LoadedRun, values: list[float], **more: Any) -> dict[str, Any]:
    shared = {"type": "bar", "orientation": "h", "y": [label(name) for name in run.rows], "x": values}
    return shared | {"textposition": "outside", "cliponaxis": False, "textangle": 0} | more


def _bar_layout(run: LoadedRun, title: str, values: list[float]) -> dict[str, Any]:
    span = [0, 1.2 * max(values)]
    height = FRAME_HEIGHT + BAR_HEIGHT * len(run.rows)
    return layout(height, xaxis=axis(title, range=span), yaxis=name_axis(run.rows, gridcolor=FAINT), bargap=0.35)


def _relative(row: TimingRow) -> tuple[float, ...]:
    return tuple(100 * (value / row.p50_ms - 1) for value in row.samples_ms)


def _strip(run: LoadedRun, row: TimingRow, values: tuple[float, ...], panel: str) -> dict[str, Any]:
    colour = colours(run.rows)[row.artifact]
    return {
        "type": "box", "orientation": "h", "x": list(values), "y": [label(row.artifact)] * len(values),
        "xaxis": f"x{panel}", "yaxis": f"y{panel}", "name": label(row.artifact),
        "boxpoints": "all", "jitter": 0.7, "pointpos": 0, "line": {"color": colour, "width": 1}, "fillcolor": f"{colour}22",
        "marker": {"color": colour, "size": 4, "opacity": 0.65}, "customdata": list(row.samples_ms),
        "hovertemplate": "%{y}: %{customdata:,.1f} ms<extra></extra>", "hoveron": "points",
    }  # fmt: skip
