"""What a measurement says about its machine: read from /proc, and told as unknown where the system does not say."""

from __future__ import annotations

import platform

import pytest

from edge_latup.runtimes.base import usable_cores
from edge_latup.targets import host
from edge_latup.targets.host import Host, describe_host, load_average

XEON = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
JETSON = """\
processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes asimdhp asimddp
CPU implementer\t: 0x41
"""
MEMINFO = "MemTotal:       16384000 kB\nMemFree:         1000000 kB\n"
GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"


def seen(monkeypatch: pytest.MonkeyPatch, **files: str) -> Host:
    """The host as described by these files; any other is unreadable."""
    named = {f"/proc/{name}": text for name, text in files.items() if name != "governor"} | {GOVERNOR: files.get("governor", "")}
    monkeypatch.setattr(host, "_read", lambda path: named.get(path, ""))
    return describe_host()


def test_this_machine_is_described() -> None:
    here = describe_host()
    assert here.cpu
    assert here.architecture == platform.machine()
    assert here.cores == usable_cores()
    assert here.memory_bytes > 2**28
    assert here.system.startswith(platform.system())
    assert here.python == platform.python_version()
    assert here.cpu in here.summary
    assert Host.model_validate_json(here.model_dump_json()) == here


def test_a_xeon_with_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, cpuinfo=XEON, meminfo=MEMINFO, governor="performance\n")
    assert found.cpu == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert found.isa == ("AVX2", "AVX-512", "AVX-512-VNNI", "AVX-512-BF16", "AMX-BF16", "AMX-INT8")
    assert found.memory_bytes == 16384000 * 1024
    assert found.governor == "performance"
    assert "(AVX2, AVX-512, AVX-512-VNNI, AVX-512-BF16, AMX-BF16, AMX-INT8), 16 GiB, " in found.summary


def test_an_arm_board_without_a_model_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    found = seen(monkeypatch, cpuinfo=JETSON, meminfo=MEMINFO)
    assert (found.cpu, found.architecture, found.isa) == ("aarch64", "aarch64", ("NEON-DOTPROD",))


def test_a_flag_that_only_begins_like_another_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, cpuinfo="flags : avx512_vnni_x avx2x xavx2").isa == ()


def test_what_the_system_does_not_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch)
    assert found.cpu
    assert found.governor == "unknown"
    assert found.memory_bytes > 2**28, "from sysconf"
    assert "no vector extensions known" in found.summary


def test_unreadable_files_are_empty() -> None:
    assert host._read("/no/such/file") == ""
    assert host._read("/proc") == ""


def test_the_load_average_is_minus_one_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[float, float, float]:
        raise OSError

    assert load_average() >= 0
    monkeypatch.setattr("os.getloadavg", refuse)
    assert load_average() == -1
    monkeypatch.delattr("os.getloadavg")
    assert load_average() == -1
