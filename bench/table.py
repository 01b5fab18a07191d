"""A run's figures as tables: for the terminal, Markdown, CSV and JSON. The columns are those of `columns`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_latup.bench.cautions import cautions
from edge_latup.bench.columns import DRIFT, TIMING, Column, Drifted, Item, Timed, Value
from edge_latup.bench.store import LoadedRun
from edge_latup.bench.summary import ORIGIN_TITLES, present_origins, summarise
from edge_latup.cases.identity import CaseOrigin


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as people read it; fits `cli.output.Output.table(title, columns, rows, left=left)`."""

    title: str
    headers: tuple[tuple[str, str], ...]
    """Header and unit."""
    about: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int
    """So many columns, from the left, hold text."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings: the unit below the header."""
        return tuple(f"{header}\n{unit}".rstrip() for header, unit in self.headers)


def tables(run: LoadedRun, *, full: bool = False) -> list[Table]:
    """The timing table, then one drift table for each origin of cases; `full` adds the columns a terminal has no room for."""
    return [timing_table(run, full=full), *(drift_table(run, origin, full=full) for origin in present_origins(run))]


def timing_table(run: LoadedRun, *, full: bool = False) -> Table:
    """Latency, memory and size of every artifact."""
    turns = "" if run.record.turns is None else f"in turns, {run.record.turns} rounds; "
    title = f"Speed, memory and size ({turns}speed-up against {run.record.baseline}, file against {run.record.reference})"
    return make_table(title, TIMING, [Timed(row=row, run=run) for row in run.rows.values()], full=full)


def drift_table(run: LoadedRun, origin: CaseOrigin, *, full: bool = False) -> Table:
    """Drift of every candidate on the cases of one origin."""
    return make_table(f"Drift against {run.record.reference} on {ORIGIN_TITLES[origin]}", DRIFT, list(_drifted(run, origin)), full=full)


def make_table(title: str, columns: tuple[Column[Item], ...], lines: list[Item], *, full: bool) -> Table:
    """Columns applied to lines. Those that `full` adds are left out where no line has a value."""
    shown = [column for column in columns if not column.full or (full and any(column.value(line) is not None for line in lines))]
    return Table(
        title=title,
        headers=tuple((column.header, column.unit) for column in shown),
        about=tuple(column.about for column in shown),
        rows=tuple(tuple(column.show(line) for column in shown) for line in lines),
        left=next((index for index, column in enumerate(shown) if column.spec), len(shown)),
    )


def _drifted(run: LoadedRun, origin: CaseOrigin) -> Iterator[Drifted]:
    for name, record in run.drift.items():
        if (summary := summarise(record, origin)) is not None:
            yield Drifted(artifact=name, drift=summary)


def as_data(run: LoadedRun) -> dict[str, Any]:
    """The tables as plain values for JSON: unrounded, None where a figure does not exist."""
    drift = {origin: {line.artifact: values_of(DRIFT[1:], line) for line in _drifted(run, origin)} for origin in present_origins(run)}
    artifacts = [
        values_of(TIMING, Timed(row=row, run=run))
        | {"drift": {origin: by_name[name] for origin, by_name in drift.items() if name in by_name}}
        for name, row in run.rows.items()
    ]
    return {
        "schema_version": 1,
        "machine": run.record.host.summary,
        "started": run.record.started,
        "reference": run.record.reference,
        "baseline": run.record.baseline,
        "artifacts": artifacts,
        "warnings": cautions(run),
    }


def values_of(columns: tuple[Column[Item], ...], line: Item) -> dict[str, Value]:
    """The values of a line, unrounded, by column."""
    return {column.name: column.value(line) for column in columns}


def to_json(run: LoadedRun) -> str:
    """`as_data` as indented JSON text."""
    return json.dumps(as_data(run), indent=2) + "\n"


def to_csv(run: LoadedRun) -> str:
    """One line for each artifact; drift columns carry their origin in front of their name; empty where a figure does not exist."""
    origins = present_origins(run)
    drift = {origin: {line.artifact: line for line in _drifted(run, origin)} for origin in origins}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([c.name for c in TIMING] + [f"{_slug(origin)}_{c.name}" for origin in origins for c in DRIFT[1:]])
    for name, row in run.rows.items():
        timed: list[Value] = list(values_of(TIMING, Timed(row=row, run=run)).values())
        for origin in origins:
            line = drift[origin].get(name)
            timed += [column.value(line) if line else None for column in DRIFT[1:]]
        writer.writerow(timed)
    return text.getvalue()


def _slug(origin: CaseOrigin) -> str:
    return origin.replace(", ", "_").replace("-", "_")


def to_markdown(run: LoadedRun) -> str:
    """Machine, tables and warnings."""
    parts = [f"Machine: {run.record.host.summary}", *(markdown_table(table) for table in tables(run, full=True))]
    warnings = cautions(run)
    if warnings:
        parts.append("Warnings:\n\n" + "\n".join(f"- {warning}" for warning in warnings))
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """The table as Markdown."""
    rule = [":---" if index < table.left else "---:" for index in range(len(table.columns))]
    lines = [[_cell(text) for text in line] for line in (table.columns, rule, *table.rows)]
    return f"**{_cell(table.title)}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
