"""A made-up bench run on disk, for tests of tables and reports. None of its figures was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_latup.bench.records import CaseDrift, DriftRecord, RegionDrift, RunRecord, TimingRow
from edge_latup.bench.store import LoadedRun, Picture, RunStore, load_run
from edge_latup.cases.identity import CaseOrigin
from edge_latup.spec import REGIONS
from edge_latup.targets.host import Host

HOST: Final = Host(
    cpu="Test Processor 9000",
    architecture="x86_64",
    cores=2,
    isa=("AVX2", "AVX-512-VNNI", "AMX-INT8"),
    memory_bytes=16 * 2**30,
    system="Linux 6.1",
    python="3.11.9",
    governor="unknown",
)
REFERENCE: Final = "pytorch-fp32"
REAL, PSEUDO = "BraTS-GLI-00000-000", "BraTS-GLI-00001-000"
ORIGINS: Final[dict[str, CaseOrigin]] = {f"phantom-{index:04d}": "phantom" for index in range(8)} | {
    REAL: "real",
    PSEUDO: "real, pseudo-label",
}
NO_INT8: Final = {"f32": 18}
ROWS: Final[dict[str, dict[str, Any]]] = {
    REFERENCE: {"runtime": "pytorch", "format": "checkpoint", "median_ms": 12900.0, "executed_convolutions": NO_INT8, "peak_mib": 2500},
    "openvino-fp32": {"median_ms": 5300.0, "executed_convolutions": NO_INT8, "peak_mib": 1270},
    "openvino-bf16": {
        "median_ms": 900.0, "precision": "bf16", "executed_float": "bf16", "executed_convolutions": {"bf16": 18}, "peak_mib": 760,
    },
    "openvino-int8": {
        "median_ms": 530.0, "precision": "int8", "storage": "int8", "executed_convolutions": {"i8": 18}, "peak_mib": 630,
        "model_bytes": 3_250_000,
    },
    "onnx-dynamic-range": {
        "median_ms": 5350.0, "format": "onnx", "storage": "int8", "executed_convolutions": NO_INT8, "peak_mib": 1275,
        "model_bytes": 3_190_000,
    },
}  # fmt: skip
DROPS: Final = {"openvino-fp32": 0.0, "openvino-bf16": 0.0004, "openvino-int8": 0.0016, "onnx-dynamic-range": 0.0002}
"""About the mean Dice drop of each candidate."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to write: fields of rows, mean drops, cases; every part can be changed by a test."""

    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: ROWS)
    drops: Mapping[str, float] = field(default_factory=lambda: DROPS)
    origins: Mapping[str, CaseOrigin] = field(default_factory=lambda: ORIGINS)
    labelled: bool = True
    run: Mapping[str, Any] = field(default_factory=dict)

    def changed(self, artifact: str, **fields: Any) -> Plan:
        """The same plan with other fields in one row."""
        rows = {name: dict(row) | (fields if name == artifact else {}) for name, row in self.rows.items()}
        return Plan(rows=rows, drops=self.drops, origins=self.origins, labelled=self.labelled, run=self.run)


def write_run(folder: Path, plan: Plan | None = None) -> Path:
    """Write a complete run and return its folder."""
    plan = plan or Plan()
    store = RunStore(folder)
    record = run_record(plan)
    store.write_run(record)
    rows = {name: timing_row(name, seed, **plan.rows[name]) for seed, name in enumerate(plan.rows)}
    for row in rows.values():
        store.write_row(row)
    for seed, name in enumerate(name for name in record.compared if name != record.reference and plan.origins):
        store.write_drift(drift_record(rows[name], rows[record.reference], plan, seed))
    if record.pictured_case:
        store.write_picture(picture(record.pictured_case, record.compared))
    return folder


def sample(folder: Path, plan: Plan | None = None) -> LoadedRun:
    """Write a run and read it back."""
    return load_run(write_run(folder, plan))


def run_record(plan: Plan) -> RunRecord:
    """The run's own record."""
    fields: dict[str, Any] = {
        "started": "2030-01-02T03:04:05+00:00",
        "command": "edge-latup bench A B C --out RUN",
        "host": HOST,
        "versions": {"openvino": "1.2.3", "torch": "4.5.6"},
        "reference": REFERENCE,
        "baseline": REFERENCE,
        "artifacts": tuple(plan.rows),
        "cases": tuple(plan.origins),
        "pictured_case": REAL if REAL in plan.origins else None,
        "notes": ("Made-up test data: nothing in this report was measured.",),
    }
    return RunRecord(**(fields | plan.run))


def timing_row(name: str, seed: int = 0, *, median_ms: float = 1000.0, peak_mib: float = 1000.0, **changes: Any) -> TimingRow:
    """A row with a little spread around the median."""
    rng = np.random.default_rng(seed)
    fields: dict[str, Any] = {
        "artifact": name,
        "artifact_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "format": "openvino-ir",
        "runtime": "openvino",
        "runtime_version": "1.2.3",
        "precision": "fp32",
        "storage": "float32",
        "executed_float": "f32",
        "executed_kernels": {"f32": 90},
        "executed_convolutions": {"f32": 18},
        "input_shape": (1, 3, 128, 128, 128),
        "threads": 2,
        "warm_up_runs": 3,
        "samples_ms": tuple(float(value) for value in median_ms * (1 + 0.02 * rng.gamma(2, 1, 24) - 0.03)),
        "load_ms": 420.0,
        "first_inference_ms": 1.3 * median_ms,
        "peak_rss_bytes": int(peak_mib * 2**20),
        "rss_delta_bytes": int((peak_mib - 180) * 2**20),
        "model_bytes": 12_410_000,
        "load_average": 0.4,
        "started": "2030-01-02T03:04:06+00:00",
        "host": HOST,
    }
    return TimingRow(**(fields | changes))


def drift_record(row: TimingRow, reference: TimingRow, plan: Plan, seed: int = 0) -> DriftRecord:
    """A candidate's drift around its planned mean."""
    rng = np.random.default_rng(100 + seed)
    mean = plan.drops.get(row.artifact, 0.0)
    return DriftRecord(
        artifact=row.artifact,
        artifact_sha256=row.artifact_sha256,
        runtime=row.runtime,
        executed_float=row.executed_float,
        reference=reference.artifact,
        reference_sha256=reference.artifact_sha256,
        reference_runtime=reference.runtime,
        cases=tuple(_case(case, origin, mean, plan.labelled, rng) for case, origin in plan.origins.items()),
    )


def _case(case: str, origin: CaseOrigin, mean: float, labelled: bool, rng: np.random.Generator) -> CaseDrift:
    drops = {region: mean * (0.5 + rng.random()) for region in REGIONS}
    return CaseDrift(case=case, origin=origin, regions={region: region_drift(drop, labelled=labelled) for region, drop in drops.items()})


def region_drift(drop: float, *, labelled: bool = True, **changes: Any) -> RegionDrift:
    """A region whose Dice falls from 0.9 by `drop`."""
    fields: dict[str, Any] = {
        "dice_reference": 0.9 if labelled else None,
        "dice_candidate": 0.9 - drop if labelled else None,
        "agreement": 1 - abs(drop),
        "iou_reference": 0.82 if labelled else None,
        "iou_candidate": 0.82 - 1.2 * drop if labelled else None,
        "hd95_reference_mm": 3.0 if labelled else None,
        "hd95_candidate_mm": 3.0 + 40 * drop if labelled else None,
        "volume_reference_ml": 40.0,
        "volume_candidate_ml": 40.0 - 200 * drop,
    }
    return RegionDrift(**(fields | changes))


def picture(case: str, artifacts: Sequence[str], size: int = 160) -> Picture:
    """A head-like disc with a tumour of three rings; each artifact's outline is shifted a little more."""
    grid = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    head = np.hypot(grid[0] / 1.1, grid[1]) < 0.4
    texture = np.random.default_rng(7).normal(0, 0.04, (size, size)).astype(np.float32)
    image = np.where(head, np.clip(0.45 + 0.2 * np.sin(25 * grid[0]) * np.cos(19 * grid[1]) + texture, 0.05, 1), 0).astype(np.float32)
    return Picture(
        case=case,
        slice_index=77,
        images={"flair": image, "t1ce": (image * 0.8).astype(np.float32), "t2": (image**2).astype(np.float32)},
        label=_rings(grid, 0.0),
        predictions={name: _rings(grid, 0.004 * (index + 1)) for index, name in enumerate(artifacts)},
    )


def _rings(grid: np.ndarray, shift: float) -> np.ndarray:
    radius = np.hypot(grid[0] + 0.05 + shift, grid[1] - 0.12)
    return np.select([radius < 0.03, radius < 0.06, radius < 0.11 + shift], [1, 3, 2], 0).astype(np.uint8)
