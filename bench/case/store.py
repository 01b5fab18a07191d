"""The folder of a comparison: where each record lies, and reading them back whole or not at all.

OUT/comparison.json, OUT/rows/<row>.json, OUT/labels/<row>.nii.gz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_latup.bench.case.records import Agreement, CaseRow, ComparisonRecord
from edge_latup.bench.store import file_name
from edge_latup.errors import SpecError
from edge_latup.records import RecordT, read_record, write_record

COMPARISON_NAME: Final = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class LoadedComparison:
    """Every record of a comparison, read and found to belong together. `rows` has the order of `record.rows`."""

    folder: Path
    record: ComparisonRecord
    rows: Mapping[str, CaseRow]

    @property
    def full(self) -> CaseRow | None:
        """MONAI on the full volume, unless it was left out."""
        return None if self.record.full is None else self.rows[self.record.full]

    @property
    def foreground(self) -> CaseRow | None:
        """MONAI on the foreground, unless it was left out."""
        return None if self.record.foreground is None else self.rows[self.record.foreground]

    def agreement(self, row: str) -> Agreement | None:
        """Of a row's label map with that of the row it is compared with; None where it is compared with none."""
        return next((found for found in self.record.agreements if found.row == row), None)


def comparison_path(folder: Path) -> Path:
    """Of the ComparisonRecord."""
    return folder / COMPARISON_NAME


def row_path(folder: Path, row: str) -> Path:
    """Of a CaseRow."""
    return folder / "rows" / f"{file_name(row)}.json"


def label_map_path(folder: Path, row: str) -> Path:
    """Of the label map a row wrote."""
    return folder / "labels" / f"{file_name(row)}.nii.gz"


def write_row(row: CaseRow, folder: Path) -> None:
    """Write a row under its name."""
    path = row_path(folder, row.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(row, path)


def load_comparison(folder: Path) -> LoadedComparison:
    """Read a comparison and check that its records belong together.

    Raises:
        SpecError: a record is missing, damaged, of another row, or compares another label map; the message names the file.
    """
    path = comparison_path(folder)
    if not path.is_file():
        raise _error(folder, f"{folder} is not the folder of a comparison: {path} does not exist")
    record = _read(ComparisonRecord, path, folder)
    rows = {name: _read(CaseRow, row_path(folder, name), folder) for name in record.rows}
    for name, row in rows.items():
        if row.name != name:
            raise _error(folder, f"{row_path(folder, name)} is the row of {row.name!r}, not of {name!r}")
    monai = [name for name in (record.full, record.foreground) if name is not None]
    named = [*monai, *(name for found in record.agreements for name in (found.row, found.against))]
    if missing := [name for name in named if name not in rows]:
        raise _error(folder, f"{path} names {missing[0]!r}, which is not among its rows")
    for found in record.agreements:
        if found.label_maps != tuple(rows[name].runs[-1].label_map_sha256 for name in (found.row, found.against)):
            raise _error(folder, f"{path} compares another label map than {row_path(folder, found.row)} tells of")
    return LoadedComparison(folder=folder, record=record, rows=rows)


def _read(kind: type[RecordT], path: Path, folder: Path) -> RecordT:
    try:
        return read_record(kind, path)
    except (SpecError, OSError) as error:
        raise _error(folder, error.message if isinstance(error, SpecError) else f"{path} cannot be read: {error}") from error


def _error(folder: Path, message: str) -> SpecError:
    return SpecError(message, f"a table is made only from complete records; make them anew: edge-latup bench-case ... --out {folder}")
