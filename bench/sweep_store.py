"""The folder of a sweep: SWEEP/sweep.json, SWEEP/rows/CELL.json, SWEEP/drift/ARTIFACT.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_latup.bench.records import DriftRecord, TimingRow
from edge_latup.bench.store import file_name
from edge_latup.bench.sweep_records import CellKey, SweepRecord, SweepRow
from edge_latup.errors import SpecError
from edge_latup.records import Record, read_record, write_record
from edge_latup.targets.isa import IsaName


@dataclass(frozen=True)
class SweepStore:
    """Writes and reads the records of one sweep."""

    folder: Path

    @property
    def sweep_path(self) -> Path:
        """Of the SweepRecord."""
        return self.folder / "sweep.json"

    def row_path(self, cell: CellKey) -> Path:
        """Of a cell's row."""
        return self.folder / "rows" / f"{file_name(cell.text)}.json"

    def drift_path(self, artifact: str) -> Path:
        """Of a copied DriftRecord."""
        return self.folder / "drift" / f"{file_name(artifact)}.json"

    def write(self, record: Record, path: Path) -> None:
        """Write one record, and its folder where there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(record, path)

    def read_row(self, cell: CellKey) -> SweepRow | None:
        """The row of a cell, None where it has none yet.

        Raises:
            SpecError: the row is damaged or of another cell.
        """
        path = self.row_path(cell)
        if not path.exists():
            return None
        row = read_record(SweepRow, path)
        if row.cell != cell or (row.status == "measured") != (row.timing is not None):
            raise SpecError(
                f"{path} is not the row of {cell.text}", f"remove it: edge-latup bench --sweep --out {self.folder} makes it anew"
            )
        return row


@dataclass(frozen=True, kw_only=True)
class LoadedSweep:
    """A sweep as it stands: rows by cell, in the order of the record; cells that were not reached have none."""

    folder: Path
    record: SweepRecord
    rows: Mapping[str, SweepRow]
    drift: Mapping[str, DriftRecord]

    @property
    def isas(self) -> tuple[IsaName, ...]:
        """Instruction sets in the order they were asked for."""
        return tuple(dict.fromkeys(cell.isa for cell in self.record.cells))

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Cells without a row."""
        return tuple(cell.text for cell in self.record.cells if cell.text not in self.rows)

    def timings(self, isa: IsaName) -> list[TimingRow]:
        """The measured rows of one instruction set. Rows of two sets are never given together."""
        return [row.timing for row in self.rows.values() if row.timing is not None and row.cell.isa == isa]

    def floats_beside(self, row: TimingRow) -> list[TimingRow]:
        """Float rows of the same instruction set, runtime and number of threads: what a row may be divided by."""
        beside = [one for one in self.timings(row.isa) if (one.runtime, one.threads) == (row.runtime, row.threads)]
        return [one for one in beside if one.precision != "int8"]

    def unmeasured(self) -> list[SweepRow]:
        """Rows that say why there is no timing."""
        return [row for row in self.rows.values() if row.timing is None]


def load_sweep(folder: Path) -> LoadedSweep:
    """Read a sweep, finished or not.

    Raises:
        SpecError: there is none, or a record of it is damaged.
    """
    store = SweepStore(folder)
    if not store.sweep_path.is_file():
        raise SpecError(f"{folder} is not the folder of a sweep: {store.sweep_path} does not exist", "make one: edge-latup bench --sweep")
    record = read_record(SweepRecord, store.sweep_path)
    rows = {cell.text: row for cell in record.cells if (row := store.read_row(cell)) is not None}
    drift = {name: read_record(DriftRecord, path) for name in record.artifacts if (path := store.drift_path(name)).exists()}
    return LoadedSweep(folder=folder, record=record, rows=rows, drift=drift)
