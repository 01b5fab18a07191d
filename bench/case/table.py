"""A comparison's figures as tables: for the terminal, Markdown and JSON, all derived from its records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from edge_latup.bench.case.columns import COLUMNS, GAINS, Line, gains
from edge_latup.bench.case.records import CaseRow
from edge_latup.bench.case.store import LoadedComparison
from edge_latup.bench.disturbance import disturbance
from edge_latup.bench.executed import EXECUTED_NAMES
from edge_latup.bench.table import Table, make_table, markdown_table, values_of

ENOUGH_RUNS = 3
METHOD = (
    "Every row goes from files on disk, already in the system's page cache, to a label map on disk. All rows read and write with "
    "this package's own code and are shown windows normalised as the model spec says; MONAI's rows slide, blend and find the "
    "foreground with MONAI. A row has a process of its own, one after the other; a command has a new process for each run."
)


def tables(run: LoadedComparison, *, full: bool = False) -> list[Table]:
    """All rows, then where each gain comes from; `full` adds the columns a terminal has no room for."""
    record = run.record
    lines = [Line(row=row, run=run) for row in run.rows.values()]
    title = f"{record.case} ({record.origin}), {'x'.join(str(side) for side in record.shape)}: files to label map"
    rows = make_table(title, COLUMNS, lines, full=full)
    if run.full is None:
        return [rows]
    apart = "Where the gain over MONAI on the full volume comes from (gain = fewer voxels x runtime x precision)"
    return [rows, make_table(apart, GAINS, gains(run), full=full)]


def cautions(run: LoadedComparison) -> list[str]:
    """What a reader of the figures must not miss, each text with the rows it holds for; empty where there is nothing."""
    found: dict[str, list[str]] = {}
    for name, row in run.rows.items():
        for text in _of_row(row):
            found.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in found.items()]


def _of_row(row: CaseRow) -> Iterator[str]:
    if (disturbed := disturbance(row)) is not None:
        yield f"{disturbed}: seconds are disturbed"
    if len(row.warm) < ENOUGH_RUNS:
        yield f"{len(row.warm)} warm runs: its seconds are rough"
    if len({run.label_map_sha256 for run in row.runs}) > 1:
        yield "its runs gave different label maps"
    declared = EXECUTED_NAMES.get(row.precision)
    if declared is not None and row.executed_float not in (None, declared):
        yield f"declared {row.precision.upper()}, executed {row.executed_float}"
    if row.precision == "int8" and row.executed_float and not {"i8", "u8"} & set(row.executed_convolutions):
        yield "declared INT8, executed no convolution in i8"


def as_data(run: LoadedComparison) -> dict[str, Any]:
    """The tables as plain values for JSON: unrounded, None where a figure does not exist."""
    record = run.record
    return {
        "schema_version": 1,
        "machine": record.host.summary,
        "versions": record.versions,
        "started": record.started,
        "command": record.command,
        "case": record.case,
        "rows": [values_of(COLUMNS, Line(row=row, run=run)) for row in run.rows.values()],
        "gains": [values_of(GAINS, gain) for gain in gains(run)],
        "warnings": cautions(run),
    }


def to_json(run: LoadedComparison) -> str:
    """`as_data` as indented JSON text."""
    return json.dumps(as_data(run), indent=2) + "\n"


def to_markdown(run: LoadedComparison) -> str:
    """Machine, versions, command, method, tables, what the columns mean, and warnings."""
    record = run.record
    versions = ", ".join(f"{package} {version}" for package, version in record.versions.items())
    head = [f"Machine: {record.host.summary}", f"Versions: {versions}", f"Begun: {record.started}"]
    parts = [*head, *([f"Command: `{record.command}`"] if record.command else []), METHOD]
    for table in tables(run, full=True):
        meaning = (f"- {' '.join(header).strip()}: {about}" for header, about in zip(table.headers, table.about, strict=True))
        parts += [markdown_table(table), "\n".join(meaning)]
    if warnings := cautions(run):
        parts.append("Warnings:\n\n" + "\n".join(f"- {warning}" for warning in warnings))
    return "\n\n".join(parts) + "\n"
