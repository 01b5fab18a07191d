"""Run a comparison: every row in processes of its own, one after the other, then the agreement of their label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_latup.bench.case.plan import FOREGROUND, FULL, CasePlan, has_command, jobs, refuse_bad_plan
from edge_latup.bench.case.processes import run_case, run_command
from edge_latup.bench.case.records import Agreement, CaseRow, ComparisonRecord
from edge_latup.bench.case.store import LoadedComparison, comparison_path, label_map_path, load_comparison, write_row
from edge_latup.bench.case.worker import PACKAGES
from edge_latup.bench.drift import read_prediction
from edge_latup.cases.identity import case_digest, origin_of
from edge_latup.cases.read import Case, read_case
from edge_latup.errors import CaseError
from edge_latup.metrics.overlap import dice_by_region
from edge_latup.records import write_record
from edge_latup.segmentation.case import input_records
from edge_latup.spec import Region
from edge_latup.targets.host import describe_host
from edge_latup.versions import versions_of

Labels = NDArray[np.uint8]


def compare(plan: CasePlan, out: Path, progress: Callable[[str], None]) -> LoadedComparison:
    """Run `plan` and keep every record and label map in `out`; comparison.json is written last.

    Raises:
        InputError: the plan contradicts itself, or `out` already holds a comparison.
        CaseError: the case cannot be read, or calibrated one of the artifacts.
        MissingDependencyError: MONAI or a runtime is not installed.
        EdgeLatupError: a worker failed.
    """
    refuse_bad_plan(plan, out)
    case = _examine(plan)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    label_map_path(out, FULL).parent.mkdir(parents=True, exist_ok=True)
    rows = _run_rows(plan, out, progress)
    progress("comparing label maps")
    labels = {name: read_prediction(label_map_path(out, name), case) for name in rows}
    x, y, z = case.grid.shape
    record = ComparisonRecord(
        started=started, command=plan.command, host=describe_host(), versions=versions_of(*PACKAGES), case=case.name,
        origin=origin_of(plan.files), shape=(x, y, z), inputs=input_records(plan.files, plan.reference.manifest.spec), rows=tuple(rows),
        full=FULL if FULL in rows else None, foreground=FOREGROUND if FOREGROUND in rows else None,
        agreements=tuple(_agreements(plan, rows, labels)),
        accuracy=_accuracy(case, labels, plan.reference.manifest.spec.found_regions),
    )  # fmt: skip
    write_record(record, comparison_path(out))
    return load_comparison(out)


def _examine(plan: CasePlan) -> Case:
    """Read the case once before anything runs; a case that calibrated an artifact would flatter it."""
    case = read_case(plan.files, plan.reference.manifest.spec.modalities)
    digest = case_digest(case)
    for entry in plan.entries:
        if any(seen.sha256 == digest for seen in entry.artifact.manifest.calibration):
            raise CaseError(f"case {case.name} was used to calibrate {entry.name}", "compare on another case, or calibrate without it")
    return case


def _run_rows(plan: CasePlan, out: Path, progress: Callable[[str], None]) -> dict[str, CaseRow]:
    rows: dict[str, CaseRow] = {}

    def keep(row: CaseRow) -> None:
        write_row(row, out)
        rows[row.name] = row
        progress(f"{row.name}: first run {row.runs[0].total:.2f} s, then {len(row.warm)} of about {row.p50_s:.2f} s")

    for job in jobs(plan, out):
        progress(f"{job.name} on {job.runtime}")
        keep(run_case(job))
        if has_command(job, plan.entries):
            keep(run_command(job, rows[job.name]))
    return rows


def _compared_with(plan: CasePlan, row: CaseRow) -> str | None:
    """The row whose label map this one's should be: FP32 of the same policy; FP32 on all windows has MONAI's."""
    own = f"{plan.fp32.name}-{row.policy}"
    if row.engine == "monai":
        return FULL if row.name != FULL else None
    if row.name != own:
        return own
    return FULL if row.policy == "sliding-window" and plan.monai_runs else None


def _agreements(plan: CasePlan, rows: Mapping[str, CaseRow], labels: Mapping[str, Labels]) -> list[Agreement]:
    found = []
    for name, row in rows.items():
        against = _compared_with(plan, row)
        if against is not None:
            digests = (row.runs[-1].label_map_sha256, rows[against].runs[-1].label_map_sha256)
            same = bool(np.array_equal(labels[name], labels[against]))
            dice = dice_by_region(labels[name], labels[against], plan.reference.manifest.spec.found_regions)
            found.append(Agreement(row=name, against=against, label_maps=digests, dice=dice, identical=same))
    return found


def _accuracy(case: Case, labels: Mapping[str, Labels], regions: Sequence[Region]) -> dict[str, dict[Region, float]]:
    return {} if case.label is None else {name: dice_by_region(found, case.label, regions) for name, found in labels.items()}
