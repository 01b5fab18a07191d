"""A bench run: time every artifact in a process of its own, segment the cases with each, record the drift."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from edge_latup.artifact import Artifact
from edge_latup.bench.drift import case_drifts, read_prediction
from edge_latup.bench.isolate import run_worker
from edge_latup.bench.pictures import cut_picture
from edge_latup.bench.records import CaseDrift, DriftRecord, RunRecord, TimingRow
from edge_latup.bench.store import RunStore
from edge_latup.bench.sweep_store import SweepStore
from edge_latup.bench.turns import run_in_turns
from edge_latup.bench.worker import SESSION_NAME, Job, SegmentSession
from edge_latup.cases.identity import CaseOrigin, case_digest, origin_of
from edge_latup.cases.layout import CaseFiles
from edge_latup.cases.read import read_case
from edge_latup.errors import CaseError, InputError
from edge_latup.manifest import RuntimeName
from edge_latup.records import read_record
from edge_latup.runtimes import choose_runtime
from edge_latup.runtimes.base import usable_cores
from edge_latup.segmentation.parity import parity_input
from edge_latup.spec import ModelSpec
from edge_latup.targets.host import Host, describe_host
from edge_latup.versions import versions_of

PACKAGES: Final = ("edge-latup", "torch", "onnx", "onnxruntime", "openvino", "nncf", "numpy")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row to be: an artifact and the runtime it runs on. `timed_only` leaves its output uncompared."""

    artifact: Artifact
    runtime: RuntimeName
    timed_only: bool = False
    named: bool = False
    """Whether the runtime was asked for; otherwise another host takes the one that suits its processor."""

    @property
    def name(self) -> str:
        """The artifact's name, by which records are kept."""
        return self.artifact.manifest.name


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is asked to do; `reference` and `baseline` are artifacts' names."""

    entries: tuple[Entry, ...]
    cases: tuple[CaseFiles, ...]
    reference: str
    baseline: str
    threads: int = field(default_factory=usable_cores)
    min_runs: int = 20
    min_seconds: float = 10.0
    turns: int | None = None
    """Rounds in which every entry is run once; None times one after the other, as `min_runs` and `min_seconds` say."""
    command: str = ""
    notes: tuple[str, ...] = ()


class Workers(Protocol):
    """Where the jobs of a run are done: here, or on another host."""

    def check(self, entry: Entry) -> None:
        """Refuse an entry that cannot run there, before anything is run."""

    def run(self, job: Job, out: Path, on_line: Callable[[str], None]) -> None:
        """Do one job in a process of its own; what it writes is at `out`, here."""

    def host(self) -> Host:
        """The machine."""

    def versions(self) -> dict[str, str]:
        """Of the packages that a measurement depends on."""


class LocalWorkers:
    """Processes on this machine."""

    def check(self, entry: Entry) -> None:
        """Refuse a runtime that is not installed or not the artifact's."""
        choose_runtime(entry.artifact, entry.runtime)

    def run(self, job: Job, out: Path, on_line: Callable[[str], None]) -> None:
        """One process."""
        run_worker(job, out, on_line)

    def host(self) -> Host:
        """This machine."""
        return describe_host()

    def versions(self) -> dict[str, str]:
        """Of what is installed here."""
        return versions_of(*PACKAGES)


@dataclass(frozen=True, kw_only=True)
class _Exam:
    """A case that may be evaluated on: it calibrated none of the artifacts."""

    files: CaseFiles
    origin: CaseOrigin
    trained_on: bool

    @property
    def name(self) -> str:
        return self.files.name


def run_bench(plan: Plan, out: Path, progress: Callable[[str], None], workers: Workers | None = None) -> RunStore:
    """Run `plan` on `workers` (default: here) and keep every record in `out`.

    run.json is written last, so that an unfinished run is not taken for a run.

    Raises:
        InputError: the plan contradicts itself, or `out` already holds a run.
        CaseError: a case cannot be used.
        MissingDependencyError: a runtime is not installed.
        EdgeLatupError: a worker failed.
    """
    store, workers = RunStore(out), workers or LocalWorkers()
    _refuse_bad_plan(plan, store, workers)
    exams = [_examine(files, plan.entries) for files in plan.cases]
    record = _run_record(plan, exams, workers)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as scratch:
        batches = write_batches(plan.entries, Path(scratch))
        if plan.turns is None:
            for entry, batch in zip(plan.entries, batches, strict=True):
                progress(f"timing {entry.name} on {entry.runtime}")
                store.write_row(_time(entry, plan, batch, Path(scratch) / "row.json", workers, progress))
        else:
            for row in _time_in_turns(plan, plan.turns, batches, Path(scratch), progress):
                store.write_row(row)
    if exams:
        _record_drift(plan, exams, record, store, workers, progress)
    store.write_run(record)
    return store


def _refuse_bad_plan(plan: Plan, store: RunStore, workers: Workers) -> None:
    """Find what is wrong before anything slow starts."""
    if store.folder.exists() and not store.folder.is_dir():
        raise InputError(f"{store.folder} is a file", "choose another --out: the records of a run are a folder")
    if store.run_path.exists():
        raise InputError(f"{store.folder} already holds a bench run", "choose another --out: records are never mixed")
    if SweepStore(store.folder).sweep_path.exists():
        raise InputError(f"{store.folder} holds a sweep", "choose another --out: their tables have the same names")
    names = [entry.name for entry in plan.entries]
    _refuse_doubles("artifacts", names, "a row is known by its artifact's name: bench them in two runs")
    _refuse_doubles("cases", [files.name for files in plan.cases], "a label map is known by its case's name: rename one")
    for role, name in (("reference", plan.reference), ("baseline", plan.baseline)):
        if name not in names:
            raise InputError(f"the {role} {name!r} is not among the artifacts: {', '.join(names)}", f"name one of them with --{role}")
    if any(entry.timed_only for entry in plan.entries if entry.name == plan.reference):
        raise InputError(f"the reference {plan.reference} cannot be timed only", "its output is what the others are compared with")
    for entry in plan.entries:
        store.row_path(entry.name)
        workers.check(entry)


def _refuse_doubles(what: str, names: Sequence[str], hint: str) -> None:
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two {what} are named {', '.join(doubles)}", hint)


def _examine(files: CaseFiles, entries: Sequence[Entry]) -> _Exam:
    """Read a case once, and see what the artifacts know of it.

    Raises:
        CaseError: the case cannot be read, or was used to calibrate one of the artifacts.
    """
    manifests = [entry.artifact.manifest for entry in entries]
    digests = {modalities: case_digest(read_case(files, modalities)) for modalities in {manifest.spec.modalities for manifest in manifests}}
    for manifest in manifests:
        if any(seen.sha256 == digests[manifest.spec.modalities] for seen in manifest.calibration):
            raise CaseError(
                f"case {files.name} in {files.folder} was used to calibrate {manifest.name}",
                "evaluate on other cases, or calibrate again without it",
            )
    trained_on = any(seen.sha256 == digests[manifest.spec.modalities] for manifest in manifests for seen in manifest.trained_on)
    return _Exam(files=files, origin=origin_of(files), trained_on=trained_on)


def _run_record(plan: Plan, exams: Sequence[_Exam], workers: Workers) -> RunRecord:
    trained_on = (exam.name for exam in exams if exam.trained_on)
    return RunRecord(
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=plan.command,
        host=workers.host(),
        versions=workers.versions(),
        reference=plan.reference,
        baseline=plan.baseline,
        artifacts=tuple(entry.name for entry in plan.entries),
        cases=tuple(exam.name for exam in exams),
        turns=plan.turns,
        timed_only=tuple(entry.name for entry in plan.entries if entry.timed_only),
        pictured_case=_pictured(exams),
        notes=(*plan.notes, *(f"{name} was used to train the network: its Dice is not a test result, its drift is" for name in trained_on)),
    )


def _pictured(exams: Sequence[_Exam]) -> str | None:
    """The case a report shows: a real one the network was not trained on, else a real one, else the first with a label."""
    real = [exam for exam in exams if exam.origin != "phantom"]
    ranked = [*(exam for exam in real if not exam.trained_on), *real, *(exam for exam in exams if exam.files.label is not None), *exams]
    return ranked[0].name if ranked else None


def write_batches(entries: Sequence[Entry], folder: Path) -> list[Path]:
    """The input each entry is timed on, as .npy: the parity input, made once for all that share a spec."""
    made: dict[ModelSpec, Path] = {}
    for spec in (entry.artifact.manifest.spec for entry in entries):
        if spec not in made:
            made[spec] = folder / f"batch{len(made)}.npy"
            np.save(made[spec], parity_input(spec, spec.spatial.size))
    return [made[entry.artifact.manifest.spec] for entry in entries]


def _timing_job(entry: Entry, plan: Plan, batch: Path) -> Job:
    return Job(
        task="time", artifact=str(entry.artifact.folder), runtime=entry.runtime, threads=plan.threads, min_runs=plan.min_runs,
        min_seconds=plan.min_seconds, in_turns=plan.turns is not None, batch=str(batch),
    )  # fmt: skip


def _time(entry: Entry, plan: Plan, batch: Path, row: Path, workers: Workers, progress: Callable[[str], None]) -> TimingRow:
    workers.run(_timing_job(entry, plan, batch), row, lambda line: progress(f"{entry.name}: {line}"))
    return read_record(TimingRow, row)


def _time_in_turns(
    plan: Plan, rounds: int, batches: Sequence[Path], scratch: Path, progress: Callable[[str], None]
) -> list[TimingRow]:  # fmt: skip
    progress(f"timing {len(plan.entries)} artifacts in turns")
    rows = [scratch / f"row{index}.json" for index in range(len(plan.entries))]
    jobs = [
        (entry.name, _timing_job(entry, plan, batch), row) for entry, batch, row in zip(plan.entries, batches, rows, strict=True)
    ]  # fmt: skip
    run_in_turns(jobs, rounds, lambda name, line: progress(f"{name}: {line}" if name else line))
    return [read_record(TimingRow, row) for row in rows]


def _record_drift(
    plan: Plan, exams: Sequence[_Exam], record: RunRecord, store: RunStore, workers: Workers, progress: Callable[[str], None]
) -> None:  # fmt: skip
    judged = [entry for entry in plan.entries if not entry.timed_only]
    executed = {entry.name: _segment(entry, exams, plan.threads, store, workers, progress).float_precision for entry in judged}
    reference = next(entry for entry in judged if entry.name == plan.reference)
    cases: dict[str, list[CaseDrift]] = {entry.name: [] for entry in judged}
    for exam in exams:
        progress(f"comparing {exam.name}")
        for name, drift in _compare(exam, judged, reference, store, pictured=exam.name == record.pictured_case).items():
            cases[name].append(drift)
    for entry in judged:
        if entry is not reference:
            store.write_drift(
                DriftRecord(
                    artifact=entry.name, artifact_sha256=entry.artifact.digest, spec_sha256=entry.artifact.manifest.spec.digest,
                    runtime=entry.runtime, executed_float=executed[entry.name],
                    reference=reference.name, reference_sha256=reference.artifact.digest, reference_runtime=reference.runtime,
                    regions=reference.artifact.manifest.spec.found_regions,
                    cases=tuple(cases[entry.name]),
                )
            )  # fmt: skip


def _labels_folder(store: RunStore, entry: Entry) -> Path:
    return store.folder / "labels" / entry.name


def _segment(
    entry: Entry, exams: Sequence[_Exam], threads: int, store: RunStore, workers: Workers, progress: Callable[[str], None]
) -> SegmentSession:  # fmt: skip
    out = _labels_folder(store, entry)
    out.mkdir(parents=True, exist_ok=True)
    progress(f"segmenting {len(exams)} cases with {entry.name}")
    paths = tuple(str(exam.files.path) for exam in exams)
    job = Job(task="segment", artifact=str(entry.artifact.folder), runtime=entry.runtime, threads=threads, cases=paths)
    workers.run(job, out, lambda case: progress(f"{entry.name}: {case}"))
    return read_record(SegmentSession, out / SESSION_NAME)


def _compare(exam: _Exam, judged: Sequence[Entry], reference: Entry, store: RunStore, *, pictured: bool) -> dict[str, CaseDrift]:
    """The drift of every candidate on one case, whose slices are kept where it is the one that is pictured."""
    spec = reference.artifact.manifest.spec
    case = read_case(exam.files, spec.modalities)
    predictions = {entry.name: read_prediction(_labels_folder(store, entry) / f"{case.name}.nii.gz", case) for entry in judged}
    if pictured:
        store.write_picture(cut_picture(case, spec, predictions))
    labels = predictions.pop(reference.name)
    return case_drifts(case, exam.origin, labels, predictions, spec.found_regions)
