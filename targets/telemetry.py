"""Figures of what sensors told during a timing: power, energy, memory, clocks, temperatures. What none told is None."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from edge_latup.records import Record
from edge_latup.targets.nvml import throttled
from edge_latup.targets.rapl import joules
from edge_latup.targets.tegrastats import TegraSample, clocks_pinned, parse_line, power_mode, total_rails


class Telemetry(Record):
    """What the sensors of a machine told between the first and the last timed run; of the whole machine, other programs included."""

    sources: tuple[str, ...]
    """Of "tegrastats", "RAPL", "NVML"."""
    seconds: float
    """From the first timed run to the last."""
    samples: int
    """Of the source with the fewest."""
    mean_watts: float | None = None
    power_source: str | None = None
    """What was added up for it."""
    joules_per_inference: float | None = None
    """Mean power times median latency."""
    watts: dict[str, float] = {}
    """Mean of each rail, energy counter or GPU."""
    temperatures_c: dict[str, float] = {}
    """Highest of each sensor."""
    gpu_load_percent: float | None = None
    """Mean."""
    ram_used_bytes: int | None = None
    """Most that the whole machine used at once; the GPU's too where they share it."""
    gpu_memory_bytes: int | None = None
    """Most that all programs held on all GPUs at once."""
    clocks_mhz: dict[str, float] = {}
    """Means."""
    throttle_reasons: tuple[str, ...] = ()
    power_mode: str | None = None
    """Jetson: what nvpmodel names."""
    clocks_pinned: bool | None = None
    """Jetson: whether jetson_clocks holds CPU and GPU at one clock; None where it may not be asked."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Unix time of the first and the last timed run, and the median latency between."""

    begin: float
    end: float
    median_ms: float


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The lines of a sampler, but for one that was cut off."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [one for one in found if isinstance(one, dict) and "at" in one]


def summarise(samples: Sequence[Mapping[str, Any]], window: Window) -> Telemetry | None:
    """Figures of the samples within the window; None where no sensor told anything in it."""
    inside = [one for one in samples if window.begin <= one["at"] <= window.end]
    fixed = samples[0] if samples else {}
    parts = [part for part in (_tegra(inside), _rapl(inside, fixed.get("wraps_at") or {}), _nvml(inside)) if part]
    if not parts:
        return None
    # A Jetson's own rails hold everything; its GPU, where NVML tells of it too, is one of them.
    known = [part for part in parts if part.get("mean_watts") is not None]
    known = known[:1] if parts[0]["sources"] == ("tegrastats",) else known
    power = sum(part["mean_watts"] for part in known) if known else None
    return Telemetry.model_validate(
        _merged(parts)
        | {
            "sources": tuple(part["sources"][0] for part in parts),
            "samples": min(part["samples"] for part in parts),
            "seconds": window.end - window.begin,
            "mean_watts": power,
            "power_source": " + ".join(part["power_source"] for part in known) or None,
            "joules_per_inference": None if power is None else power * window.median_ms / 1000,
            "power_mode": power_mode(fixed.get("nvpmodel")),
            "clocks_pinned": clocks_pinned(fixed.get("jetson_clocks")),
        }
    )


def _merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Dictionaries joined; of single figures, the first source that told one."""
    merged: dict[str, Any] = {}
    for key, value in ((key, value) for part in parts for key, value in part.items()):
        if isinstance(value, dict):
            merged[key] = {**value, **merged.get(key, {})}
        elif merged.get(key) is None:
            merged[key] = value
    return merged


def _tegra(inside: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    lines = [parsed for one in inside if "tegrastats" in one and (parsed := parse_line(one["tegrastats"])) is not None]
    if not lines:
        return {}
    rails = {name: fmean(line.rails_watts[name] for line in lines if name in line.rails_watts) for name in lines[0].rails_watts}
    total = total_rails(rails)
    clock = _mean(line.gpu_clock_mhz for line in lines)
    return {
        "sources": ("tegrastats",),
        "samples": len(lines),
        "watts": rails,
        "mean_watts": sum(rails[name] for name in total) if total else None,
        "power_source": f"tegrastats {' + '.join(total)}",
        "temperatures_c": _highest_by_name(lines),
        "gpu_load_percent": _mean(line.gpu_load_percent for line in lines),
        "ram_used_bytes": _highest(line.ram_used_bytes for line in lines),
        "clocks_mhz": {} if clock is None else {"GPU": clock},
    }


def _highest_by_name(lines: Sequence[TegraSample]) -> dict[str, float]:
    highest: dict[str, float] = {}
    for line in lines:
        for name, value in line.temperatures_c.items():
            highest[name] = max(value, highest.get(name, value))
    return highest


def _rapl(inside: Iterable[Mapping[str, Any]], wraps_at: Mapping[str, int]) -> dict[str, Any]:
    """Mean power between the first and the last count of every domain that was read each time."""
    read = [one for one in inside if "rapl" in one]
    names = [name for name in wraps_at if all(one["rapl"].get(name) is not None for one in read)]
    if len(read) < 2 or not names:
        return {}
    seconds = read[-1]["at"] - read[0]["at"]
    watts = {name: joules([one["rapl"][name] for one in read], wraps_at[name]) / seconds for name in names}
    return {
        "sources": ("RAPL",), "samples": len(read), "watts": watts, "mean_watts": sum(watts.values()),
        "power_source": f"RAPL {' + '.join(names)}",
    }  # fmt: skip


def _nvml(inside: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    read: list[list[dict[str, Any]]] = [one["nvml"] for one in inside if one.get("nvml")]
    if not read:
        return {}
    watts = _each(read, "milliwatts", lambda values: fmean(values) / 1000)
    clocks = {
        f"{name} {kind}": mean
        for key, kind in (("sm_mhz", "SM"), ("memory_mhz", "memory"))
        for name, mean in _each(read, key, fmean).items()
    }
    return {
        "sources": ("NVML",),
        "samples": len(read),
        "watts": watts,
        "mean_watts": sum(watts.values()) if watts else None,
        "power_source": f"NVML {' + '.join(watts)}",
        "temperatures_c": _each(read, "temperature", max),
        "gpu_load_percent": _mean(gpu["load"] for gpus in read for gpu in gpus),
        "gpu_memory_bytes": _highest(
            sum(gpu["memory_used"] or 0 for gpu in gpus) for gpus in read if any(gpu["memory_used"] for gpu in gpus)
        ),
        "clocks_mhz": clocks,
        "throttle_reasons": throttled(gpu["throttle"] for gpus in read for gpu in gpus),
    }


def _each(read: Sequence[Sequence[Mapping[str, Any]]], key: str, figure: Callable[[list[float]], float]) -> dict[str, float]:
    """A figure of each GPU, called "GPU 0" and so on."""
    found = {}
    for index in range(len(read[0])):
        values = [float(gpus[index][key]) for gpus in read if index < len(gpus) and gpus[index][key] is not None]
        if values:
            found[f"GPU {index}"] = figure(values)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _highest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
