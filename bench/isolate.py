"""Start worker processes one after the other and turn their failures into errors."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from edge_latup.bench.worker import Job
from edge_latup.errors import EdgeLatupError
from edge_latup.records import write_record


def run_worker(job: Job, out: Path, on_line: Callable[[str], None] = lambda _: None) -> None:
    """Run one job in a fresh interpreter and wait for it; `on_line` gets each line of its stdout.

    Raises:
        EdgeLatupError: the worker failed; with its own message, or its last words where it crashed (out of memory, a signal).
    """
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as folder:
        path, errors = Path(folder) / "job.json", Path(folder) / "stderr.txt"
        write_record(job, path)
        command = [sys.executable, "-P", "-m", "edge_latup.bench.worker", str(path), str(out)] if _safe_path() else _plain(path, out)
        with (
            errors.open("w", encoding="utf-8") as stderr,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
        ):
            for line in process.stdout or ():
                on_line(line.strip())
        if process.returncode:
            raise _failure(job, process.returncode, errors.read_text(encoding="utf-8", errors="replace"))


def _safe_path() -> bool:
    """-P keeps the working directory off sys.path (Python 3.11+)."""
    return sys.version_info >= (3, 11)


def _plain(path: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "edge_latup.bench.worker", str(path), str(out)]


def _failure(job: Job, code: int, stderr: str) -> EdgeLatupError:
    lines = [line for line in stderr.splitlines() if line.strip()]
    try:
        told = json.loads(lines[-1]) if lines else {}
        error = EdgeLatupError(f"{Path(job.artifact).name} on {job.runtime}: {told['message']}", told["hint"])
        error.exit_code = int(told["exit_code"])  # type: ignore[misc]
    except (ValueError, KeyError, TypeError):
        last = lines[-1] if lines else "it said nothing"
        error = EdgeLatupError(
            f"the worker for {Path(job.artifact).name} on {job.runtime} ended with code {code}: {last}", "is memory short?"
        )
    return error
