"""One row of a comparison in one process, started by `processes`: the same case segmented again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from edge_latup.artifact import Artifact, open_artifact, sha256_of
from edge_latup.bench.case.records import CaseRow, CaseRun, Policy
from edge_latup.bench.case.with_monai import MonaiSegmenter, check_monai
from edge_latup.bench.worker import CONVOLUTION, case_files
from edge_latup.cases.layout import CaseFiles
from edge_latup.manifest import RuntimeName
from edge_latup.records import Record, read_record, write_record
from edge_latup.runtimes import RUNTIMES, open_session
from edge_latup.runtimes.base import Session, SessionOptions, precision_summary
from edge_latup.runtimes.fresh import tell_failure
from edge_latup.segmentation.case import Segmenter
from edge_latup.segmentation.engine import Clock
from edge_latup.segmentation.memory import process_bytes
from edge_latup.segmentation.records import SegmentationRecord
from edge_latup.spec import ModelSpec
from edge_latup.targets.activity import busy_with_others, cpu_time
from edge_latup.targets.host import describe_host, load_average
from edge_latup.versions import versions_of

PACKAGES: Final = ("edge-latup", "torch", "monai", "openvino", "onnxruntime", "nncf", "numpy", "nibabel")


class CaseJob(Record):
    """What a worker is to do. Paths are absolute or relative to the working directory, which the worker inherits."""

    name: str
    engine: Literal["edge-latup", "monai"]
    policy: Policy
    artifact: str
    runtime: RuntimeName
    spec: ModelSpec
    case: str
    """Case folder or 4-D file."""
    label_map: str
    """File to write, once in each run."""
    threads: int = Field(ge=1)
    repeats: int = Field(ge=0)
    """Warm runs after the first, unless `seconds` end first; at least one unless it is 0."""
    seconds: float = Field(gt=0)


def repeated(job: CaseJob, once: Callable[[], CaseRun]) -> tuple[CaseRun, ...]:
    """The first run, then warm ones: until `repeats` or `seconds` of them."""
    runs = [once()]
    while len(runs) <= job.repeats and (len(runs) == 1 or sum(run.total for run in runs[1:]) < job.seconds):
        runs.append(once())
    return tuple(runs)


def _run(seconds: dict[str, float], label_map: Path) -> CaseRun:
    return CaseRun(seconds=seconds, peak_rss_bytes=process_bytes("VmHWM"), label_map_sha256=sha256_of(label_map))


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """When a row's runs began, and what else the machine did before and meanwhile."""

    load_average: float
    started: str
    other_busy: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of a row's runs, and under which conditions."""

    conditions: Conditions
    runs: tuple[CaseRun, ...]
    windows: int
    windows_run: int


def beginning() -> Callable[[], Conditions]:
    """Note time and load now; to be called at the end of the runs, for their conditions."""
    load, started, since = load_average(), datetime.now(timezone.utc).isoformat(timespec="seconds"), cpu_time()
    return lambda: Conditions(load_average=load, started=started, other_busy=busy_with_others([(since, cpu_time())]))


def _row(job: CaseJob, artifact: Artifact, session: Session, measured: Measured) -> CaseRow:
    """The record of a row; precision and convolutions are read back from `session`."""
    manifest = artifact.manifest
    convolutions = [kernel for kernel in session.executed_kernels() if CONVOLUTION.search(kernel.operation)]
    return CaseRow(
        name=job.name, engine=job.engine, policy=job.policy, artifact=manifest.name, artifact_sha256=artifact.digest, runtime=job.runtime,
        runtime_version=RUNTIMES[job.runtime].describe().version, precision=manifest.precision, storage=manifest.storage,
        executed_float=session.float_precision, executed_convolutions=precision_summary(convolutions), spec=job.spec,
        input_shape=session.input_shape, windows=measured.windows, windows_run=measured.windows_run, threads=job.threads,
        runs=measured.runs, host=describe_host(), versions=versions_of(*PACKAGES), **asdict(measured.conditions),
    )  # fmt: skip


def run_own(job: CaseJob, artifact: Artifact, files: CaseFiles) -> CaseRow:
    """Our own engine, as `edge-latup segment` uses it."""
    conditions, out = beginning(), Path(job.label_map)
    records: list[SegmentationRecord] = []
    with Segmenter(artifact, runtime=job.runtime, options=SessionOptions(threads=job.threads), spec=job.spec) as segmenter:

        def once() -> CaseRun:
            outcome = segmenter.segment_files(files, out)
            records.append(outcome.record)
            return _run(outcome.seconds, out)

        runs = repeated(job, once)
    said = records[-1]
    measured = Measured(conditions=conditions(), runs=runs, windows=said.windows, windows_run=said.windows_run)
    _, _, x, y, z = said.input_shape
    # Opened once more, the same way, to be asked what it executes: asked before, that would be part of the peak memory.
    with open_session(artifact, job.runtime, SessionOptions(threads=job.threads, input_size=(x, y, z))) as session:
        return _row(job, artifact, session, measured)


def run_monai(job: CaseJob, artifact: Artifact, files: CaseFiles) -> CaseRow:
    """MONAI's sliding windows; its imports are not timed, loading the network is part of the first run."""
    check_monai()
    import monai.inferers.utils
    import monai.transforms.croppad.array  # noqa: F401  (imported here, so that the first run does not pay for it)

    conditions, out, first = beginning(), Path(job.label_map), Clock()
    with first.stage("total"), first.stage("load"):
        session = open_session(artifact, job.runtime, SessionOptions(threads=job.threads, input_size=job.spec.spatial.size))
    clocks = chain([first], iter(Clock, None))
    with session:
        segmenter = MonaiSegmenter(session, job.spec, foreground=job.policy == "foreground")

        def once() -> CaseRun:
            clock = next(clocks)
            segmenter.segment_files(files, out, clock)
            return _run(clock.seconds, out)

        runs, count = repeated(job, once), segmenter.windows
        return _row(job, artifact, session, Measured(conditions=conditions(), runs=runs, windows=count, windows_run=count))


def main(arguments: list[str]) -> int:
    """Entry point of the worker process; errors go to stderr as one JSON object."""
    job_path, out = Path(arguments[0]), Path(arguments[1])

    def work() -> None:
        job = read_record(CaseJob, job_path)
        artifact, files = open_artifact(Path(job.artifact)), case_files(Path(job.case))
        write_record((run_own if job.engine == "edge-latup" else run_monai)(job, artifact, files), out)

    return tell_failure(work)
