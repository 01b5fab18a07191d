"""What sensors told while rows were timed, as a table: power, energy, temperature, clocks."""

from __future__ import annotations

from typing import Final

from edge_latup.bench.columns import Column
from edge_latup.bench.records import TimingRow
from edge_latup.bench.store import LoadedRun
from edge_latup.bench.table import Table, make_table
from edge_latup.targets.telemetry import Telemetry


def _of(row: TimingRow, name: str) -> float | None:
    value: float | None = None if row.telemetry is None else getattr(row.telemetry, name)
    return value


def _hottest(row: TimingRow) -> float | None:
    return max(row.telemetry.temperatures_c.values(), default=None) if row.telemetry else None


def _state(row: TimingRow) -> str | None:
    """Power mode, clocks and throttling, as far as they were told."""
    told = row.telemetry or Telemetry(sources=(), seconds=0, samples=0)
    pinned = {True: "clocks pinned", False: "clocks free", None: None}[told.clocks_pinned]
    return ", ".join(part for part in (told.power_mode, pinned, *told.throttle_reasons) if part) or None


SENSORS: Final[tuple[Column[TimingRow], ...]] = (
    Column(
        name="mean_watts",
        header="power",
        unit="W",
        about="Mean power between the first and the last timed run, of what the last column names.",
        value=lambda row: _of(row, "mean_watts"),
        spec=",.2f",
    ),
    Column(
        name="joules_per_inference",
        header="energy",
        unit="J",
        about="That power times the median latency.",
        value=lambda row: _of(row, "joules_per_inference"),
        spec=",.2f",
    ),
    Column(
        name="gpu_load_percent",
        header="GPU",
        unit="%",
        about="Mean load of the GPU.",
        value=lambda row: _of(row, "gpu_load_percent"),
        spec=",.0f",
    ),
    Column(name="hottest_c", header="hottest", unit="C", about="Highest temperature of any sensor.", value=_hottest, spec=",.0f"),
    Column(name="state", header="state", about="Power mode, clocks, reasons of throttling.", value=_state),
    Column(
        name="power_source",
        header="measured by",
        about="What the power was read from.",
        value=lambda row: row.telemetry.power_source if row.telemetry else None,
    ),
)


def sensor_table(run: LoadedRun) -> Table | None:
    """A line for each row of a run; None where no sensor told anything."""
    if all(row.telemetry is None for row in run.rows.values()):
        return None
    named: Column[TimingRow] = Column(name="artifact", header="artifact", about="Model.", value=lambda row: row.artifact)
    return make_table("Sensors, of the whole machine", (named, *SENSORS), list(run.rows.values()), full=False)
