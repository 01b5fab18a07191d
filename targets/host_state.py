"""What this host was like while it was measured, as far as Linux tells: caches, clock policy, temperatures, energy counters.

Sources: the kernel's documentation of /sys/devices/system/cpu, /sys/class/thermal and /sys/class/powercap.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from edge_latup.records import Record
from edge_latup.targets.host import load_average

UNKNOWN: Final = "unknown"
Counters = Literal["readable", "not readable", "absent"]
UNITS: Final = {"K": 1, "M": 1024, "G": 1024 * 1024}
CPU: Final = "sys/devices/system/cpu"
THERMAL: Final = "sys/class/thermal"
POWERCAP: Final = "sys/class/powercap"


class Cache(Record):
    """One cache of the first CPU. shared_by: how many logical CPUs share it."""

    level: int
    kind: str
    """As Linux words it: "Data", "Instruction" or "Unified"."""
    kib: int
    shared_by: int


class HostState(Record):
    """What a figure measured on a host means nothing without, beyond what the host is."""

    isa: tuple[str, ...] = ()
    system: str
    python: str
    caches: tuple[Cache, ...] = ()
    governor: str = UNKNOWN
    clock_mhz: float | None = None
    """The highest clock that the system admits to; None where it tells none (virtual machines mostly do not)."""
    temperatures_c: dict[str, float] = {}
    """By thermal zone, before the measurement; empty where none is readable."""
    energy_counters: Counters = "absent"
    """RAPL: "not readable" is for root only, as kernels since 5.10 have it."""
    load_average: float = -1.0
    """Over the last minute before the measurement; -1 where the system does not tell."""

    @property
    def last_level_bytes(self) -> int:
        """Size of the largest data cache; 0 where it is not known."""
        return max((cache.kib * 1024 for cache in self.caches if cache.kind != "Instruction"), default=0)


def read_state(root: Path, *, isa: tuple[str, ...], system: str, python: str, governor: str) -> HostState:
    """Read /sys under `root`; what is missing or unreadable is left out or called unknown."""
    return HostState(
        isa=isa, system=system, python=python, governor=governor,
        caches=tuple(read_caches(root)), clock_mhz=_clock_mhz(root), temperatures_c=dict(_temperatures(root)),
        energy_counters=energy_counters(root), load_average=load_average(),
    )  # fmt: skip


def text_of(path: Path) -> str:
    """What a file of /sys or /proc says, stripped; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def read_caches(root: Path) -> Iterator[Cache]:
    """The caches of CPU 0, first level first."""
    for folder in sorted((root / CPU / "cpu0" / "cache").glob("index[0-9]*"), key=lambda found: int(found.name[5:])):
        size = re.fullmatch(r"(\d+)([KMG])", text_of(folder / "size"))
        level = text_of(folder / "level")
        if size and level.isdigit():
            shared = _count(text_of(folder / "shared_cpu_list"))
            yield Cache(level=int(level), kind=text_of(folder / "type"), kib=int(size[1]) * UNITS[size[2]], shared_by=shared)


def _count(cpus: str) -> int:
    """How many CPUs a list such as "0-3,8-11" names; 1 where it names none."""
    ranges = [part.split("-") for part in cpus.split(",") if re.fullmatch(r"\d+(-\d+)?", part)]
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges) or 1


def _clock_mhz(root: Path) -> float | None:
    told = text_of(root / CPU / "cpu0" / "cpufreq" / "cpuinfo_max_freq")
    return int(told) / 1000 if told.isdigit() else None


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    """Zone and degrees Celsius; the files hold thousandths. A zone that is off reads as an error or as absurd cold."""
    for zone in sorted((root / THERMAL).glob("thermal_zone[0-9]*"), key=lambda found: int(found.name[12:])):
        told = text_of(zone / "temp")
        if re.fullmatch(r"-?\d+", told) and -40_000 <= int(told) <= 150_000:
            yield text_of(zone / "type") or zone.name, int(told) / 1000


def energy_counters(root: Path) -> Counters:
    """Whether this process may read RAPL's energy counters."""
    files = list((root / POWERCAP).glob("intel-rapl:*/energy_uj"))
    if not files:
        return "absent"
    return "readable" if any(os.access(path, os.R_OK) and text_of(path).isdigit() for path in files) else "not readable"
