"""Writes what sensors tell while something else runs: one JSON line a sample, until SIGTERM. Standard library only, raw values only.

The first line says what does not change: power mode, clocks, where energy counters wrap. `telemetry` makes figures of it, elsewhere.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from edge_latup.targets import rapl
from edge_latup.targets.nvml import open_nvml

INTERVAL_SECONDS: Final = 0.5
TOOL_SECONDS: Final = 5.0
SYSTEM_FOLDERS: Final = "/usr/bin:/usr/sbin:/bin:/sbin"
"""Not all of it is on the PATH of a command that comes over SSH."""


class _Writer:
    """Lines from two threads."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._lock = file, threading.Lock()

    def __call__(self, **values: Any) -> None:
        with self._lock:
            self._file.write(json.dumps({"at": time.time(), **values}) + "\n")
            self._file.flush()


def tool(name: str) -> str | None:
    """Where a tool of the system is."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)


def told_by(*command: str) -> str | None:
    """What a tool prints; None where it is missing, refuses or does not end."""
    program = tool(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, timeout=TOOL_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


@contextmanager
def tegrastats(write: _Writer, interval: float) -> Iterator[None]:
    """Pass the lines of tegrastats on, where there is one."""
    program = tool("tegrastats")
    if program is None:
        yield
        return
    with subprocess.Popen([program, "--interval", str(int(interval * 1000))], stdout=subprocess.PIPE, text=True) as process:

        def pass_on() -> None:
            for line in process.stdout or ():
                write(tegrastats=line.rstrip())

        thread = threading.Thread(target=pass_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            process.terminate()
            thread.join(2)


def sample(path: Path, interval: float, ended: threading.Event) -> None:
    """Sample into `path` until the event."""
    counters, gpus = rapl.domains(), open_nvml()
    with path.open("w", encoding="utf-8") as file:
        write = _Writer(file)
        write(
            nvpmodel=told_by("nvpmodel", "-q"), jetson_clocks=told_by("jetson_clocks", "--show"),
            wraps_at={counter.name: counter.wraps_at for counter in counters},
        )  # fmt: skip
        with tegrastats(write, interval):
            while True:
                if counters:
                    write(rapl={counter.name: rapl.read(counter) for counter in counters})
                if gpus is not None:
                    write(nvml=gpus.sample())
                if ended.wait(interval):
                    return


def main(arguments: list[str]) -> int:
    """Entry point of the sampling process: the file to write, and seconds between samples."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    sample(Path(arguments[0]), float(arguments[1]), ended)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
