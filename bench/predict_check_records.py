"""Records of the prediction check: each configuration's prediction beside its measurement, with both kept apart by name."""

from __future__ import annotations

import statistics
from typing import Literal

from pydantic import Field

from edge_latup.bench.published_cases import CHECKED_WITHIN, PublishedCheck
from edge_latup.manifest import Precision
from edge_latup.records import Record
from edge_latup.targets.host import Host
from edge_latup.targets.isa import IsaName

SHARE_WITHIN = 0.8
"""Of the configurations, that must be within `CHECKED_WITHIN`."""


class CheckRow(Record):
    """One configuration: size, precision and instruction set."""

    side: int
    precision: Precision
    isa: IsaName
    emulated: bool
    predicted_bound_ms: float
    predicted_likely_ms: float
    measured_ms: float
    """Median of the bench row's samples."""
    measured_min_ms: float
    runs: int
    predicted_peak_bytes: int
    measured_peak_bytes: int
    load_average: float

    @property
    def ratio(self) -> float:
        """Likely over measured."""
        return self.predicted_likely_ms / self.measured_ms

    @property
    def within(self) -> bool:
        """Whether the likely value is near enough."""
        return abs(self.ratio - 1) <= CHECKED_WITHIN

    @property
    def bound_holds(self) -> bool:
        """Whether even the fastest run took longer than the bound."""
        return self.predicted_bound_ms <= self.measured_min_ms

    @property
    def memory_ratio(self) -> float:
        """Predicted over measured peak memory."""
        return self.predicted_peak_bytes / self.measured_peak_bytes


class CheckRecord(Record):
    """check.json: everything the table says."""

    schema_version: Literal[1] = 1
    label: Literal["predicted beside measured"] = "predicted beside measured"
    command: str
    started: str
    host: Host
    versions: dict[str, str]
    threads: int
    rows: tuple[CheckRow, ...] = Field(min_length=1)
    missing: tuple[str, ...] = ()
    """Configurations without a measurement, and why."""
    published: tuple[PublishedCheck, ...] = ()

    @property
    def within(self) -> int:
        """Configurations whose likely value is near enough."""
        return sum(row.within for row in self.rows)

    @property
    def bounds_hold(self) -> bool:
        """Whether no bound is above its measurement."""
        return all(row.bound_holds for row in self.rows)

    @property
    def passed(self) -> bool:
        """The two promises of docs/prediction.md."""
        return self.bounds_hold and self.within >= SHARE_WITHIN * len(self.rows)

    @property
    def mean_error(self) -> float:
        """Mean of |ratio - 1|."""
        return statistics.fmean(abs(row.ratio - 1) for row in self.rows)

    @property
    def worst(self) -> CheckRow:
        """The configuration whose ratio is farthest from 1."""
        return max(self.rows, key=lambda row: abs(row.ratio - 1))
