"""Lines of NVIDIA's tegrastats, of JetPack 4 to 7: memory, GPU load, temperatures and power rails.

Source of the fields: NVIDIA Jetson Linux Developer Guide, "tegrastats Utility". What the lines of the generations differ in: a date in
front (from JetPack 5), power with or without its unit (mW either way), one to three values a rail (now, mean, highest), clocks in
brackets where the GPU has several clusters, and no GR3D_FREQ on Thor. The first value of a rail is read: the tool's own mean goes back to
its start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

RAM: Final = re.compile(r"(?<!\S)RAM (\d+)/(\d+)MB")
GPU_LOAD: Final = re.compile(r"(?<!\S)GR3D_FREQ (\d+)%(?:@\[?(\d+))?")
TEMPERATURE: Final = re.compile(r"(?<!\S)([A-Za-z][A-Za-z0-9_]*)@(-?\d+(?:\.\d+)?)C(?:/-?\d+(?:\.\d+)?C)?(?!\S)")
RAIL: Final = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (-?\d+)(?:mW)?/-?\d+(?:mW)?(?:/-?\d+(?:mW)?)?(?!\S)")
MIB: Final = 1 << 20
OFF_C: Final = -40.0
"""Sensors of a part that is switched off read -256."""
PLACEHOLDER: Final = ("PMIC", 100.0)
"""What boards of JetPack 4 print for a sensor that they do not read."""
INPUT_RAILS: Final = ("VDD_IN", "POM_5V_IN", "VIN")
"""Each measures all that goes in: the module (VDD_IN), Nano's 5 V input, Thor's input."""
SUMMED_RAILS: Final = (
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
)
"""Boards without such a rail, whose rails add up: AGX Xavier, AGX Orin (VDDQ_VDD2_1V8AO hangs on the 5 V rail), Thor without VIN."""


@dataclass(frozen=True, kw_only=True)
class TegraSample:
    """What one line tells; what it does not tell is None or absent."""

    ram_used_bytes: int | None = None
    ram_total_bytes: int | None = None
    gpu_load_percent: float | None = None
    gpu_clock_mhz: float | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    rails_watts: dict[str, float] = field(default_factory=dict)


def parse_line(line: str) -> TegraSample | None:
    """One line of tegrastats; None where it is not one."""
    ram = RAM.search(line)
    if ram is None:
        return None
    load = GPU_LOAD.search(line)
    sensors = {name: float(value) for name, value in TEMPERATURE.findall(line)}
    return TegraSample(
        ram_used_bytes=int(ram[1]) * MIB,
        ram_total_bytes=int(ram[2]) * MIB,
        gpu_load_percent=float(load[1]) if load else None,
        gpu_clock_mhz=float(load[2]) if load and load[2] else None,
        temperatures_c={name: value for name, value in sensors.items() if value > OFF_C and (name, value) != PLACEHOLDER},
        rails_watts={name: int(milliwatts) / 1000 for name, milliwatts in RAIL.findall(line)},
    )


def total_rails(rails: dict[str, float]) -> tuple[str, ...]:
    """The rails whose sum is the board's or module's power; empty where no such set is known."""
    for name in INPUT_RAILS:
        if name in rails:
            return (name,)
    return next((names for names in SUMMED_RAILS if set(names) <= set(rails)), ())


def power_mode(text: str | None) -> str | None:
    """The mode that `nvpmodel -q` names."""
    found = re.search(r"NV Power Mode:\s*(\S.*)", text or "")
    return found[1].strip() if found else None


def clocks_pinned(text: str | None) -> bool | None:
    """Whether `jetson_clocks --show` tells CPU and GPU clocks to be fixed (lowest equal to highest); None where it tells no clock."""
    found = re.findall(r"^\s*(?:cpu\d+|GPU).*?MinFreq=(\d+)\s+MaxFreq=(\d+)", text or "", re.MULTILINE)
    return all(lowest == highest for lowest, highest in found) if found else None
