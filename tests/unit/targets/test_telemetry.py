"""Figures of sensors: RAPL from a made-up sysfs with a counter that wraps, NVML from a made-up library, windows, and nothing invented."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.bench.records import TimingRow
from edge_latup.targets import rapl, sampler
from edge_latup.targets.nvml import open_nvml, throttled
from edge_latup.targets.telemetry import Window, read_samples, summarise

ORIN = "RAM 1000/7620MB (lfb 1x4MB) CPU [1%@1] GR3D_FREQ {load}% gpu@50C tj@{tj}C VDD_IN {mw}mW/1mW VDD_SOC 500mW/1mW"


def counter(root: Path, folder: str, name: str, count: int, wraps_at: int = 1000) -> Path:
    (root / folder).mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", count), ("max_energy_range_uj", wraps_at)):
        (root / folder / file).write_text(f"{value}\n")
    return root / folder


def test_counters_that_add_up_are_found(tmp_path: Path) -> None:
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram"), ("intel-rapl:1", "psys")):
        counter(tmp_path, folder, name, 7)
    (counter(tmp_path, "intel-rapl:2", "package-1", 7) / "energy_uj").unlink()
    found = rapl.domains(tmp_path)
    assert [one.name for one in found] == ["package-0", "dram-0"]
    assert [rapl.read(one) for one in found] == [7, 7]
    found[0].counter.unlink()
    assert rapl.read(found[0]) is None
    assert rapl.domains(tmp_path / "none") == []


@given(st.integers(0, 999), st.lists(st.integers(0, 999), max_size=8))
def test_energy_goes_on_where_a_counter_wraps(start: int, steps: list[int]) -> None:
    counts = [start]
    for step in steps:
        counts.append((counts[-1] + step) % 1000)
    assert rapl.joules(counts, 1000) == pytest.approx(sum(steps) / 1e6)


def test_only_what_was_told_within_the_window_counts() -> None:
    lines = [(1.0, 99, 90, 9000), (2.0, 10, 51, 4000), (3.0, 30, 55, 6000), (9.0, 99, 90, 9000)]
    samples = [{"at": 0.0, "nvpmodel": "NV Power Mode: 15W\n0\n", "jetson_clocks": None, "wraps_at": {}}]
    samples += [{"at": at, "tegrastats": ORIN.format(load=load, tj=tj, mw=mw)} for at, load, tj, mw in lines]
    told = summarise(samples, Window(begin=1.5, end=3.5, median_ms=200))
    assert told is not None
    assert (told.mean_watts, told.power_source, told.samples, told.gpu_load_percent) == (5.0, "tegrastats VDD_IN", 2, 20)
    assert told.joules_per_inference == pytest.approx(1.0)
    assert (told.temperatures_c, told.power_mode, told.clocks_pinned) == ({"gpu": 50, "tj": 55}, "15W", None)
    assert summarise(samples, Window(begin=4, end=5, median_ms=1)) is None
    assert summarise([], Window(begin=4, end=5, median_ms=1)) is None


def gpu(**changes: Any) -> dict[str, Any]:
    none = dict.fromkeys(("milliwatts", "memory_used", "load", "temperature", "sm_mhz", "memory_mhz", "throttle"))
    return {"name": "GPU", **none, **changes}


def test_processor_and_graphics_card_are_added_and_named() -> None:
    samples: list[dict[str, Any]] = [{"at": 0.0, "wraps_at": {"package-0": 10_000_000}}]
    samples += [{"at": 1.0 + step, "rapl": {"package-0": (9_000_000 + 2_000_000 * step) % 10_000_000}} for step in range(3)]
    samples += [
        {"at": 1.5, "nvml": [gpu(milliwatts=30000, throttle=0x24, memory_used=5)]},
        {"at": 2.5, "nvml": [gpu(milliwatts=50000, throttle=1)]},
    ]
    told = summarise(samples, Window(begin=1, end=3, median_ms=500))
    assert told is not None
    assert told.watts == pytest.approx({"package-0": 2.0, "GPU 0": 40.0})
    assert (told.mean_watts, told.power_source) == (pytest.approx(42.0), "RAPL package-0 + NVML GPU 0")
    assert told.joules_per_inference == pytest.approx(21.0)
    assert told.throttle_reasons == ("software power cap", "software thermal slowdown")
    assert (told.gpu_memory_bytes, told.gpu_load_percent, told.clocks_mhz) == (5, None, {})


def test_one_count_is_no_power() -> None:
    samples = [{"at": 0.0, "wraps_at": {"package-0": 10}}, {"at": 1.0, "rapl": {"package-0": 1}}]
    assert summarise(samples, Window(begin=0, end=2, median_ms=1)) is None


def test_a_jetson_counts_its_gpu_once() -> None:
    samples: list[dict[str, Any]] = [
        {"at": 1.0, "tegrastats": ORIN.format(load=5, tj=40, mw=7000)},
        {"at": 1.0, "nvml": [gpu(milliwatts=3000)]},
    ]
    told = summarise(samples, Window(begin=0, end=2, median_ms=1000))
    assert told is not None
    assert (told.mean_watts, told.power_source, told.gpu_load_percent) == (7.0, "tegrastats VDD_IN", 5)


class FakeNvmlError(Exception):
    pass


def fake_nvml(**changes: Any) -> SimpleNamespace:
    def unsupported(device: object) -> None:
        raise FakeNvmlError

    known: dict[str, Any] = {
        "NVMLError": FakeNvmlError, "NVML_TEMPERATURE_GPU": 0, "NVML_CLOCK_SM": 1, "NVML_CLOCK_MEM": 2, "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1, "nvmlDeviceGetHandleByIndex": lambda index: index, "nvmlDeviceGetName": lambda device: b"RTX",
        "nvmlDeviceGetPowerUsage": lambda device: 120_000, "nvmlDeviceGetMemoryInfo": lambda device: SimpleNamespace(used=1 << 30),
        "nvmlDeviceGetUtilizationRates": lambda device: SimpleNamespace(gpu=97), "nvmlDeviceGetTemperature": lambda device, kind: 61,
        "nvmlDeviceGetClockInfo": lambda device, kind: {1: 1800, 2: 7000}[kind], "nvmlDeviceGetCurrentClocksThrottleReasons": unsupported,
    }  # fmt: skip
    return SimpleNamespace(**known | changes)


def test_a_graphics_card_is_read_as_far_as_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    found = open_nvml()
    assert found is not None
    assert found.sample() == [
        {
            "name": "RTX", "milliwatts": 120_000, "memory_used": 1 << 30, "load": 97, "temperature": 61, "sm_mhz": 1800, "memory_mhz": 7000,
            "throttle": None,
        }
    ]  # fmt: skip


def test_no_driver_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FakeNvmlError

    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=refuse))
    assert open_nvml() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() is None
    assert throttled([None, 0x1]) == ()


def test_every_asked_name_is_in_the_real_library() -> None:
    library = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert all(hasattr(library, name) for name in vars(fake_nvml()))


def test_the_sampler_passes_on_what_the_tools_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ORIN.format(load=5, tj=40, mw=7000)
    scripts = {
        "tegrastats": f"while :; do echo '{line}'; sleep 0.05; done",
        "nvpmodel": "echo 'NV Power Mode: MAXN'",
        "jetson_clocks": "exit 1",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ended = threading.Event()
    threading.Timer(0.5, ended.set).start()
    sampler.sample(tmp_path / "samples", 0.1, ended)
    first, *others = read_samples(tmp_path / "samples")
    assert (first["nvpmodel"], first["jetson_clocks"]) == ("NV Power Mode: MAXN\n", None)
    told = [one for one in others if "tegrastats" in one]
    assert len(told) > 1
    assert {one["tegrastats"] for one in told} == {line}


def test_rows_made_before_sensors_were_read_still_load() -> None:
    fields = {"telemetry", "timed_until"}
    assert all(not TimingRow.model_fields[name].is_required() for name in fields)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text('{"at": 1.0, "rapl": {}}\n[1]\n{"at": 2.0, "ra')
    assert read_samples(tmp_path / "samples") == [{"at": 1.0, "rapl": {}}]
