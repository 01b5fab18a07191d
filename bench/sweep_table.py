"""A sweep as tables: one for each instruction set, so that emulated rows never stand beside native ones."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

from edge_latup.bench.columns import Column, Value
from edge_latup.bench.judging import count
from edge_latup.bench.pareto import OBJECTIVES, drop_of, front_of
from edge_latup.bench.records import TimingRow
from edge_latup.bench.summary import executed
from edge_latup.bench.sweep_records import SweepRow
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.bench.sweep_verdict import SweepVerdict, sweep_verdicts
from edge_latup.bench.table import Table, make_table, markdown_table, values_of
from edge_latup.targets.isa import IsaName, title


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a line of a sweep's table is read from. `best_float`: fastest float row of its instruction set, runtime and threads."""

    row: TimingRow
    dispatched: dict[str, int]
    best_float: TimingRow | None
    drop: float | None
    in_front: bool


def _kernel_sets(line: Line) -> Value:
    """The instruction sets that oneDNN's primitives were made for."""
    named = [f"{name} x {number}" for name, number in sorted(line.dispatched.items(), reverse=True) if name != "any"]
    return ", ".join(named) or None


SWEEP: Final[tuple[Column[Line], ...]] = (
    Column(name="artifact", header="artifact", about="Name of the model that was timed.", value=lambda line: line.row.artifact),
    Column(name="runtime", header="runtime", about="Software that executed it.", value=lambda line: line.row.runtime),
    Column(name="isa", header="ISA", about="Instruction set the kernels were held to.", full=True, value=lambda line: title(line.row.isa)),
    Column(name="executed", header="executed", about="Precision read back from the runtime.", value=lambda line: executed(line.row)),
    Column(
        name="kernels",
        header="oneDNN primitives",
        about="Instruction sets that oneDNN's primitives were made for, as it tells.",
        full=True,
        value=_kernel_sets,
    ),
    Column(
        name="front", header="front", about="Whether no other row beats it in everything.",
        value=lambda line: "*" if line.in_front else "",
    ),
    Column(name="threads", header="threads", about="CPU threads.", value=lambda line: line.row.threads, spec="d"),
    Column(name="min_ms", header="min", unit="ms", about="Shortest latency of one input.", value=lambda line: line.row.min_ms, spec=",.1f"),
    Column(name="p50_ms", header="p50", unit="ms", about="Median latency.", value=lambda line: line.row.p50_ms, spec=",.1f"),
    Column(name="p90_ms", header="p90", unit="ms", about="90th percentile of latency.", value=lambda line: line.row.p90_ms, spec=",.1f"),
    Column(name="n", header="n", about="Latency samples, after the warm-up.", value=lambda line: len(line.row.samples_ms), spec="d"),
    Column(
        name="over_float",
        header="over float",
        about="Median of the fastest float row of the same instruction set, runtime and threads, divided by this one's.",
        value=lambda line: line.best_float.p50_ms / line.row.p50_ms if line.best_float else None,
        spec=",.2f",
    ),
    Column(
        name="peak_rss_mib", header="peak RSS", unit="MiB", about="Peak resident memory of the process.",
        value=lambda line: line.row.peak_rss_bytes / 2**20, spec=",.0f",
    ),
    Column(
        name="file_mb", header="file", unit="MB", about="Size of the model files.",
        value=lambda line: line.row.model_bytes / 1e6, spec=",.2f",
    ),
    Column(
        name="worst_drop", header="Dice drop", unit="worst mean", value=lambda line: line.drop, spec=".4f",
        about="Largest mean Dice drop of any region and origin of cases, measured with this host's own kernels; a dash where unknown.",
    ),
)  # fmt: skip


def lines(sweep: LoadedSweep, isa: IsaName) -> list[Line]:
    """The measured rows of one instruction set, in the order of the sweep."""
    return list(_lines(sweep, isa))


def _lines(sweep: LoadedSweep, isa: IsaName) -> Iterator[Line]:
    best = front_of(sweep, isa).rows
    for found in sweep.rows.values():
        if (row := found.timing) is not None and row.isa == isa:
            yield Line(
                row=row,
                dispatched=found.dispatch.primitives if found.dispatch else {},
                best_float=min(sweep.floats_beside(row), key=lambda one: one.p50_ms, default=None),
                drop=drop_of(sweep, row),
                in_front=row in best,
            )


def sweep_tables(sweep: LoadedSweep, *, full: bool = False) -> list[Table]:
    """One table for each instruction set that has a measured row."""
    found = {isa: lines(sweep, isa) for isa in sweep.isas}
    return [make_table(_title(sweep, isa), SWEEP, list(rows), full=full) for isa, rows in found.items() if rows]


def _title(sweep: LoadedSweep, isa: IsaName) -> str:
    front, name = front_of(sweep, isa), title(isa)
    lacking = len(front.without_drift) if len(front.objectives) == len(OBJECTIVES) else 0
    without = f"; {count(lacking, ('row', 'rows'))} without known drift left out" if lacking else ""
    return f"{name[0].upper()}{name[1:]} (front: {', '.join(front.objectives)}{without})"


def unmeasured(sweep: LoadedSweep) -> list[str]:
    """Why cells have no timing: one line for each artifact, runtime and reason."""
    groups: dict[tuple[str, str, str, str], list[SweepRow]] = {}
    for row in sweep.unmeasured():
        groups.setdefault((row.cell.artifact, row.cell.runtime, row.status, row.reason), []).append(row)
    return [f"{artifact} on {runtime} ({_where(rows)}) {status}: {reason}" for (artifact, runtime, status, reason), rows in groups.items()]


def _where(rows: list[SweepRow]) -> str:
    threads = ", ".join(map(str, dict.fromkeys(row.cell.threads for row in rows)))
    return f"{', '.join(dict.fromkeys(title(row.cell.isa) for row in rows))}; threads {threads}"


def verdict_lines(verdict: SweepVerdict) -> list[str]:
    """A verdict as it is read."""
    refused = [f"Not {name}: {reason}." for name, reason in verdict.refused.items()]
    return [verdict.headline, verdict.int8, *verdict.reasons, *refused, *verdict.caveats]


def to_markdown(sweep: LoadedSweep) -> str:
    """Machine, verdicts, tables, and what was not measured."""
    parts = [f"Machine: {sweep.record.host.summary}"]
    for verdict in sweep_verdicts(sweep):
        parts.append(f"## {title(verdict.isa)}\n\n" + "\n".join(f"- {line}" for line in verdict_lines(verdict)))
    parts += [markdown_table(table) for table in sweep_tables(sweep, full=True)]
    if missing := unmeasured(sweep):
        parts.append("Not measured:\n\n" + "\n".join(f"- {line}" for line in missing))
    return "\n\n".join(parts) + "\n"


def to_csv(sweep: LoadedSweep) -> str:
    """One line for each measured row; the ISA column tells emulated ones."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in SWEEP])
    for isa in sweep.isas:
        for line in lines(sweep, isa):
            writer.writerow(values_of(SWEEP, line).values())
    return text.getvalue()


def as_data(sweep: LoadedSweep) -> dict[str, Any]:
    """Everything as plain values for JSON."""
    return {
        "schema_version": 1,
        "machine": sweep.record.host.summary,
        "started": sweep.record.started,
        "reference": sweep.record.reference,
        "isas": {isa: [values_of(SWEEP, line) for line in lines(sweep, isa)] for isa in sweep.isas},
        "verdicts": [_verdict_data(verdict) for verdict in sweep_verdicts(sweep)],
        "unmeasured": unmeasured(sweep),
        "unfinished": list(sweep.unfinished),
    }


def _verdict_data(verdict: SweepVerdict) -> dict[str, Any]:
    use = verdict.use
    named = None if use is None else {"artifact": use.artifact, "runtime": use.runtime, "threads": use.threads}
    return {field.name: getattr(verdict, field.name) for field in fields(verdict)} | {"use": named}


def to_json(sweep: LoadedSweep) -> str:
    """`as_data` as indented JSON text."""
    return json.dumps(as_data(sweep), indent=2) + "\n"
