"""Measuring the candidates of a search: made once, segmented in a worker process, kept on disk, never measured twice."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bench.accuracy_records import CaseInput, Layer, Measurement
from edge_latup.bench.drift import case_drifts, read_prediction
from edge_latup.bench.isolate import run_worker
from edge_latup.bench.records import CaseDrift, DriftRecord
from edge_latup.bench.worker import SESSION_NAME, Job, SegmentSession
from edge_latup.cases.identity import case_digest, origin_of
from edge_latup.cases.layout import CaseFiles
from edge_latup.cases.read import read_case
from edge_latup.errors import SpecError
from edge_latup.manifest import RuntimeName
from edge_latup.records import read_record, write_record
from edge_latup.runtimes import open_session
from edge_latup.runtimes.audit import shortfall
from edge_latup.runtimes.base import SessionOptions
from edge_latup.spec import ModelSpec

Make = Callable[[tuple[str, ...], Path], Artifact]
"""Makes the INT8 candidate with these layers in float, in this folder, whose name becomes the artifact's."""
Evaluate = Callable[[Artifact], DriftRecord]
FULL: Final = "int8-full"


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A case and what is known of it."""

    files: CaseFiles
    known: CaseInput


def examine(files: CaseFiles, spec: ModelSpec) -> Exam:
    """Read a case and take its hashes.

    Raises:
        CaseError: it cannot be read.
    """
    case = read_case(files, spec.modalities)
    label = None if case.label is None else hashlib.sha256(np.ascontiguousarray(case.label).tobytes()).hexdigest()
    return Exam(files=files, known=CaseInput(name=files.name, sha256=case_digest(case), label_sha256=label, origin=origin_of(files)))


def candidate_name(keep_float: tuple[str, ...]) -> str:
    """The name of the candidate with these layers in float; a hash tells apart those that have equally many."""
    if not keep_float:
        return FULL
    return f"int8-{len(keep_float)}-float-{hashlib.sha256(chr(10).join(keep_float).encode()).hexdigest()[:10]}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The candidates of one search and their measurements, in one folder.

    folder: holds candidates/NAME/ (artifacts) and measurements/NAME.json.
    """

    folder: Path
    make: Make
    evaluate: Evaluate
    progress: Callable[[str], None]

    def candidate(self, keep_float: tuple[str, ...]) -> Artifact:
        """The candidate, made where it is not there yet."""
        path = self.folder / "candidates" / candidate_name(keep_float)
        if path.exists():
            return open_artifact(path)
        self.progress(f"making {path.name}")
        return self.make(keep_float, path)

    def measure(self, keep_float: tuple[str, ...]) -> Measurement:
        """The candidate's measurement: the one on disk, or a new one.

        Raises:
            SpecError: the file on disk is damaged, or of another candidate.
        """
        path = self.folder / "measurements" / f"{candidate_name(keep_float)}.json"
        if path.exists():
            return _read(path, keep_float)
        artifact = self.candidate(keep_float)
        audit = artifact.manifest.audit
        measurement = Measurement(
            keep_float=keep_float, int8_macs=None if audit is None else audit.executed_int8,
            unexecuted=None if audit is None else shortfall(audit), drift=self.evaluate(artifact),
        )  # fmt: skip
        path.parent.mkdir(exist_ok=True)
        write_record(measurement, path)
        return measurement

    def remove_others(self, wanted: set[str]) -> None:
        """Remove the candidates that are not `wanted`; their measurements stay."""
        for path in (self.folder / "candidates").iterdir():
            if path.name not in wanted:
                shutil.rmtree(path)


def _read(path: Path, keep_float: tuple[str, ...]) -> Measurement:
    hint = f"remove {path}: it is then measured again"
    try:
        found = read_record(Measurement, path)
    except SpecError as error:
        raise SpecError(error.message, hint) from error
    if found.keep_float != keep_float:
        raise SpecError(f"{path} is of another candidate ({', '.join(found.keep_float) or 'none'} in float)", hint)
    return found


@dataclass(frozen=True, kw_only=True)
class CaseEvaluator:
    """Drift from the reference on cases; each artifact segments them in a process of its own, the reference once.

    reference_labels: folder of the reference's label maps, there as soon as they are complete.
    """

    reference: Artifact
    runtime: RuntimeName
    exams: tuple[Exam, ...]
    threads: int
    reference_labels: Path
    progress: Callable[[str], None]

    def __call__(self, candidate: Artifact) -> DriftRecord:
        """Segment the cases with `candidate` and compare; its label maps are not kept.

        Raises:
            EdgeLatupError: a worker failed.
        """
        self._segment_reference()
        with tempfile.TemporaryDirectory(prefix="edge-latup-") as scratch:
            executed = self._segment(candidate, Path(scratch)).float_precision
            cases = tuple(self._compare(exam, Path(scratch)) for exam in self.exams)
        return DriftRecord(
            artifact=candidate.manifest.name, artifact_sha256=candidate.digest, spec_sha256=candidate.manifest.spec.digest,
            runtime=self.runtime, executed_float=executed,
            reference=self.reference.manifest.name, reference_sha256=self.reference.digest, reference_runtime=self.runtime,
            regions=self.reference.manifest.spec.found_regions, cases=cases,
        )  # fmt: skip

    def _segment_reference(self) -> None:
        if self.reference_labels.is_dir():
            return
        with tempfile.TemporaryDirectory(dir=self.reference_labels.parent, prefix=f".{self.reference_labels.name}.") as scratch:
            labels = Path(scratch) / "labels"
            labels.mkdir()
            self._segment(self.reference, labels)
            labels.rename(self.reference_labels)

    def _segment(self, artifact: Artifact, out: Path) -> SegmentSession:
        self.progress(f"segmenting {len(self.exams)} cases with {artifact.manifest.name}")
        paths = tuple(str(exam.files.path) for exam in self.exams)
        run_worker(Job(task="segment", artifact=str(artifact.folder), runtime=self.runtime, threads=self.threads, cases=paths), out)
        return read_record(SegmentSession, out / SESSION_NAME)

    def _compare(self, exam: Exam, labels: Path) -> CaseDrift:
        spec = self.reference.manifest.spec
        case = read_case(exam.files, spec.modalities)
        reference, candidate = (read_prediction(folder / f"{case.name}.nii.gz", case) for folder in (self.reference_labels, labels))
        return case_drifts(case, exam.known.origin, reference, {"candidate": candidate}, spec.found_regions)["candidate"]


def int8_convolutions(candidate: Artifact, runtime: RuntimeName, threads: int) -> tuple[Layer, ...]:
    """The convolutions that a candidate declares INT8, in the order of the network, by the names that `keep_float` knows.

    Convolutions of one name (OpenVINO adds to it behind a slash) go to float together and count as one layer.
    """
    with open_session(candidate, runtime, SessionOptions(threads=threads)) as session:
        audit = session.audit()
    macs: dict[str, int] = {}
    for layer in audit.layers:
        if "conv" in layer.operation.lower() and layer.declared == "int8":
            name = layer.name.partition("/")[0] or layer.name
            macs[name] = macs.get(name, 0) + layer.macs
    return tuple(Layer(name=name, macs=count / audit.macs) for name, count in macs.items())
