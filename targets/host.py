"""What this host is: the part of a measurement that a figure means nothing without."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Final

from edge_latup.records import Record
from edge_latup.runtimes.base import usable_cores

AMX: Final = "AMX-INT8"
ISA_FLAGS: Final[dict[str, str]] = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512-VNNI",
    "avx512_bf16": "AVX-512-BF16",
    "amx_bf16": "AMX-BF16",
    "amx_int8": AMX,
    "asimddp": "NEON-DOTPROD",
}
"""Linux CPU flags that decide which low-precision kernels exist, and their usual names."""


class Host(Record):
    """One machine as seen by a measuring process."""

    cpu: str
    architecture: str
    cores: int
    """Cores this process may use."""
    isa: tuple[str, ...]
    memory_bytes: int
    system: str
    python: str
    governor: str
    """Frequency governor, "unknown" where the system does not say (virtual machines mostly do not)."""

    @property
    def summary(self) -> str:
        """One line for tables and reports."""
        isa = ", ".join(self.isa) or "no vector extensions known"
        return f"{self.cpu}, {self.cores} cores ({isa}), {self.memory_bytes / 2**30:.0f} GiB, {self.system}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _memory_bytes() -> int:
    found = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    if found:
        return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def cpu_flags() -> frozenset[str]:
    """What Linux calls the CPU's features; empty where the system does not tell."""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return frozenset(flags[1].split()) if flags else frozenset()


def describe_host() -> Host:
    """Describe the machine this process runs on; reads only /proc, /sys and the standard library."""
    model = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    present = cpu_flags()
    return Host(
        cpu=model[1].strip() if model else platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=usable_cores(),
        isa=tuple(name for flag, name in ISA_FLAGS.items() if flag in present),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "unknown",
    )


def load_average() -> float:
    """Mean number of running processes over the last minute; -1 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return -1.0
