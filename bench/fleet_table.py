"""The figures of a fleet as one table with a host column, in every form."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from edge_latup.bench.cautions import cautions
from edge_latup.bench.columns import TIMING, Column, Timed
from edge_latup.bench.fleet import LoadedFleet
from edge_latup.bench.records import TimingRow
from edge_latup.bench.sensor_table import SENSORS
from edge_latup.bench.table import Table, make_table, markdown_table, values_of


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What a line of the merged table is read from."""

    host: str
    timed: Timed


def _of_timing(column: Column[Timed]) -> Column[Placed]:
    return Column(
        name=column.name, header=column.header, unit=column.unit, about=column.about, value=lambda line: column.value(line.timed),
        spec=column.spec, full=column.full,
    )  # fmt: skip


def _of_sensors(column: Column[TimingRow]) -> Column[Placed]:
    return Column(
        name=column.name, header=column.header, unit=column.unit, about=column.about, value=lambda line: column.value(line.timed.row),
        spec=column.spec, full=column.full,
    )  # fmt: skip


HOST: Final[Column[Placed]] = Column(name="host", header="host", about="Machine, by its name in the fleet.", value=lambda line: line.host)
COLUMNS: Final = (HOST, *(_of_timing(column) for column in TIMING), *(_of_sensors(column) for column in SENSORS))


def lines(made: LoadedFleet) -> Iterator[Placed]:
    """Every row of every host that did not fail, host by host."""
    for name, run in made.runs.items():
        for row in run.rows.values():
            yield Placed(host=name, timed=Timed(row=row, run=run))


def tables(made: LoadedFleet, *, full: bool = False) -> list[Table]:
    """The merged table; speed-ups are against each host's own baseline."""
    return [
        make_table(
            "Speed, memory, size and energy by host (speed-up against the same host's baseline)", COLUMNS, list(lines(made)), full=full
        )
    ]


def machines(made: LoadedFleet) -> list[str]:
    """What each host is."""
    return [f"{name}: {run.record.host.summary}" for name, run in made.runs.items()]


def failures(made: LoadedFleet) -> list[str]:
    """Hosts without rows, and why."""
    return [f"{host.name}: {host.error}" for host in made.record.hosts if host.error is not None]


def warnings(made: LoadedFleet) -> list[str]:
    """Failed hosts, then what every run warns of."""
    return [*failures(made), *(f"{name}: {text}" for name, run in made.runs.items() for text in cautions(run))]


def as_data(made: LoadedFleet) -> dict[str, Any]:
    """Plain values for JSON: unrounded, None where a figure does not exist."""
    return {
        "schema_version": 1,
        "started": made.record.started,
        "machines": {name: run.record.host.summary for name, run in made.runs.items()},
        "rows": [values_of(COLUMNS, line) for line in lines(made)],
        "failed": {host.name: host.error for host in made.record.hosts if host.error is not None},
        "warnings": warnings(made),
    }


def to_json(made: LoadedFleet) -> str:
    """`as_data` as indented JSON text."""
    return json.dumps(as_data(made), indent=2) + "\n"


def to_csv(made: LoadedFleet) -> str:
    """One line a row; empty where a figure does not exist."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    writer.writerows(list(values_of(COLUMNS, line).values()) for line in lines(made))
    return text.getvalue()


def to_markdown(made: LoadedFleet) -> str:
    """Machines, the table, failures and warnings."""
    told = [f"- {line}" for line in machines(made)]
    parts = ["Machines:\n\n" + "\n".join(told), *(markdown_table(table) for table in tables(made, full=True))]
    if found := warnings(made):
        parts.append("Warnings:\n\n" + "\n".join(f"- {line}" for line in found))
    return "\n\n".join(parts) + "\n"
