"""Many cases: resumed where an earlier run stopped, and no bad case stops the others."""

from __future__ import annotations

import errno
import tempfile
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge_latup.artifact import Artifact
from edge_latup.cases.layout import SUFFIXES, CaseFiles, find_cases
from edge_latup.errors import CaseError, EdgeLatupError, InputError
from edge_latup.manifest import RuntimeName
from edge_latup.runtimes.base import SessionOptions
from edge_latup.segmentation.case import Outcome, Segmenter
from edge_latup.segmentation.records import SegmentationRecord
from edge_latup.segmentation.resume import alone_in, kept, label_map_of, refuse_inputs, refuse_others, remove_leftovers
from edge_latup.spec import ModelSpec

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What the system says when every further file would fail the same way."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is done to every case. It pickles, so that it can be sent to a worker; its paths are then absolute."""

    artifact: Artifact
    spec: ModelSpec
    out: Path
    options: SessionOptions
    runtime: RuntimeName | None = None
    memory_budget: int | None = None
    overwrite: bool = False

    def segmenter(self) -> Segmenter:
        """The artifact with these settings, not yet opened.

        Raises:
            ArtifactError, MissingDependencyError: as `Segmenter`.
        """
        return Segmenter(
            self.artifact, runtime=self.runtime, options=self.options, spec=self.spec, memory_budget=self.memory_budget
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a case has no label map.

    kind: the error's type. trace: the traceback of an error that nobody raised on purpose, else empty.
    stops: every further case would fail the same way, as on a full disk.
    """

    kind: str
    message: str
    hint: str = ""
    trace: str = ""
    stops: bool = False


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What came of one case: a record and, unless it was finished before, its outcome; or a failure."""

    case: str
    label_map: Path
    record: SegmentationRecord | None = None
    outcome: Outcome | None = None
    failure: Failure | None = None

    @property
    def status(self) -> Literal["written", "verified", "failed"]:
        """Verified: an earlier run's label map is just what would be made now, and was kept."""
        return "failed" if self.failure else "written" if self.outcome else "verified"


@dataclass(frozen=True, kw_only=True)
class CohortReport:
    """What came of a cohort, in the cases' order; `not_started` is empty unless a full disk stopped the run."""

    results: tuple[CaseResult, ...]
    not_started: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """The cases that have no label map."""
        return tuple(result for result in self.results if result.failure is not None)


RunCases = Callable[[Job, Sequence[CaseFiles]], Generator[CaseResult, None, None]]
"""Segments cases somewhere and gives their results in any order; closing it early abandons what has not begun."""


def find_cohort(root: Path, out: Path) -> tuple[list[CaseFiles], list[CaseResult]]:
    """The cases at or under `root`, and a failure for each folder below it whose files do not make a case.

    Raises:
        CaseError: nothing there is a case, or two cases share a name, so that neither's label map has a name of its own.
    """
    try:
        return find_cases(root), []
    except CaseError as error:
        found, refused = _find_each(root, out)
        names = [files.name for files in found]
        if not found or len(set(names)) < len(names):
            raise error from None
        return sorted(found, key=lambda files: files.name), refused


def _find_each(root: Path, out: Path) -> tuple[list[CaseFiles], list[CaseResult]]:
    """Each folder in `root` for itself; one without any volume in it is passed over."""
    found: list[CaseFiles] = []
    refused: list[CaseResult] = []
    for folder in sorted(p for p in root.glob("*") if p.is_dir() and not p.name.startswith(".")):
        try:
            found += find_cases(folder)
        except CaseError as error:
            if any(path.name.lower().endswith(SUFFIXES) for path in folder.rglob("*")):
                refused.append(failed(folder.name, out, error))
    return found, refused


def failed(case: str, out: Path, error: Exception) -> CaseResult:
    """The result of a case that ended with `error`."""
    stops, chain = False, error.__cause__
    while chain is not None and not stops:
        stops, chain = isinstance(chain, OSError) and chain.errno in FULL, chain.__cause__
    kind = type(error).__name__
    if isinstance(error, EdgeLatupError):
        failure = Failure(kind=kind, message=error.message, hint=error.hint, stops=stops)
    elif isinstance(error, MemoryError):
        failure = Failure(
            kind=kind, message="there is not enough memory for this case", hint="add --memory-budget, such as --memory-budget 4GiB"
        )
    else:
        trace = "".join(traceback.format_exception(error))
        stops = stops or (isinstance(error, OSError) and error.errno in FULL)
        failure = Failure(kind=kind, message=f"{kind}: {error}", hint="look at the traceback", trace=trace, stops=stops)
    return CaseResult(case=case, label_map=label_map_of(out, case), failure=failure)


def segment_one(segmenter: Segmenter, job: Job, files: CaseFiles) -> CaseResult:
    """Segment one case into the job's folder, or keep what is finished there. Never raises: what went wrong is in the result."""
    label_map = label_map_of(job.out, files.name)
    try:
        record = kept(segmenter, files, label_map, overwrite=job.overwrite)
        outcome = segmenter.segment_files(files, label_map) if record is None else None
    except Exception as error:  # noqa: BLE001  (one case, whatever befalls it, never stops the others)
        return failed(files.name, job.out, error)
    return CaseResult(case=files.name, label_map=label_map, record=outcome.record if outcome else record, outcome=outcome)


def run_here(job: Job, cases: Sequence[CaseFiles]) -> Generator[CaseResult, None, None]:
    """Segment the cases one after the other in this process."""
    with job.segmenter() as segmenter:
        for files in cases:
            yield segment_one(segmenter, job, files)


def run_cohort(
    job: Job, cases: Sequence[CaseFiles], report: Callable[[int, str], None], run: RunCases = run_here
) -> CohortReport:  # fmt: skip
    """Segment `cases` into `job.out`, which is made if its parent is there; call `report` with the number done and the last case.

    Label maps that an earlier run finished are verified and kept; its temporary files are removed.

    Raises:
        InputError: the folder cannot be written, would lose a case's own file, is in use by another run, or holds finished label
            maps of another model or other settings and `job.overwrite` is not set.
        ArtifactError, MissingDependencyError: the artifact cannot be executed here.
    """
    segmenter = job.segmenter()
    refuse_inputs(cases, job.out)
    if not job.overwrite:
        refuse_others(segmenter, cases, job.out)
    _make_folder(job.out)
    order = {files.name: index for index, files in enumerate(cases)}
    results: list[CaseResult] = []
    with alone_in(job.out):
        remove_leftovers(cases, job.out)
        with closing(run(job, cases)) as running:
            for result in running:
                results.append(result)
                report(len(results), f"{result.case}: {result.status}")
                if result.failure is not None and result.failure.stops:
                    break
        # A worker that was killed may have left its own.
        remove_leftovers(cases, job.out)
    done = {result.case for result in results}
    return CohortReport(
        results=tuple(sorted(results, key=lambda result: order[result.case])),
        not_started=tuple(files.name for files in cases if files.name not in done),
    )


def _make_folder(out: Path) -> None:
    """Make the folder of the label maps and see that files can be made in it, before the minutes of inference."""
    try:
        out.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise InputError(f"--out {out}: the folder {out.parent} does not exist", "make it, or choose another --out") from None
    except OSError as error:
        raise _unwritable(out, error) from error
    refuse_unwritable(out)


def refuse_unwritable(folder: Path) -> None:
    """Make a file without a name in a folder, which leaves nothing behind.

    Raises:
        InputError: that cannot be done.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"cannot write into {folder}: {error.strerror or error}", "change its rights, free space, or choose another --out")
