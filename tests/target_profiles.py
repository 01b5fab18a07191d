"""Small made-up target profiles and class rates, for tests of predictions."""

from __future__ import annotations

from typing import Any

from edge_latup.targets.class_rates import ClassRate, ClassRates
from edge_latup.targets.host import Host
from edge_latup.targets.profile import Figure, Profile

HOST = Host(
    cpu="Made-up CPU", architecture="x86_64", cores=2, isa=("AVX2",), memory_bytes=8 << 30, system="Linux", python="3.11", governor="none"
)  # fmt: skip


def figure(value: float) -> Figure:
    """A figure that nobody published."""
    return Figure(value=value, kind="published", source="made up for a test")


def x86(fp32: float = 100.0, int8: float | None = 400.0, bandwidth: float = 20.0, memory: float = 8.0, **changes: Any) -> Profile:
    """A CPU of two cores; rates in GMAC/s."""
    gmacs = {"fp32": figure(fp32)} | ({"int8": figure(int8)} if int8 is not None else {})
    fields: dict[str, Any] = {
        "name": "made-up", "title": "made-up CPU", "kind": "x86", "processor": "none", "architecture": "x86-64", "isa": "avx2", "cores": 2,
        "gmacs": gmacs, "bandwidth_gb_s": figure(bandwidth), "memory_gib": figure(memory), "unified_memory": False,
        "runtimes": ("openvino",),
    }  # fmt: skip
    return Profile.model_validate(fields | changes)


def gpu(fp32: float = 1000.0, **changes: Any) -> Profile:
    """A board whose memory the GPU shares with the system."""
    fields: dict[str, Any] = {
        "kind": "jetson", "architecture": "aarch64", "isa": None, "compute_capability": "8.7", "unified_memory": True,
        "runtimes": ("tensorrt",),
    }  # fmt: skip
    return x86(fp32, **(fields | changes))


def rate(kind: str, precision: str = "fp32", **changes: Any) -> ClassRate:
    """One measured operation: 10^9 MACs, or 10^6 bytes, in a millisecond, unless changed."""
    fields: dict[str, Any] = {
        "kind": kind, "precision": precision, "kernel": 3, "channels": (32, 32), "voxels": 4096, "macs": 0, "bytes_moved": 10**6,
        "implementation": "made_up", "microseconds": (1000.0, 1000.0, 1000.0),
    }  # fmt: skip
    if kind == "convolution":
        fields["macs"] = 10**8
    return ClassRate.model_validate(fields | changes)


def class_rates(*rates: ClassRate, **changes: Any) -> ClassRates:
    """Of the made-up host; a convolution and a norm in FP32 and INT8 unless others are given."""
    own = rates or (rate("convolution"), rate("norm"), rate("convolution", "int8", microseconds=(250.0,)), rate("norm", "int8"))
    fields: dict[str, Any] = {
        "isa": "avx2", "emulated": True, "threads": 2, "host": HOST, "runtime_version": "1", "started": "2026-01-01T00:00:00+00:00",
        "load_average": 0.0, "bandwidth_gb_s": 20.0, "cached_bytes": 0, "rates": own,
    }  # fmt: skip
    return ClassRates.model_validate(fields | changes)
