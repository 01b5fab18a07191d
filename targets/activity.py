"""What else kept this machine's processors busy while something was timed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LEAST_SECONDS: Final = 1.0
"""Linux counts processor time in hundredths of a second a processor: over less than this the difference tells nothing."""
IDLE: Final = (3, 4, 8, 9)
"""Columns of /proc/stat that are not work: idle, waiting for a disk, and the two that `user` and `nice` hold already (proc_stat(5))."""


@dataclass(frozen=True, kw_only=True)
class CpuTime:
    """Seconds of processor time up to a moment."""

    at: float
    """Of a clock that only goes forward."""
    machine: float | None
    """Spent by anything, a hypervisor included, on the processors this process may use; None where the system does not tell."""
    own: float
    """Spent by this process and by those it started that have ended."""


def cpu_time(root: Path = Path("/")) -> CpuTime:
    """The processor time spent up to now. `root` is there for tests."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return CpuTime(at=time.monotonic(), machine=_machine_seconds(root), own=own)


def busy_with_others(spans: Sequence[tuple[CpuTime, CpuTime]]) -> float | None:
    """Mean number of processors that something other than this process kept busy in spans of time, each given by its two ends.

    None where the system does not tell, or over too short a time in all.
    """
    seconds, others = 0.0, 0.0
    for since, until in spans:
        if since.machine is None or until.machine is None:
            return None
        seconds += until.at - since.at
        others += (until.machine - since.machine) - (until.own - since.own)
    return max(0.0, others / seconds) if seconds >= LEAST_SECONDS else None


def _machine_seconds(root: Path) -> float | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        text = (root / "proc/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    usable = os.sched_getaffinity(0)
    counted = [line[2].split() for line in re.finditer(r"^cpu(\d+) (.+)$", text, re.MULTILINE) if int(line[1]) in usable]
    if not counted:
        return None
    ticks = sum(int(count) for columns in counted for column, count in enumerate(columns) if column not in IDLE)
    return ticks / os.sysconf("SC_CLK_TCK")
