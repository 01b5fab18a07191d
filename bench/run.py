"""A bench run: time every artifact in a process of its own, segment the cases with each, record the drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.bench.drift import case_drift, read_prediction
from edge_latup.bench.isolate import run_worker
from edge_latup.bench.pictures import cut_picture
from edge_latup.bench.records import CaseDrift, DriftRecord, RunRecord, TimingRow
from edge_latup.bench.store import RunStore
from edge_latup.bench.worker import Job
from edge_latup.cases.identity import CaseOrigin, case_digest, origin_of
from edge_latup.cases.layout import CaseFiles
from edge_latup.cases.read import read_case
from edge_latup.errors import CaseError, InputError
from edge_latup.manifest import RuntimeName
from edge_latup.runtimes.base import usable_cores
from edge_latup.spec import ModelSpec
from edge_latup.targets.host import describe_host
from edge_latup.versions import versions_of

PACKAGES: Final = ("edge-latup", "torch", "onnx", "onnxruntime", "openvino", "nncf", "numpy")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row to be: an artifact and the runtime it runs on. `timed_only` leaves its output uncompared."""

    artifact: Artifact
    runtime: RuntimeName
    timed_only: bool = False

    @property
    def name(self) -> str:
        """The artifact's name, by which records are kept."""
        return self.artifact.manifest.name


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is asked to do. The first entry that is not timed_only is the reference unless `reference` names one."""

    entries: tuple[Entry, ...]
    cases: tuple[CaseFiles, ...]
    reference: str
    baseline: str
    threads: int = field(default_factory=usable_cores)
    min_runs: int = 20
    min_seconds: float = 10.0
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Exam:
    files: CaseFiles
    origin: CaseOrigin


def _refuse_bad_plan(plan: Plan) -> None:
    names = [entry.name for entry in plan.entries]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two artifacts are named {', '.join(sorted(doubles))}", "a row is known by its artifact's name: bench them in two runs")
    for role, name in (("reference", plan.reference), ("baseline", plan.baseline)):
        if name not in names:
            raise InputError(f"the {role} {name!r} is not among the artifacts: {', '.join(names)}", f"name one of them with --{role}")
    if any(entry.timed_only for entry in plan.entries if entry.name == plan.reference):
        raise InputError(f"the reference {plan.reference} cannot be timed only", "its output is what the others are compared with")


def _examine_cases(plan: Plan) -> tuple[list[_Exam], list[str]]:
    """Check every case before anything slow starts; returns them with their origin, and notes on those a model was trained on.

    Raises:
        CaseError: a case cannot be read, or was used to calibrate one of the artifacts.
    """
    exams, notes = [], []
    for files in plan.cases:
        digest = case_digest(read_case(files, plan.entries[0].artifact.manifest.spec.modalities))
        for entry in plan.entries:
            manifest = entry.artifact.manifest
            if any(seen.sha256 == digest for seen in manifest.calibration):
                raise CaseError(
                    f"case {files.name} in {files.folder} was used to calibrate {manifest.name}",
                    "evaluate on other cases, or calibrate again without it",
                )
        origin = origin_of(files)
        if any(seen.sha256 == digest for entry in plan.entries for seen in entry.artifact.manifest.trained_on):
            notes.append(f"{files.name} was used to train the network: its Dice is not a test result, its drift is")
        exams.append(_Exam(files=files, origin=origin))
    return exams, notes


def _pictured(exams: Sequence[_Exam], notes: Sequence[str]) -> str | None:
    """The case a report shows: a real one the network was not trained on, else a real one, else the first with a label."""
    trained = {note.split(" ", 1)[0] for note in notes}
    real = [exam for exam in exams if exam.origin != "phantom"]
    ranked = [*(e for e in real if e.files.name not in trained), *real, *(e for e in exams if e.files.label is not None), *exams]
    return ranked[0].files.name if ranked else None


def run_bench(plan: Plan, out: Path, progress: Callable[[str], None]) -> RunStore:
    """Run `plan` and keep every record in `out`.

    Raises:
        InputError: the plan contradicts itself, or `out` already holds a run.
        CaseError: a case cannot be used.
        EdgeLatupError: a worker failed.
    """
    _refuse_bad_plan(plan)
    store = RunStore(out)
    if store.run_path.exists():
        raise InputError(f"{out} already holds a bench run", "choose another --out: records are never mixed")
    exams, notes = _examine_cases(plan)
    out.mkdir(parents=True, exist_ok=True)
    record = RunRecord(
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"), command=plan.command, host=describe_host(), versions=versions_of(*PACKAGES),
        reference=plan.reference, baseline=plan.baseline, artifacts=tuple(entry.name for entry in plan.entries),
        cases=tuple(exam.files.name for exam in exams), timed_only=tuple(entry.name for entry in plan.entries if entry.timed_only),
        pictured_case=_pictured(exams, notes), notes=(*plan.notes, *notes),
    )  # fmt: skip
    for entry in plan.entries:
        progress(f"timing {entry.name} on {entry.runtime}")
        store.write_row(_time(entry, plan, out))
    if exams:
        _record_drift(plan, exams, record, store, progress)
    store.write_run(record)
    return store


def _time(entry: Entry, plan: Plan, out: Path) -> TimingRow:
    path = out / f".{entry.name}.row.json"
    job = Job(
        task="time", artifact=str(entry.artifact.folder), runtime=entry.runtime, threads=plan.threads, min_runs=plan.min_runs,
        min_seconds=plan.min_seconds,
    )  # fmt: skip
    try:
        run_worker(job, path)
        return TimingRow.model_validate_json(path.read_text(encoding="utf-8"))
    finally:
        path.unlink(missing_ok=True)


def _record_drift(plan: Plan, exams: Sequence[_Exam], record: RunRecord, store: RunStore, progress: Callable[[str], None]) -> None:
    judged = [entry for entry in plan.entries if not entry.timed_only]
    for entry in judged:
        progress(f"segmenting {len(exams)} cases with {entry.name}")
        _segment(entry, exams, plan.threads, store.folder / "labels" / entry.name)
    cases: dict[str, list[CaseDrift]] = {entry.name: [] for entry in judged}
    spec = judged[0].artifact.manifest.spec
    for exam in exams:
        progress(f"comparing {exam.files.name}")
        for name, drift in _compare(exam, judged, plan.reference, spec, store, pictured=exam.files.name == record.pictured_case).items():
            cases[name].append(drift)
    reference = next(entry for entry in judged if entry.name == plan.reference)
    for entry in judged:
        if entry is not reference:
            row = store.read_row(entry.name)
            store.write_drift(
                DriftRecord(
                    artifact=entry.name, artifact_sha256=entry.artifact.digest, runtime=entry.runtime, executed_float=row.executed_float,
                    reference=reference.name, reference_sha256=reference.artifact.digest, reference_runtime=reference.runtime,
                    cases=tuple(cases[entry.name]),
                )
            )  # fmt: skip


def _segment(entry: Entry, exams: Sequence[_Exam], threads: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    folders = tuple(str(exam.files.path) for exam in exams)
    run_worker(Job(task="segment", artifact=str(entry.artifact.folder), runtime=entry.runtime, threads=threads, cases=folders), out)


def _compare(
    exam: _Exam, judged: Sequence[Entry], reference: str, spec: ModelSpec, store: RunStore, *, pictured: bool
) -> dict[str, CaseDrift]:  # fmt: skip
    case = read_case(exam.files, spec.modalities)
    predictions = {entry.name: read_prediction(store.folder / "labels" / entry.name / f"{case.name}.nii.gz", case) for entry in judged}
    if pictured:
        store.write_picture(cut_picture(case, spec, predictions))
    return {name: case_drift(case, exam.origin, predictions[reference], predicted) for name, predicted in predictions.items() if name != reference}
