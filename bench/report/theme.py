"""How plots look: colours that colour-blind readers tell apart, axes, and ticks of a latency axis."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from edge_latup.cases.identity import CaseOrigin
from edge_latup.spec import Region

Figure = dict[str, Any]
"""A plotly figure as plain data: {"data": [...], "layout": {...}}."""
Axis = dict[str, Any]

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B7280")
"""Okabe and Ito's colours, without the yellow that white paper hides."""
INK: Final = "#1F2937"
FAINT: Final = "#E5E7EB"
ALARM: Final = "#B91C1C"
FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
REGION_SYMBOLS: Final[dict[Region, str]] = {"WT": "circle", "TC": "square", "ET": "diamond"}
ORIGIN_MARKS: Final[dict[CaseOrigin, tuple[str, str, int, str]]] = {
    "phantom": ("phantom", "circle", 7, "#0072B2"),
    "real": ("real case", "star", 13, "#D55E00"),
    "real, pseudo-label": ("real case, pseudo-label", "star-open", 13, "#D55E00"),
}
"""Name, symbol, size and colour of a case's mark."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure with its name (a valid HTML id), title and explanation."""

    name: str
    title: str
    about: str
    figure: Figure


def colours(names: Iterable[str]) -> dict[str, str]:
    """One colour for each name, the same in every plot."""
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}


def layout(height: int, **more: Any) -> dict[str, Any]:
    """The layout all plots share, with additions."""
    shared: dict[str, Any] = {
        "height": height,
        "autosize": True,
        "margin": {"l": 20, "r": 20, "t": 30, "b": 50},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "#FFFFFF",
        "hoverlabel": {"font": {"family": FONT}},
        "showlegend": False,
    }
    return shared | more


def axis(title: str, **more: Any) -> Axis:
    """An axis with a title, with additions."""
    shared: Axis = {
        "title": {"text": title, "standoff": 12, "font": {"size": 13}},
        "gridcolor": FAINT,
        "linecolor": "#9CA3AF",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "#9CA3AF",
        "automargin": True,
    }
    return shared | more


def latency_axis(title: str, values_ms: Iterable[float], **more: Any) -> Axis:
    """A logarithmic axis of latencies, marked at 1, 2 and 5 of each decade in the unit people say."""
    from math import log10

    known = list(values_ms)
    low, high = min(known) / 1.5, max(known) * 1.5
    ticks = [step * 10.0**power for power in range(-3, 8) for step in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    fixed = {"type": "log", "range": [log10(low), log10(high)], "tickvals": inside, "ticktext": [_duration(tick) for tick in inside]}
    return axis(title, **fixed, **more)


def name_axis(names: Iterable[str], **more: Any) -> Axis:
    """A vertical axis of names, the first on top."""
    known = [label(name) for name in names]
    return axis("", type="category", categoryorder="array", categoryarray=known[::-1], **more)


def label(name: str) -> str:
    """A name as plotly text, which reads a little HTML."""
    return html.escape(name)


def heading(text: str, centre: float) -> dict[str, Any]:
    """A heading over a panel, at a share of the plot's width."""
    return {
        "text": f"<b>{text}</b>", "x": centre, "y": 1, "yanchor": "bottom", "xanchor": "center",
        "xref": "paper", "yref": "paper", "showarrow": False,
    }  # fmt: skip


def panels(number: int, gap: float = 0.05) -> list[tuple[float, float]]:
    """Left and right end of `number` panels of one width, in shares of the plot's width."""
    width = (1 - gap * (number - 1)) / number
    return [(index * (width + gap), min(1.0, index * (width + gap) + width)) for index in range(number)]


def suffix(index: int) -> str:
    """What plotly appends to the name of the axes of the panel with this index: nothing, "2", "3"."""
    return "" if index == 0 else str(index + 1)


def _duration(milliseconds: float) -> str:
    return f"{milliseconds / 1000:g} s" if milliseconds >= 1000 else f"{milliseconds:g} ms"
