"""A made-up sweep, for tests of fronts, verdicts, bounds and tables. None of its figures was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sample_run import HOST, Plan, drift_record, timing_row

from edge_latup.bench.records import DriftRecord, TimingRow
from edge_latup.bench.sweep_records import CellKey, SweepRecord, SweepRow
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.manifest import RuntimeName
from edge_latup.targets.isa import NATIVE, Dispatch, IsaName

BF16: Final[dict[str, Any]] = {
    "precision": "bf16",
    "executed_float": "bf16",
    "executed_convolutions": {"bf16": 18},
    "model_bytes": 6_200_000,
}
INT8: Final[dict[str, Any]] = {"precision": "int8", "storage": "int8", "executed_convolutions": {"u8": 18}, "model_bytes": 3_250_000}


def row(name: str, median_ms: float, isa: IsaName = NATIVE, **changes: Any) -> TimingRow:
    """A measured row whose samples are all one value, so that ratios are exact."""
    samples = {"samples_ms": (median_ms,) * 20, "first_inference_ms": median_ms, "isa": isa, "emulated": isa != NATIVE}
    return timing_row(name, **(samples | changes))


def refused(name: str, reason: str, isa: IsaName = NATIVE, runtime: RuntimeName = "openvino", threads: int = 2) -> SweepRow:
    """A cell that was not measured."""
    cell = CellKey(artifact=name, runtime=runtime, threads=threads, isa=isa)
    return SweepRow(cell=cell, artifact_sha256=timing_row(name).artifact_sha256, status="refused", reason=reason)


def sweep_of(
    rows: Sequence[TimingRow], drops: Mapping[str, float] | None = None, *, others: Sequence[SweepRow] = (), reference: str | None = "fp32"
) -> LoadedSweep:  # fmt: skip
    """A sweep of these rows. `drops`: about the mean Dice drop by candidate, on eight phantoms and two real cases."""
    measured = [
        SweepRow(cell=_cell(one), artifact_sha256=one.artifact_sha256, status="measured", timing=one, dispatch=_told(one)) for one in rows
    ]
    found = {one.cell.text: one for one in (*measured, *others)}
    record = SweepRecord(
        started="2030-01-02T03:04:05+00:00", command="edge-latup bench --sweep", host=HOST, versions={"openvino": "1.2.3"},
        artifacts={one.cell.artifact: one.artifact_sha256 for one in found.values()}, cells=tuple(one.cell for one in found.values()),
        reference=reference if drops else None,
    )  # fmt: skip
    drift = {name: drift_of(rows, name, drop) for name, drop in (drops or {}).items()}
    return LoadedSweep(folder=Path("sweep"), record=record, rows=found, drift=drift)


def drift_of(rows: Sequence[TimingRow], name: str, drop: float) -> DriftRecord:
    """The drift of a candidate as its first row runs, against the FP32 one."""
    return drift_record(next(one for one in rows if one.artifact == name), timing_row("fp32"), Plan(drops={name: drop}))


def _cell(one: TimingRow) -> CellKey:
    return CellKey(artifact=one.artifact, runtime=one.runtime, threads=one.threads, isa=one.isa)


def _told(one: TimingRow) -> Dispatch | None:
    return Dispatch(limit="Intel AVX2", primitives={"avx2": 20, "any": 9}) if one.runtime == "openvino" else None
