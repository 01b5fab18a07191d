"""The folder of a bench run: where each record lies, and reading them back whole or not at all.

RUN/run.json, RUN/rows/<artifact>.json, RUN/drift/<candidate>.json, RUN/pictures/<case>.npz.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.bench.records import DriftRecord, RunRecord, TimingRow
from edge_latup.errors import InputError, SpecError
from edge_latup.records import RecordT, read_record, replacing, write_record
from edge_latup.spec import MODALITIES, Modality

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]

IMAGE_KEY: Final = "image_"
PREDICTION_KEY: Final = "prediction__"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One axial slice of one case, turned for display: anterior up, the patient's right on the left.

    images: float32 (H, W) in [0, 1] by modality. label: canonical labels uint8 (H, W), None where the case has none.
    predictions: canonical labels uint8 (H, W) by artifact, the reference included.
    """

    case: str
    slice_index: int
    images: Mapping[Modality, Image]
    label: Labels | None
    predictions: Mapping[str, Labels]


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """Every record of a run, read and found to belong together. `rows` has the order of `record.artifacts`."""

    folder: Path
    record: RunRecord
    rows: Mapping[str, TimingRow]
    drift: Mapping[str, DriftRecord]
    """By candidate; empty where the run evaluated no case."""
    picture: Picture | None

    @property
    def reference(self) -> TimingRow:
        """The row that sizes and drift are compared with."""
        return self.rows[self.record.reference]

    @property
    def baseline(self) -> TimingRow:
        """The row whose latency the others are divided by."""
        return self.rows[self.record.baseline]

    @property
    def candidates(self) -> tuple[str, ...]:
        """Every artifact whose output was compared with the reference's."""
        return tuple(name for name in self.record.compared if name != self.record.reference)


@dataclass(frozen=True)
class RunStore:
    """Writes and reads the records of one run."""

    folder: Path

    @property
    def run_path(self) -> Path:
        """Of the RunRecord."""
        return self.folder / "run.json"

    def row_path(self, artifact: str) -> Path:
        """Of an artifact's TimingRow."""
        return self.folder / "rows" / f"{file_name(artifact)}.json"

    def drift_path(self, artifact: str) -> Path:
        """Of a candidate's DriftRecord."""
        return self.folder / "drift" / f"{file_name(artifact)}.json"

    def picture_path(self, case: str) -> Path:
        """Of a case's slices."""
        return self.folder / "pictures" / f"{file_name(case)}.npz"

    def write_run(self, record: RunRecord) -> Path:
        """Write run.json."""
        return _write(record, self.run_path)

    def write_row(self, row: TimingRow) -> Path:
        """Write the row under its artifact's name."""
        return _write(row, self.row_path(row.artifact))

    def write_drift(self, record: DriftRecord) -> Path:
        """Write the record under its candidate's name."""
        return _write(record, self.drift_path(record.artifact))

    def write_picture(self, picture: Picture) -> Path:
        """Write the slices under their case's name: numeric arrays only."""
        path = self.picture_path(picture.case)
        arrays: dict[str, NDArray[Any]] = {f"{IMAGE_KEY}{name}": image for name, image in picture.images.items()}
        arrays |= {f"{PREDICTION_KEY}{name}": labels for name, labels in picture.predictions.items()}
        arrays |= {"slice_index": np.asarray(picture.slice_index)} | ({} if picture.label is None else {"label": picture.label})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, suffix=".npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        return path

    def read_run(self) -> RunRecord:
        """Read run.json.

        Raises:
            SpecError: it is missing or damaged.
        """
        if not self.run_path.is_file():
            raise self._error(f"{self.folder} is not the folder of a bench run: {self.run_path} does not exist")
        return self._read(RunRecord, self.run_path)

    def read_row(self, artifact: str) -> TimingRow:
        """Read an artifact's row.

        Raises:
            SpecError: it is missing, damaged, or of another artifact.
        """
        path = self.row_path(artifact)
        row = self._read(TimingRow, path)
        self._check(row.artifact == artifact, f"{path} is the row of {row.artifact!r}, not of {artifact!r}")
        return row

    def read_drift(self, artifact: str) -> DriftRecord:
        """Read a candidate's drift.

        Raises:
            SpecError: it is missing, damaged, or of another artifact.
        """
        path = self.drift_path(artifact)
        record = self._read(DriftRecord, path)
        self._check(record.artifact == artifact, f"{path} is the drift of {record.artifact!r}, not of {artifact!r}")
        return record

    def read_picture(self, case: str, artifacts: tuple[str, ...]) -> Picture:
        """Read a case's slices.

        Raises:
            SpecError: the file is missing or damaged, lacks one of `artifacts`, or its arrays do not fit together.
        """
        path = self.picture_path(case)
        arrays = self._arrays(path)
        predictions = {name: arrays.get(f"{PREDICTION_KEY}{name}") for name in artifacts}
        missing = [name for name, array in predictions.items() if array is None]
        self._check(not missing, f"{path} has no prediction of {', '.join(missing)}")
        images = {name: arrays[f"{IMAGE_KEY}{name}"] for name in MODALITIES if f"{IMAGE_KEY}{name}" in arrays}
        self._check("slice_index" in arrays and bool(images), f"{path} has no image or no slice_index")
        label = arrays.get("label")
        shown = [*images.values(), *(array for array in (*predictions.values(), label) if array is not None)]
        self._check(len({array.shape for array in shown}) == 1 and shown[0].ndim == 2, f"{path}: its arrays are not slices of one shape")
        return Picture(
            case=case,
            slice_index=int(arrays["slice_index"]),
            images={name: np.asarray(image, np.float32) for name, image in images.items()},
            label=None if label is None else label.astype(np.uint8),
            predictions={name: np.asarray(array, np.uint8) for name, array in predictions.items()},
        )

    def _arrays(self, path: Path) -> dict[str, NDArray[Any]]:
        self._check(path.is_file(), f"{path} does not exist")
        try:
            self._check(zipfile.is_zipfile(path), f"{path} is not an .npz file")
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._error(f"{path} cannot be read: {error}") from error

    def _read(self, kind: type[RecordT], path: Path) -> RecordT:
        try:
            return read_record(kind, path)
        except (SpecError, OSError) as error:
            raise self._error(error.message if isinstance(error, SpecError) else f"{path} cannot be read: {error}") from error

    def _check(self, holds: bool, message: str) -> None:
        if not holds:
            raise self._error(message)

    def _error(self, message: str) -> SpecError:
        return SpecError(message, f"only a complete run counts; make it anew with: edge-latup bench ARTIFACT... --out {self.folder}")


def load_run(folder: Path) -> LoadedRun:
    """Read a run and check that its records belong together.

    Raises:
        SpecError: a record is missing, damaged, or was made of another artifact than its row; the message names the file.
    """
    store = RunStore(folder)
    record = store.read_run()
    for role, name, artifacts in (("reference", record.reference, record.compared), ("baseline", record.baseline, record.artifacts)):
        store._check(name in artifacts, f"{store.run_path}: the {role} {name!r} is not among {', '.join(artifacts)}")
    rows = {name: store.read_row(name) for name in record.artifacts}
    for name, row in rows.items():
        whole = record.turns is None or len(row.samples_ms) == record.turns
        store._check(
            whole, f"{store.row_path(name)} has {len(row.samples_ms)} samples, where {store.run_path} tells of {record.turns} rounds"
        )
    drift = {name: store.read_drift(name) for name in record.compared if name != record.reference} if record.cases else {}
    for name, found in drift.items():
        _check_drift(store, record, rows, found, store.drift_path(name))
    picture = None if record.pictured_case is None else store.read_picture(record.pictured_case, record.compared)
    return LoadedRun(folder=folder, record=record, rows=rows, drift=drift, picture=picture)


def _check_drift(store: RunStore, record: RunRecord, rows: Mapping[str, TimingRow], drift: DriftRecord, path: Path) -> None:
    row, reference = rows[drift.artifact], rows[record.reference]
    same = drift.artifact_sha256 == row.artifact_sha256 and drift.runtime == row.runtime
    store._check(same, f"{path} was made of another {drift.artifact} than {store.row_path(drift.artifact)} (hash or runtime differs)")
    against = (drift.reference, drift.reference_sha256, drift.reference_runtime)
    expected = (record.reference, reference.artifact_sha256, reference.runtime)
    store._check(against == expected, f"{path} compares with another reference than {store.row_path(record.reference)}")
    seen = [case.case for case in drift.cases]
    store._check(sorted(seen) == sorted(record.cases), f"{path} does not hold exactly the cases that {store.run_path} lists")


def _write(record: RunRecord | TimingRow | DriftRecord, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(record, path)
    return path


def file_name(name: str) -> str:
    """`name`, if a file may be called so.

    Raises:
        InputError: it may not.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise InputError(f"{name!r} cannot be the name of a file", "rename the artifact or case: no slash, no leading dot")
    return name
