"""One engine in one process, started by `isolate`: times a model on one input, or segments cases with it."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bench.records import TimingRow
from edge_latup.cases.layout import CaseFiles, find_cases
from edge_latup.cases.read import read_case
from edge_latup.cases.write import write_label_map
from edge_latup.errors import CaseError, EdgeLatupError, InputError
from edge_latup.manifest import RuntimeName
from edge_latup.records import Record, read_record, write_record
from edge_latup.runtimes import RUNTIMES, choose_runtime, open_session
from edge_latup.runtimes.base import Batch, Kernel, Session, SessionOptions, precision_summary
from edge_latup.runtimes.fresh import tell_failure
from edge_latup.segmentation.engine import Clock, finish, infer, prepare
from edge_latup.segmentation.kernels import audit_summary
from edge_latup.segmentation.memory import process_bytes
from edge_latup.spec import Size
from edge_latup.targets.activity import CpuTime, busy_with_others, cpu_time
from edge_latup.targets.host import describe_host, load_average

CONVOLUTION: Final = re.compile("conv(?!ert)", re.IGNORECASE)
"""A Convert only changes the type of a tensor."""
SESSION_NAME: Final = "session.json"
WARM_UP_SECONDS: Final = 5.0
"""After so long caches, clocks and memory are what they will be; a network that takes longer for one run is warm after one: of LATUP-Net in
FP32 the second run takes no longer than the third."""
READY: Final = "ready"
"""What a worker whose runs are asked for says before it waits."""


class Job(Record):
    """What a worker is to do. Paths are absolute or relative to the working directory, which the worker inherits."""

    task: Literal["time", "segment"]
    artifact: str
    runtime: RuntimeName
    threads: int = Field(ge=1)
    warm_up_runs: int = Field(2, ge=1)
    min_runs: int = Field(20, ge=1)
    min_seconds: float = Field(10.0, ge=0)
    in_turns: bool = False
    """For "time": whether each timed run waits to be asked for by a line on stdin, and their end by its end, so that rows take turns."""
    batch: str | None = None
    """File (.npy) with the input, for "time": made by the caller, so that making it leaves no trace in the worker's memory."""
    cases: tuple[str, ...] = ()
    """Case folders or 4-D files, for "segment"."""


class SegmentSession(Record):
    """session.json beside the label maps of one artifact: what they were computed in."""

    float_precision: str
    """As read back from the runtime."""


def _reset_peak() -> None:
    """Make VmHWM count from here (Linux); elsewhere the peak includes the imports."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _is_convolution(kernel: Kernel) -> bool:
    """Conv, ConvTranspose, Convolution, Deconvolution, QLinearConv, FusedConv, Conv3d: every runtime has its own name."""
    return CONVOLUTION.search(kernel.operation) is not None


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """Milliseconds of each run, and what else kept processors busy meanwhile."""

    samples: tuple[float, ...]
    other_busy: float | None


def _warm_up(session: Session, batch: Batch, job: Job, spent: float) -> int:
    """As many runs as the job asks for, or fewer where WARM_UP_SECONDS are over; `spent` were on the first inference. Returns how many."""
    done, end = 0, time.perf_counter() - spent + WARM_UP_SECONDS
    while done < job.warm_up_runs and time.perf_counter() < end:
        session.infer(batch)
        done += 1
    return done


def _time_once(session: Session, batch: Batch) -> float:
    began = time.perf_counter_ns()
    session.infer(batch)
    return (time.perf_counter_ns() - began) / 1e6


def _time_in_a_row(session: Session, batch: Batch, job: Job) -> _Timed:
    """Until `min_runs` runs or `min_seconds`, whichever comes first, and at least two."""
    samples: list[float] = []
    since = cpu_time()
    while len(samples) < 2 or (len(samples) < job.min_runs and sum(samples) < job.min_seconds * 1000):
        samples.append(_time_once(session, batch))
    return _Timed(samples=tuple(samples), other_busy=busy_with_others([(since, cpu_time())]))


def _time_in_turns(session: Session, batch: Batch) -> _Timed:
    """One run for each line on stdin. What keeps processors busy between them is the other rows."""
    samples: list[float] = []
    spans: list[tuple[CpuTime, CpuTime]] = []
    _tell(READY)
    for _ in sys.stdin:
        since = cpu_time()
        samples.append(_time_once(session, batch))
        spans.append((since, cpu_time()))
        _tell(READY)
    if not samples:
        raise EdgeLatupError("no run was asked for: whoever took turns has ended")
    return _Timed(samples=tuple(samples), other_busy=busy_with_others(spans))


def _tell(line: str) -> None:
    """A line of progress for whoever started this process."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _batch(job: Job) -> Batch:
    if job.batch is None:
        raise InputError("a timing job needs a batch", "name the .npy file with the input")
    batch: Batch = np.load(job.batch, allow_pickle=False)
    return batch


def time_model(job: Job, artifact: Artifact) -> TimingRow:
    """Load, run and measure; the runtime is imported before the memory baseline is taken."""
    manifest = artifact.manifest
    choose_runtime(artifact, job.runtime)
    version = RUNTIMES[job.runtime].describe().version
    batch = _batch(job)
    load, started = load_average(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    before = process_bytes("VmRSS")
    _reset_peak()
    began = time.perf_counter()
    with open_session(artifact, job.runtime, SessionOptions(threads=job.threads)) as session:
        loaded = time.perf_counter()
        session.infer(batch)
        first = time.perf_counter()
        _tell(f"loaded in {loaded - began:.1f} s")
        warm_up_runs = 1 + _warm_up(session, batch, job, first - loaded)
        timed, ended = _time_in_turns(session, batch) if job.in_turns else _time_in_a_row(session, batch, job), time.time()
        _tell(f"timed {len(timed.samples)} runs in {sum(timed.samples) / 1000:.1f} s")
        peak = process_bytes("VmHWM")
        kernels = session.executed_kernels()
        convolutions = [kernel for kernel in kernels if _is_convolution(kernel)]
        return TimingRow(
            artifact=manifest.name, artifact_sha256=artifact.digest, format=manifest.format, runtime=job.runtime, runtime_version=version,
            precision=manifest.precision, storage=manifest.storage, executed_float=session.float_precision,
            executed_kernels=precision_summary(kernels), executed_convolutions=precision_summary(convolutions),
            audit=audit_summary(session),
            input_shape=tuple(batch.shape), threads=job.threads, warm_up_runs=warm_up_runs, samples_ms=timed.samples,
            load_ms=(loaded - began) * 1000, first_inference_ms=(first - loaded) * 1000, peak_rss_bytes=peak, rss_delta_bytes=peak - before,
            model_bytes=manifest.model_size, load_average=load, other_busy=timed.other_busy, started=started, host=describe_host(),
            implementations=dict(Counter(kernel.implementation for kernel in kernels)), timed_until=ended,
        )  # fmt: skip


def case_files(path: Path) -> CaseFiles:
    """The case at `path`, which may hold other cases in folders below."""
    for files in find_cases(path):
        if files.path == path:
            return files
    raise CaseError(f"there is no case at {path}", "has it been moved since the run began?")


def segment_cases(job: Job, artifact: Artifact, out: Path) -> None:
    """Write out/CASE.nii.gz for every case of the job; stdout gets one line a case, for progress."""
    spec = artifact.manifest.spec
    with ExitStack() as opened:
        session: Session | None = None
        size: Size | None = None
        for path in job.cases:
            # The label is read for its convention alone: the label map is written in the same numbers.
            case = read_case(case_files(Path(path)), spec.modalities)
            task = prepare(case, spec)
            # Heads differ in size: as in `edge-latup segment`, the model is opened anew where this one's does.
            if session is None or task.input_size != size:
                opened.close()
                size = task.input_size
                options = SessionOptions(threads=job.threads, input_size=size)
                session = opened.enter_context(open_session(artifact, job.runtime, options))
            clock = Clock()
            write_label_map(finish(infer(session, spec, task, clock), case, spec, clock), case, out / f"{case.name}.nii.gz")
            _tell(case.name)
        if session is not None:
            write_record(SegmentSession(float_precision=session.float_precision), out / SESSION_NAME)


def main(arguments: list[str]) -> int:
    """Entry point of the worker process; errors go to stderr as one JSON object."""
    job_path, out = Path(arguments[0]), Path(arguments[1])

    def work() -> None:
        job = read_record(Job, job_path)
        artifact = open_artifact(Path(job.artifact))
        if job.task == "time":
            write_record(time_model(job, artifact), out)
        else:
            segment_cases(job, artifact, out)

    return tell_failure(work)
