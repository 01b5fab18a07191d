"""Start the processes of a comparison one after the other: workers, and `edge-latup segment` as a user's cold command."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from edge_latup.artifact import sha256_of
from edge_latup.bench.case import stopwatch
from edge_latup.bench.case.records import CaseRow, CaseRun
from edge_latup.bench.case.worker import CaseJob, beginning, repeated
from edge_latup.records import Record, read_record, write_record
from edge_latup.runtimes.fresh import failure
from edge_latup.segmentation.records import sidecar_of

WITHOUT_CWD: Final = "import sys; sys.path[:] = filter(None, sys.path); "
"""The empty entry of sys.path is the working directory, where a folder may shadow the installed package (-P is Python 3.11+)."""
START_WORKER: Final = f"{WITHOUT_CWD}from edge_latup.bench.case.worker import main; sys.exit(main(sys.argv[1:]))"
START_COMMAND: Final = f"{WITHOUT_CWD}from edge_latup.cli import main; main()"
COMMAND_SUFFIX: Final = "command"


class Timed(Record):
    """What the stopwatch writes."""

    seconds: float
    peak_rss_bytes: int


def run_case(job: CaseJob) -> CaseRow:
    """One row in a fresh interpreter.

    Raises:
        EdgeLatupError: the worker failed; with its own message, or its last words where it crashed.
    """
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as folder:
        path, row = Path(folder) / "job.json", Path(folder) / "row.json"
        write_record(job, path)
        _run_checked([sys.executable, "-c", START_WORKER, str(path), str(row)], job.name)
        return read_record(CaseRow, row)


def run_command(job: CaseJob, row: CaseRow) -> CaseRow:
    """The row of the same work done by the command line: a new process each time, its compiled model kept between them.

    The first run fills an empty cache; the others find it filled, and the case's files in the system's page cache.

    Args:
        job: of our own engine, by a policy that the command takes.
        row: what the worker measured of the same job; artifact, spec and windows are taken from it.

    Raises:
        EdgeLatupError: the command failed.
    """
    conditions = beginning()
    name = f"{job.name}-{COMMAND_SUFFIX}"
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as folder:
        runs = repeated(job, lambda: _timed_command(job, name, Path(folder)))
    fields: dict[str, object] = {
        "name": name, "engine": "command", "executed_float": None, "executed_convolutions": {}, "runs": runs, **asdict(conditions()),
    }  # fmt: skip
    return row.model_copy(update=fields)


def _timed_command(job: CaseJob, name: str, folder: Path) -> CaseRun:
    timing, out = folder / "timing.json", Path(job.label_map).with_name(f"{name}.nii.gz")
    # A command may find its work done already.
    for left in (out, sidecar_of(out)):
        left.unlink(missing_ok=True)
    segment = [
        "--json", "segment", job.artifact, job.case, "--out", str(out), "--policy", job.policy, "--runtime", job.runtime,
        "--threads", str(job.threads), "--cache", str(folder / "cache"),
    ]  # fmt: skip
    command = [sys.executable, "-c", START_COMMAND, *segment]
    told = json.loads(_run_checked([sys.executable, "-I", "-S", stopwatch.__file__, str(timing), *command], name))["seconds"]
    timed = read_record(Timed, timing)
    seconds = {**told, "total": timed.seconds, "start": timed.seconds - told["total"]}
    return CaseRun(seconds=seconds, peak_rss_bytes=timed.peak_rss_bytes, label_map_sha256=sha256_of(out))


def _run_checked(command: list[str], who: str) -> str:
    """Run to the end and return its stdout; a worker's own error is passed on as it is, anything else is a crash with its last words."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if not done.returncode:
        return done.stdout
    raise failure(who, done.returncode, done.stderr)
