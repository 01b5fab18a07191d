"""Start worker processes one after the other and turn their failures into errors."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_latup.bench.worker import Job
from edge_latup.records import write_record
from edge_latup.runtimes.fresh import failure
from edge_latup.targets.isa import VARIABLES

START: Final = "import sys; sys.path[:] = filter(None, sys.path); from edge_latup.bench.worker import main; sys.exit(main(sys.argv[1:]))"
"""The empty entry of sys.path is the working directory, where a folder may shadow the installed package (-P is Python 3.11+)."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A job in a process of its own, under way."""

    job: Job
    process: subprocess.Popen[str]
    errors: Path

    def lines(self) -> Iterator[str]:
        """What it tells, as it tells it, until it ends.

        Raises:
            EdgeLatupError: it failed; with its own message, or its last words where it crashed (out of memory, a signal).
        """
        for line in self.process.stdout or ():
            yield line.strip()
        if code := self.process.wait():
            raise failure(named(self.job), code, self.errors.read_text(encoding="utf-8", errors="replace"))

    def ask(self) -> None:
        """Have it do the next run; one that has ended is found by its lines."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.write("\n")
                self.process.stdin.flush()

    def dismiss(self) -> None:
        """Ask for no more runs."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):  # closing writes what a worker that has ended did not take
                self.process.stdin.close()


@contextmanager
def started_worker(job: Job, out: Path, environment: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """Start one job in a fresh interpreter; it does not outlive the block.

    `environment` is added to this process's own, of which the variables that limit instruction sets are never passed on.
    """
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as folder:
        path, errors = Path(folder) / "job.json", Path(folder) / "stderr.txt"
        write_record(job, path)
        command = [sys.executable, "-c", START, str(path), str(out)]
        with (
            errors.open("w", encoding="utf-8") as stderr,
            subprocess.Popen(
                command, stdin=subprocess.PIPE if job.in_turns else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                encoding="utf-8", errors="replace", env=worker_environment(environment),
            ) as process,
        ):  # fmt: skip
            worker = Worker(job=job, process=process, errors=errors)
            try:
                yield worker
            finally:
                process.kill()
                worker.dismiss()


def run_worker(
    job: Job, out: Path, on_line: Callable[[str], None] = lambda _: None, environment: Mapping[str, str] | None = None
) -> None:  # fmt: skip
    """Run one job in a fresh interpreter and wait for it; `on_line` gets each line of its stdout. `environment`: see `started_worker`.

    Raises:
        EdgeLatupError: the worker failed; with its own message, or its last words where it crashed (out of memory, a signal).
    """
    with started_worker(job, out, environment) as worker:
        for line in worker.lines():
            on_line(line)


def named(job: Job) -> str:
    """The job in errors."""
    return f"{Path(job.artifact).name} on {job.runtime}"


def worker_environment(additions: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without limits of the instruction set, and what is added."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES} | dict(additions or {})
