"""What /sys tells of a host, read from trees made by hand; what it does not tell stays unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_latup.targets import host_state
from edge_latup.targets.host_state import Cache, HostState, energy_counters, read_caches, read_state


def plant(root: Path, **files: str) -> None:
    """Files under /sys, "/" in their names written as "__"."""
    for name, text in files.items():
        path = root / "sys" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def cache(number: int, level: int, kind: str, size: str, shared: str) -> dict[str, str]:
    folder = f"devices__system__cpu__cpu0__cache__index{number}"
    return {f"{folder}__level": f"{level}\n", f"{folder}__type": kind, f"{folder}__size": size, f"{folder}__shared_cpu_list": shared}


def seen(root: Path) -> HostState:
    return read_state(root, isa=("AVX2",), system="Linux 6", python="3.11", governor="performance")


def test_caches_of_a_xeon(tmp_path: Path) -> None:
    plant(
        tmp_path, **cache(0, 1, "Data", "48K", "0,28"), **cache(1, 1, "Instruction", "32K", "0,28"), **cache(2, 2, "Unified", "1280K", "0"),
        **cache(3, 3, "Unified", "42M", "0-27,28-55"),
    )  # fmt: skip
    assert list(read_caches(tmp_path)) == [
        Cache(level=1, kind="Data", kib=48, shared_by=2), Cache(level=1, kind="Instruction", kib=32, shared_by=2),
        Cache(level=2, kind="Unified", kib=1280, shared_by=1), Cache(level=3, kind="Unified", kib=43008, shared_by=56),
    ]  # fmt: skip
    assert seen(tmp_path).last_level_bytes == 42 * 2**20


def test_the_tenth_cache_comes_after_the_second(tmp_path: Path) -> None:
    plant(tmp_path, **cache(10, 4, "Unified", "1G", "0"), **cache(2, 2, "Unified", "1M", "0"))
    assert [found.level for found in read_caches(tmp_path)] == [2, 4]


def test_a_cache_without_a_size_is_left_out(tmp_path: Path) -> None:
    plant(tmp_path, **cache(0, 1, "Data", "", "0"), **cache(1, 1, "Data", "plenty", "0"))
    assert list(read_caches(tmp_path)) == []
    assert seen(tmp_path).last_level_bytes == 0


def test_an_instruction_cache_is_no_data_cache(tmp_path: Path) -> None:
    plant(tmp_path, **cache(0, 1, "Instruction", "64K", "0"))
    assert seen(tmp_path).last_level_bytes == 0


def test_clock_and_temperatures(tmp_path: Path) -> None:
    plant(
        tmp_path, devices__system__cpu__cpu0__cpufreq__cpuinfo_max_freq="4600000\n", class__thermal__thermal_zone0__type="x86_pkg_temp\n",
        class__thermal__thermal_zone0__temp="47500\n", class__thermal__thermal_zone1__type="off", class__thermal__thermal_zone1__temp="",
        class__thermal__thermal_zone2__type="broken", class__thermal__thermal_zone2__temp="-274000",
        class__thermal__thermal_zone3__temp="-5000",
    )  # fmt: skip
    state = seen(tmp_path)
    assert state.clock_mhz == 4600
    assert state.temperatures_c == {"x86_pkg_temp": 47.5, "thermal_zone3": -5.0}


def test_an_empty_tree_tells_nothing(tmp_path: Path) -> None:
    state = seen(tmp_path)
    assert (state.caches, state.clock_mhz, state.temperatures_c, state.energy_counters) == ((), None, {}, "absent")
    assert (state.isa, state.system, state.python, state.governor) == (("AVX2",), "Linux 6", "3.11", "performance")
    assert HostState.model_validate_json(state.model_dump_json()) == state


def test_energy_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert energy_counters(tmp_path) == "absent"
    plant(tmp_path, **{"class__powercap__intel-rapl:0__energy_uj": "123456\n"})
    assert energy_counters(tmp_path) == "readable"
    monkeypatch.setattr(host_state.os, "access", lambda path, mode: False)
    assert energy_counters(tmp_path) == "not readable"


@pytest.mark.parametrize(("told", "count"), [("0", 1), ("0-3", 4), ("0-3,8-11", 8), ("", 1), ("all", 1), ("2,4", 2)])
def test_cpu_lists_are_counted(told: str, count: int) -> None:
    assert host_state._count(told) == count


def test_this_host(tmp_path: Path) -> None:
    state = seen(Path("/"))
    assert all(-40 <= degrees <= 150 for degrees in state.temperatures_c.values())
    assert all(found.kib > 0 and found.shared_by >= 1 for found in state.caches)
