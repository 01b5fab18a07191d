"""Energy counters of x86 processors (RAPL), as Linux shows them under /sys/class/powercap. Since 2020 mostly readable by root alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Final

POWERCAP: Final = Path("/sys/class/powercap")
COUNTED: Final = ("package", "dram")
"""Domains that add up: core and uncore are parts of their package, psys holds everything."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One counter: microjoules that start again from 0 after `wraps_at`."""

    name: str
    counter: Path
    wraps_at: int


def domains(powercap: Path = POWERCAP) -> list[Domain]:
    """The counters that can be read here and add up; empty where there are none or they are not ours to read."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text(encoding="ascii").strip()
            wraps_at = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
            int((folder / "energy_uj").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if name.startswith(COUNTED):
            found.append(Domain(name=_unique(name, folder), counter=folder / "energy_uj", wraps_at=wraps_at))
    return found


def _unique(name: str, folder: Path) -> str:
    """Every package has a "dram" of its own: intel-rapl:1:0 belongs to package 1."""
    return name if name.startswith("package") else f"{name}-{folder.name.split(':')[1]}"


def read(domain: Domain) -> int | None:
    """Microjoules so far; None where it cannot be read any more."""
    try:
        return int(domain.counter.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def joules(counts: list[int], wraps_at: int) -> float:
    """Energy between the first and the last of successive counts, none of them further than one wrap from the one before."""
    steps = (after - before for before, after in itertools.pairwise(counts))
    return sum(step if step >= 0 else step + wraps_at for step in steps) / 1e6
