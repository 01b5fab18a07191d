"""One model timed in a process of its own, which `measure` starts."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from pydantic import Field

from edge_latup.artifact import Artifact
from edge_latup.manifest import Manifest, RuntimeName
from edge_latup.records import Record, read_record, write_record
from edge_latup.runtimes import open_session
from edge_latup.runtimes.fresh import tell_failure
from edge_latup.segmentation.memory import process_bytes


class TimingJob(Record):
    """What to time. The model need not be an artifact yet: its manifest is given, its files are not checked."""

    folder: str
    manifest: Manifest
    runtime: RuntimeName
    batch: str
    """File (.npy) with the input."""
    output: str | None = None
    """Where the first run's output is written (.npy)."""
    seconds: float = Field(2.0, ge=0)


class Timing(Record):
    """How long each run took, and the most memory of the whole process (0 where the system does not tell)."""

    samples_ms: tuple[float, ...] = Field(min_length=1)
    peak_rss_bytes: int


def time_model(job: TimingJob) -> Timing:
    """One run to warm up, then runs until they have taken `seconds`, at least two."""
    batch = np.load(job.batch, allow_pickle=False)
    with open_session(Artifact(folder=Path(job.folder), manifest=job.manifest), job.runtime) as session:
        output = session.infer(batch)
        if job.output is not None:
            np.save(job.output, output)
        samples: list[float] = []
        while len(samples) < 2 or sum(samples) < job.seconds * 1000:
            began = time.perf_counter_ns()
            session.infer(batch)
            samples.append((time.perf_counter_ns() - began) / 1e6)
        return Timing(samples_ms=tuple(samples), peak_rss_bytes=process_bytes("VmHWM"))


def main(arguments: list[str]) -> int:
    """Entry point of the process: (job file, file for the timing)."""
    return tell_failure(lambda: write_record(time_model(read_record(TimingJob, Path(arguments[0]))), Path(arguments[1])))
