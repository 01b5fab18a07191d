"""Plots of drift: speed against the mean drop, and every case for itself."""

from __future__ import annotations

from typing import Any, Final

from edge_latup.bench.judging import MARGIN
from edge_latup.bench.records import DriftRecord
from edge_latup.bench.report.theme import (
    ALARM,
    ORIGIN_MARKS,
    REGION_SYMBOLS,
    Axis,
    Plot,
    axis,
    colours,
    heading,
    label,
    latency_axis,
    layout,
    panels,
    suffix,
)
from edge_latup.bench.store import LoadedRun
from edge_latup.bench.summary import ORIGIN_TITLES, present_origins, summarise
from edge_latup.cases.identity import CaseOrigin
from edge_latup.spec import REGIONS, Region

LEGEND: Final = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "font": {"size": 12}}
LANE: Final = 0.32
"""Half the height over which the cases of one candidate are spread."""


def trade_plot(run: LoadedRun) -> Plot | None:
    """Median latency against mean Dice drop, a panel for each origin of cases; None where no case has a label."""
    origins = [origin for origin in present_origins(run) if any(_points(run, name, origin) for name in run.drift)]
    if not origins:
        return None
    data = [point for index, origin in enumerate(origins) for name in run.drift for point in _marks(run, name, origin, index)]
    data += [_reference_mark(run, index) for index in range(len(origins))] + [_symbol_key(region) for region in _regions(run)]
    latencies = [row.p50_ms for row in run.rows.values()]
    axes: dict[str, Any] = {}
    for index, place in enumerate(panels(len(origins))):
        axes[f"xaxis{suffix(index)}"] = latency_axis("median latency (logarithmic)", latencies, domain=place, anchor=f"y{suffix(index)}")
        axes[f"yaxis{suffix(index)}"] = _drop_axis(data, index)
    titles = [heading(ORIGIN_TITLES[origin], sum(place) / 2) for origin, place in zip(origins, panels(len(origins)), strict=True)]
    drawn = layout(
        430, **axes, shapes=[_margin_line(index) for index in range(len(origins))], annotations=titles, showlegend=True, legend=LEGEND
    )
    about = (
        f"Left is faster, lower is better; below the dashed line (a mean drop of {MARGIN}) a candidate is accepted. "
        f"The reference {run.record.reference} has no drop, and a median of {run.reference.p50_ms:,.1f} ms."
    )
    return Plot(name="trade", title="Speed versus drift", about=about, figure={"data": data, "layout": drawn})


def case_plot(run: LoadedRun) -> Plot | None:
    """The Dice drop of every labelled case, a panel for each region; None where no case has a label."""
    origins, regions = present_origins(run), _regions(run)
    data = [
        points
        for index, region in enumerate(regions)
        for origin in origins
        for lane, record in enumerate(run.drift.values())
        if (points := _case_points(record, region, origin, lane, index))["x"]
    ]
    if not data:
        return None
    _name_once(data)
    axes: dict[str, Any] = {}
    for index, place in enumerate(panels(len(regions))):
        axes[f"xaxis{suffix(index)}"] = _case_axis(place, index)
        axes[f"yaxis{suffix(index)}"] = _lanes(run, index)
    titles = [heading(region, sum(place) / 2) for region, place in zip(regions, panels(len(regions)), strict=True)]
    legend = LEGEND | {"y": -60 / (110 + 62 * len(run.drift))}
    drawn = layout(190 + 62 * len(run.drift), **axes, annotations=titles, showlegend=True, legend=legend)
    about = (
        "One mark is one labelled case: reference minus candidate, so right of the line is worse. Point at a mark to read the case's name."
    )
    return Plot(name="cases", title="Dice drop, case by case", about=about, figure={"data": data, "layout": drawn})


def _regions(run: LoadedRun) -> tuple[Region, ...]:
    """Those that some artifact can find."""
    return tuple(region for region in REGIONS if any(region in record.regions for record in run.drift.values()))


def _points(run: LoadedRun, name: str, origin: CaseOrigin) -> dict[Region, float]:
    summary = summarise(run.drift[name], origin)
    return summary.dice_drop if summary else {}


def _marks(run: LoadedRun, name: str, origin: CaseOrigin, panel: int) -> list[dict[str, Any]]:
    drops = _points(run, name, origin)
    if not drops:
        return []
    symbols = [REGION_SYMBOLS[region] for region in drops]
    return [
        {
            "type": "scatter", "mode": "markers", "name": label(name), "legendgroup": name, "showlegend": panel == 0,
            "x": [run.rows[name].p50_ms] * len(drops), "y": list(drops.values()), "text": list(drops),
            "xaxis": f"x{suffix(panel)}", "yaxis": f"y{suffix(panel)}",
            "marker": {"color": colours(run.rows)[name], "symbol": symbols, "size": 11, "line": {"color": "#FFFFFF", "width": 1}},
            "hovertemplate": f"{label(name)}, %{{text}}: %{{y:+.5f}} at %{{x:,.1f}} ms<extra></extra>",
        }
    ]  # fmt: skip


def _reference_mark(run: LoadedRun, panel: int) -> dict[str, Any]:
    name = label(run.record.reference)
    return {
        "type": "scatter", "mode": "markers", "name": f"{name} (reference)", "showlegend": panel == 0, "legendgroup": "reference",
        "x": [run.reference.p50_ms], "y": [0], "xaxis": f"x{suffix(panel)}", "yaxis": f"y{suffix(panel)}",
        "marker": {"color": colours(run.rows)[run.record.reference], "symbol": "x", "size": 11},
        "hovertemplate": f"{name}, the reference: %{{x:,.1f}} ms<extra></extra>",
    }  # fmt: skip


def _symbol_key(region: Region) -> dict[str, Any]:
    marker = {"color": "#6B7280", "symbol": REGION_SYMBOLS[region], "size": 10}
    return {"type": "scatter", "mode": "markers", "name": region, "x": [None], "y": [None], "marker": marker, "showlegend": True}


def _drop_axis(data: list[dict[str, Any]], panel: int) -> Axis:
    """One vertical axis for all panels: every drop and the margin, with room above and below."""
    drops = [drop for points in data for drop in points["y"] if drop is not None]
    low, high = min(0.0, *drops), max(MARGIN, *drops)
    room = 0.08 * (high - low)
    shared = {"anchor": f"x{suffix(panel)}", "tickformat": ".4~f", "range": [low - room, high + room]}
    return axis("mean Dice drop", **shared) if panel == 0 else axis("", matches="y", showticklabels=False, **shared)


def _case_axis(place: tuple[float, float], panel: int) -> Axis:
    """One scale for all panels, with a line at zero."""
    shared = {"domain": place, "anchor": f"y{suffix(panel)}", "tickformat": ".4~f", "nticks": 5}
    zero = {"zeroline": True, "zerolinecolor": "#6B7280", "zerolinewidth": 1.5}
    return axis("Dice drop", **shared, **zero, **({"matches": "x"} if panel else {}))


def _margin_line(panel: int) -> dict[str, Any]:
    return {
        "type": "line", "layer": "above", "line": {"color": ALARM, "width": 1.5, "dash": "dash"},
        "x0": 0, "x1": 1, "xref": f"x{suffix(panel)} domain", "y0": MARGIN, "y1": MARGIN, "yref": f"y{suffix(panel)}",
    }  # fmt: skip


def _case_points(record: DriftRecord, region: Region, origin: CaseOrigin, lane: int, panel: int) -> dict[str, Any]:
    title, symbol, size, colour = ORIGIN_MARKS[origin]
    found = [
        (case.case, index, case.regions[region].dice_drop)
        for index, case in enumerate(record.cases)
        if case.origin == origin and region in case.regions and case.regions[region].dice_drop is not None
    ]
    return {
        "type": "scatter", "mode": "markers", "name": title, "legendgroup": origin, "showlegend": False,
        "x": [drop for _, _, drop in found], "y": [lane + _offset(index, len(record.cases)) for _, index, _ in found],
        "text": [label(case) for case, _, _ in found], "xaxis": f"x{suffix(panel)}", "yaxis": f"y{suffix(panel)}",
        "marker": {"symbol": symbol, "size": size, "opacity": 0.85, "color": colour},
        "hovertemplate": f"%{{text}}, {region}: %{{x:+.5f}}<extra>{label(record.artifact)}</extra>",
    }  # fmt: skip


def _offset(index: int, number: int) -> float:
    """Spread cases over their candidate's lane, in one order everywhere."""
    return 0.0 if number == 1 else LANE * (2 * index / (number - 1) - 1)


def _name_once(data: list[dict[str, Any]]) -> None:
    named: set[str] = set()
    for points in data:
        points["showlegend"] = points["legendgroup"] not in named
        named.add(points["legendgroup"])


def _lanes(run: LoadedRun, panel: int) -> dict[str, Any]:
    number = len(run.drift)
    ticks = {"tickvals": list(range(number)), "ticktext": [label(name) for name in run.drift], "showticklabels": panel == 0}
    return axis("", anchor=f"x{suffix(panel)}", range=[number - 0.5, -0.5], **ticks)
