"""Which rows no other row beats in everything: the Pareto front of latency, memory, size and drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from edge_latup.bench.records import DriftRecord, TimingRow
from edge_latup.bench.summary import ORIGINS, summarise
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.targets.isa import IsaName

Key = TypeVar("Key")
Point = Sequence[float]
OBJECTIVES: Final = ("median latency", "peak memory", "file size", "worst mean Dice drop")
"""Of every row; smaller is better in each."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """The front of the rows of one instruction set.

    rows: those no other row beats. without_drift: rows left out because their drift is not known. objectives: what was compared.
    """

    rows: tuple[TimingRow, ...]
    without_drift: tuple[TimingRow, ...]
    objectives: tuple[str, ...]


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse and somewhere better; smaller is better. Raises ValueError for points of two lengths."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points: Mapping[Key, Point]) -> set[Key]:
    """The keys whose points none other dominates; equal points stand in it together."""
    return {key for key, point in points.items() if not any(dominates(other, point) for other in points.values())}


def worst_drop(record: DriftRecord) -> float | None:
    """Largest mean Dice drop of any region over the labelled cases of any origin; 0 where nothing dropped, None without a label.

    A gain counts as none: on few cases it is chance, and would lift a candidate above its own reference.
    """
    drops = [drop for origin in ORIGINS if (summary := summarise(record, origin)) for drop in summary.dice_drop.values()]
    return max(0.0, *drops) if drops else None


def drift_of(sweep: LoadedSweep, row: TimingRow) -> DriftRecord | None:
    """The drift that was measured with what this row executes: same files, runtime and float precision; threads do not change it."""
    record = sweep.drift.get(row.artifact)
    if record is None or (record.artifact_sha256, record.runtime) != (row.artifact_sha256, row.runtime):
        return None
    return record if record.executed_float == row.executed_float else None


def drop_of(sweep: LoadedSweep, row: TimingRow) -> float | None:
    """`worst_drop` of a row; 0 for the reference, which drift is measured from, and None where it is not known."""
    if row.artifact == sweep.record.reference:
        return 0.0
    record = drift_of(sweep, row)
    return worst_drop(record) if record else None


def front_of(sweep: LoadedSweep, isa: IsaName) -> Front:
    """The front of one instruction set; where no row's drift is known, that of the other three objectives."""
    rows = sweep.timings(isa)
    drops = [drop_of(sweep, row) for row in rows]
    judged = any(drop is not None for drop in drops)
    points = {
        index: (row.p50_ms, row.peak_rss_bytes, row.model_bytes, *((drop,) if drop is not None else ()))
        for index, (row, drop) in enumerate(zip(rows, drops, strict=True))
        if drop is not None or not judged
    }
    best = front(points)
    return Front(
        rows=tuple(row for index, row in enumerate(rows) if index in best),
        without_drift=tuple(row for row, drop in zip(rows, drops, strict=True) if drop is None),
        objectives=OBJECTIVES if judged else OBJECTIVES[:3],
    )
