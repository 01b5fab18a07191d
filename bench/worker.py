"""One engine in one process: `python -m edge_latup.bench.worker JOB.json OUT` times a model or segments cases with it."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bench.records import TimingRow
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.cases.write import write_label_map
from edge_latup.errors import EdgeLatupError
from edge_latup.manifest import RuntimeName
from edge_latup.records import Record, read_record, write_record, write_text
from edge_latup.runtimes import RUNTIMES, open_session
from edge_latup.runtimes.base import Batch, Kernel, Session, SessionOptions, precision_summary
from edge_latup.segmentation.engine import segment
from edge_latup.segmentation.parity import parity_input
from edge_latup.targets.host import describe_host, load_average

CONVOLUTIONS: Final = ("conv", "deconv")


class Job(Record):
    """What a worker is to do."""

    task: Literal["time", "segment"]
    artifact: str
    runtime: RuntimeName
    threads: int = Field(ge=1)
    warm_up_runs: int = Field(2, ge=1)
    min_runs: int = Field(20, ge=1)
    min_seconds: float = Field(10.0, ge=0)
    cases: tuple[str, ...] = ()
    """Case folders, for "segment"."""


def _memory(field: str) -> int:
    """A line of /proc/self/status in bytes; 0 where the system has none."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _reset_peak() -> None:
    """Make VmHWM count from here (Linux); elsewhere the peak includes the imports."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _is_convolution(kernel: Kernel) -> bool:
    return any(word in kernel.operation.lower() for word in CONVOLUTIONS)


def _samples(session: Session, batch: Batch, job: Job) -> tuple[float, ...]:
    """Milliseconds of each run: until `min_runs` runs or `min_seconds`, whichever comes first, and at least two."""
    for _ in range(job.warm_up_runs):
        session.infer(batch)
    samples: list[float] = []
    while len(samples) < 2 or (len(samples) < job.min_runs and sum(samples) < job.min_seconds * 1000):
        began = time.perf_counter_ns()
        session.infer(batch)
        samples.append((time.perf_counter_ns() - began) / 1e6)
    return tuple(samples)


def time_model(job: Job, artifact: Artifact) -> TimingRow:
    """Load, run and measure; the runtime is imported before the memory baseline is taken."""
    manifest = artifact.manifest
    version = RUNTIMES[job.runtime].describe().version
    size = manifest.spec.spatial.size
    batch = parity_input(manifest.spec, size)
    load, started = load_average(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    before = _memory("VmRSS")
    _reset_peak()
    began = time.perf_counter()
    with open_session(artifact, job.runtime, SessionOptions(threads=job.threads)) as session:
        loaded = time.perf_counter()
        session.infer(batch)
        first = time.perf_counter()
        samples = _samples(session, batch, job)
        peak = _memory("VmHWM")
        kernels = session.executed_kernels()
        return TimingRow(
            artifact=manifest.name, artifact_sha256=artifact.digest, format=manifest.format, runtime=job.runtime, runtime_version=version,
            precision=manifest.precision, storage=manifest.storage, executed_float=session.float_precision,
            executed_kernels=precision_summary(kernels), executed_convolutions=precision_summary([k for k in kernels if _is_convolution(k)]),
            input_shape=tuple(batch.shape), threads=job.threads, warm_up_runs=job.warm_up_runs + 1, samples_ms=samples,
            load_ms=(loaded - began) * 1000, first_inference_ms=(first - loaded) * 1000, peak_rss_bytes=peak, rss_delta_bytes=peak - before,
            model_bytes=manifest.model_size, load_average=load, started=started, host=describe_host(),
        )  # fmt: skip


def segment_cases(job: Job, artifact: Artifact, out: Path) -> None:
    """Write out/CASE.nii.gz for every case of the job; stdout gets one line a case, for progress."""
    spec = artifact.manifest.spec
    with open_session(artifact, job.runtime, SessionOptions(threads=job.threads)) as session:
        write_text(json.dumps({"float_precision": session.float_precision}), out / "session.json")
        for folder in job.cases:
            files = next(found for found in find_cases(Path(folder)) if found.path == Path(folder))
            case = read_case(files, spec.modalities, with_label=False)
            write_label_map(segment(session, spec, case).label, case, out / f"{case.name}.nii.gz")
            sys.stdout.write(f"{case.name}\n")
            sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Entry point of the worker process; errors go to stderr as one JSON object."""
    job_path, out = Path(arguments[0]), Path(arguments[1])
    try:
        job = read_record(Job, job_path)
        artifact = open_artifact(Path(job.artifact))
        if job.task == "time":
            write_record(time_model(job, artifact), out)
        else:
            segment_cases(job, artifact, out)
    except EdgeLatupError as error:
        sys.stderr.write(json.dumps({"message": error.message, "hint": error.hint, "exit_code": error.exit_code}) + "\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
