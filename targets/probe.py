"""A profile of this host, its rates measured: what `edge-latup targets probe` writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edge_latup.errors import MissingDependencyError, install_hint
from edge_latup.manifest import Precision, RuntimeName
from edge_latup.runtimes.base import installed
from edge_latup.targets.bandwidth import QUICK_RUNS, RUNS, Copy, copy_bandwidth
from edge_latup.targets.diagnosis import openvino_precisions
from edge_latup.targets.host import Host, describe_host
from edge_latup.targets.host_state import UNKNOWN, HostState, read_state
from edge_latup.targets.profile import Figure, Profile
from edge_latup.targets.rates import Rate, Shape, convolution_rates
from edge_latup.versions import version_of

COMMAND: Final = "edge-latup targets probe"
X86: Final = ("x86_64", "amd64")
EXECUTED: Final[dict[str, Precision]] = {"f32": "fp32", "bf16": "bf16", "i8": "int8", "u8": "int8"}
"""What OpenVINO says it computed in, as this toolkit names precisions."""
MODULES: Final[dict[RuntimeName, str]] = {"openvino": "openvino", "onnxruntime": "onnxruntime", "pytorch": "torch"}
QUICK_SHAPES: Final[tuple[Shape, ...]] = ((64, 64, 3, 24),)


def probe(*, quick: bool = False, root: Path = Path("/")) -> Profile:
    """Measure this host: seconds, on an idle machine; a busy one gives lower figures, and the profile states its load.

    Args:
        quick: one small convolution and three copies only, for a first look.
        root: where /sys is read from.

    Raises:
        MissingDependencyError: not an x86-64 host, or OpenVINO, which measures the rates, is missing.
    """
    host = describe_host()
    if host.architecture.lower() not in X86:
        raise MissingDependencyError(
            f"{COMMAND} measures x86-64 CPUs, and this host is {host.architecture}",
            "edge-latup targets names the boards whose profiles come with edge-latup",
        )
    precisions: tuple[str, ...] = tuple(name for name in openvino_precisions() if name != "fp16")
    if not precisions:
        raise MissingDependencyError("rates are measured with OpenVINO, which is missing", install_hint("core"))
    state = read_state(root, isa=host.isa, system=host.system, python=host.python, governor=host.governor)
    copy = copy_bandwidth(state.last_level_bytes, host.memory_bytes, host.cores, runs=QUICK_RUNS if quick else RUNS)
    rates = convolution_rates(precisions, shapes=QUICK_SHAPES if quick else ())
    return profile_of(host, state, rates, copy, quick=quick)


def profile_of(host: Host, state: HostState, rates: list[Rate], copy: Copy, *, quick: bool) -> Profile:
    """What was measured, as a profile; a rate that was executed in another precision than was asked for is left out."""
    return Profile(
        name=f"probed-{_slug(host.cpu)}-{host.cores}", title=f"{host.cpu}, {host.cores} cores, probed", kind="x86",
        processor=host.cpu, architecture="x86-64", isa="native", cores=host.cores, unified_memory=False,
        gmacs={EXECUTED[rate.executed]: _rate(rate, quick) for rate in rates if EXECUTED.get(rate.executed) == rate.precision},
        bandwidth_gb_s=_bandwidth(copy),
        memory_gib=Figure(value=round(host.memory_bytes / 2**30, 2), kind="measured", source=COMMAND, note="All that the system has."),
        runtimes=tuple(name for name, module in MODULES.items() if installed(module)),
        limits=tuple(_limits(state, copy, quick)), probed=state,
    )  # fmt: skip


def _rate(rate: Rate, quick: bool) -> Figure:
    channels, out, kernel, side = rate.shape
    best = "" if quick else ", the best of several shapes"
    note = (
        f"A convolution of {channels} to {out} channels, kernel {kernel}, side {side}{best}: median of {rate.runs} runs on "
        f"{rate.threads} threads, OpenVINO {version_of('openvino')}."
    )
    return Figure(value=round(rate.gmacs, 1), kind="measured", source=COMMAND, note=note)


def _bandwidth(copy: Copy) -> Figure:
    note = (
        f"Copy of {copy.buffer_bytes / 2**20:.0f} MiB with NumPy {version_of('numpy')} on {copy.threads} threads, bytes read and "
        f"written, best of {copy.runs} runs."
    )
    return Figure(value=round(copy.gb_s, 2), kind="measured", source=COMMAND, note=note)


def _limits(state: HostState, copy: Copy, quick: bool) -> list[str]:
    """What makes the figures worth less than they look."""
    told = []
    if quick:
        told.append("A quick probe: one small convolution and few runs; probe again without --quick before relying on it.")
    if state.governor == UNKNOWN:
        told.append("The system does not tell its clock policy: figures may change from run to run.")
    if not copy.beyond_cache:
        told.append("The last-level cache is not known or too large for the memory: the copy may have run in it.")
    if state.load_average >= 1:
        told.append(f"The machine was busy (load average {state.load_average:.1f}): what it reaches when idle is higher.")
    return told


def _slug(cpu: str) -> str:
    """A CPU's name as a profile's name has it: small letters, digits and single hyphens."""
    plain = re.sub(r"\((r|tm)\)", " ", cpu.lower()).partition("@")[0]
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or UNKNOWN
