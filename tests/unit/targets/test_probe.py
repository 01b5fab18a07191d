"""A probed profile holds what was measured, says how, leaves out what ran otherwise, and loads back."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edge_latup.errors import MissingDependencyError
from edge_latup.targets import probe as module
from edge_latup.targets.bandwidth import Copy
from edge_latup.targets.describe import figure_rows
from edge_latup.targets.host import Host
from edge_latup.targets.host_state import HostState
from edge_latup.targets.probe import profile_of
from edge_latup.targets.profile import Profile, load_profile, write_profile
from edge_latup.targets.rates import Rate

HOST = Host(
    cpu="Intel(R) Core(TM) i5-12500 CPU @ 3.00GHz", architecture="x86_64", cores=6, isa=("AVX2", "AVX-VNNI"), memory_bytes=16 * 2**30,
    system="Linux 6.8", python="3.11.7", governor="performance",
)  # fmt: skip
STATE = HostState(system="Linux 6.8", python="3.11.7", governor="performance", temperatures_c={"x86_pkg_temp": 41.0}, load_average=0.1)
COPY = Copy(gb_s=40.123, buffer_bytes=128 * 2**20, threads=6, runs=10, beyond_cache=True)


def rate(precision: str, executed: str, gmacs: float = 100.0) -> Rate:
    return Rate(precision=precision, executed=executed, gmacs=gmacs, shape=(64, 64, 3, 48), threads=6)


def made(*rates: Rate, state: HostState = STATE, copy: Copy = COPY, quick: bool = False, host: Host = HOST) -> Profile:
    return profile_of(host, state, list(rates), copy, quick=quick)


def test_what_was_measured_is_told_with_how() -> None:
    found = made(rate("fp32", "f32"), rate("int8", "u8", 400.0))
    assert (found.name, found.isa, found.cores) == ("probed-intel-core-i5-12500-cpu-6", "native", 6)
    assert {precision: figure.value for precision, figure in found.gmacs.items()} == {"fp32": 100.0, "int8": 400.0}
    figures = [*found.gmacs.values(), found.bandwidth_gb_s, found.memory_gib]
    assert {figure.kind for figure in figures} == {"measured"}
    assert {figure.source for figure in figures} == {"edge-latup targets probe"}
    assert "64 to 64 channels, kernel 3, side 48" in found.gmacs["fp32"].note
    assert "6 threads" in found.gmacs["fp32"].note
    assert "128 MiB" in found.bandwidth_gb_s.note
    assert found.memory_gib.value == 16
    assert found.probed == STATE
    assert found.limits == ()
    assert [what for what, *_ in figure_rows(found)][:2] == ["reached in FP32", "reached in INT8"], "a measured rate is no peak"


def test_a_rate_that_ran_in_another_precision_is_left_out() -> None:
    assert set(made(rate("fp32", "f32"), rate("bf16", "f32", 999.0)).gmacs) == {"fp32"}
    assert made(rate("fp32", "f32", 5.0), rate("bf16", "f32", 999.0)).gmacs["fp32"].value == 5.0


def test_what_makes_a_figure_worth_less_is_said() -> None:
    told = " ".join(
        made(
            rate("fp32", "f32"), quick=True, state=STATE.model_copy(update={"governor": "unknown", "load_average": 3.04}),
            copy=Copy(gb_s=1, buffer_bytes=4096, threads=1, runs=3, beyond_cache=False),
        ).limits
    )  # fmt: skip
    for word in ("quick probe", "clock policy", "last-level cache", "load average 3.0"):
        assert word in told


@pytest.mark.parametrize(
    ("cpu", "slug"),
    [("AMD EPYC", "amd-epyc"), ("Intel(R) Xeon(R) w5-2455X", "intel-xeon-w5-2455x"), ("@ 3 GHz", "unknown"), ("", "unknown")],
)
def test_a_name_is_made_of_the_cpu(cpu: str, slug: str) -> None:
    assert made(rate("fp32", "f32"), host=HOST.model_copy(update={"cpu": cpu or "?"})).name == f"probed-{slug}-6"


def test_an_arm_host_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "describe_host", lambda: HOST.model_copy(update={"architecture": "aarch64"}))
    with pytest.raises(MissingDependencyError, match="this host is aarch64") as caught:
        module.probe()
    assert "edge-latup targets" in caught.value.hint


def test_without_openvino_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "openvino_precisions", lambda: ())
    monkeypatch.setattr(module, "copy_bandwidth", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(MissingDependencyError) as caught:
        module.probe()
    assert "'.[core]'" in caught.value.hint


@pytest.mark.skipif(platform.machine().lower() not in module.X86, reason="a probe measures x86-64 hosts only")
def test_this_host_is_really_measured(tmp_path: Path) -> None:
    found = module.probe(quick=True)
    write_profile(found, tmp_path / "here.toml")
    assert load_profile(str(tmp_path / "here.toml")) == found
    assert {figure.kind for figure in found.gmacs.values()} == {"measured"}
    assert "fp32" in found.gmacs
    assert found.bandwidth_gb_s.value > 0.1
    assert "openvino" in found.runtimes
    assert found.probed is not None
    assert found.probed.isa
