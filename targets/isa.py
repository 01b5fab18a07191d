"""Instruction sets: which of them OpenVINO can be held to on this host, and reading back which its kernels were built for.

Two variables hold OpenVINO's CPU plugin to an instruction set: ONEDNN_MAX_CPU_ISA (oneDNN's primitives and most of the plugin's own
kernels) and OV_CPU_MAX_ISA (the rest). Both are read once, when the first kernel is looked for, so they must stand in the environment
of a process before it imports the runtime; a value that is not known counts as no limit, so neither is believed. What was executed is
read from the runtime model (names such as jit_avx2) and from the list of primitives that oneDNN writes while it makes them, which
knows VNNI from its absence. Sources: OpenVINO, src/plugins/intel_cpu/docs/debug_capabilities (Max ISA cap); oneDNN, CPU Dispatcher
Control and Verbose Mode.

Kernels are those of the emulated set; clock, caches and memory stay this machine's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from edge_latup.errors import MissingDependencyError
from edge_latup.manifest import RuntimeName
from edge_latup.records import Record

IsaName = Literal["native", "avx2", "avx2-vnni", "avx512", "avx512-vnni"]
NATIVE: Final[IsaName] = "native"
LIMITS: Final = ("ONEDNN_MAX_CPU_ISA", "OV_CPU_MAX_ISA")
VERBOSE: Final = "ONEDNN_VERBOSE"
VARIABLES: Final = (*LIMITS, VERBOSE, "DNNL_MAX_CPU_ISA", "DNNL_VERBOSE")
"""Never inherited by a measuring process: a limit left over in a shell would make its rows "native" in name only."""
LOG: Final = "onednn_verbose,"
EMULATING: Final[tuple[RuntimeName, ...]] = ("openvino",)
"""The runtimes that keep to an instruction set and tell what they executed."""
NOT_EMULATED: Final[dict[RuntimeName, str]] = {
    "onnxruntime": "ONNX Runtime chooses its kernels (MLAS) by the CPU alone and reads neither ONEDNN_MAX_CPU_ISA nor OV_CPU_MAX_ISA",
    "pytorch": "PyTorch holds only its oneDNN calls to ONEDNN_MAX_CPU_ISA, and does not tell which kernels it executed",
}
"""Why others cannot be held to an instruction set."""


@dataclass(frozen=True, kw_only=True)
class IsaLevel:
    """One instruction set that OpenVINO can be held to.

    value: of both variables. told: how oneDNN words the limit it found. flags: Linux CPU flags of a host that can execute it.
    permits: what oneDNN calls the sets of kernels below it; VEX-encoded VNNI is a branch of its own, so AVX-512 does not include it.
    """

    title: str
    value: str
    told: str
    flags: tuple[str, ...]
    permits: tuple[str, ...]


_AVX2: Final = ("sse41", "avx", "avx2")
_AVX512_FLAGS: Final = ("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq")
LEVELS: Final[dict[IsaName, IsaLevel]] = {
    "avx2": IsaLevel(title="AVX2", value="AVX2", told="Intel AVX2", flags=("avx2", "fma"), permits=_AVX2),
    "avx2-vnni": IsaLevel(
        title="AVX2-VNNI", value="AVX2_VNNI", told="Intel AVX2 with Intel DL Boost", flags=("avx2", "fma", "avx_vnni"),
        permits=(*_AVX2, "avx2_vnni"),
    ),
    "avx512": IsaLevel(
        title="AVX-512", value="AVX512_CORE", told="Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions",
        flags=_AVX512_FLAGS, permits=(*_AVX2, "avx512_core"),
    ),
    "avx512-vnni": IsaLevel(
        title="AVX-512-VNNI", value="AVX512_CORE_VNNI", told="Intel AVX-512 with Intel DL Boost", flags=(*_AVX512_FLAGS, "avx512_vnni"),
        permits=(*_AVX2, "avx512_core", "avx512_core_vnni"),
    ),
}  # fmt: skip
"""The emulated ones; "native" is no level: it is whatever the host has."""
_SET: Final = re.compile(r"(?:sse4|avx)\w*")
_BLIND: Final = "mlas"
"""OpenVINO's FP32 matrix product from MLAS, which obeys no variable."""


class Dispatch(Record):
    """What oneDNN told of itself in one process."""

    limit: str
    """The highest instruction set it would use, in its own words; empty where it told nothing."""
    primitives: dict[str, int]
    """Primitives it made, by the instruction set in their name; "any" where the name holds none."""


def title(isa: IsaName) -> str:
    """How people read it: "native", "emulated AVX2"."""
    return NATIVE if isa == NATIVE else f"emulated {LEVELS[isa].title}"


def environment(isa: IsaName) -> dict[str, str]:
    """Variables for a process that measures OpenVINO; the list of primitives is written while they are made, not while they run."""
    limits = {} if isa == NATIVE else dict.fromkeys(LIMITS, LEVELS[isa].value)
    return limits | {VERBOSE: "profile_create"}


def refusal(isa: IsaName, runtime: RuntimeName, flags: frozenset[str]) -> str | None:
    """Why a runtime cannot be held to an instruction set on a host with these CPU flags; None where it can."""
    if isa == NATIVE:
        return None
    if runtime not in EMULATING:
        reason = NOT_EMULATED.get(runtime, f"{runtime} is not known to keep to one")
        return f"{LEVELS[isa].title} cannot be emulated: {reason}"
    if missing := [flag for flag in LEVELS[isa].flags if flag not in flags]:
        return f"{LEVELS[isa].title} cannot be emulated: this CPU lacks {', '.join(missing)}, and nothing above it can be made up"
    return None


def read_dispatch(lines: Iterable[str]) -> Dispatch:
    """What oneDNN wrote: `onednn_verbose,v1,info,cpu,isa:LIMIT` and `...,primitive,create:...,engine,KIND,IMPLEMENTATION,...`."""
    limit, made = "", Counter[str]()
    for line in (line for line in lines if line.startswith(LOG)):
        if ",info,cpu,isa:" in line:
            limit = line.partition(",isa:")[2]
        elif ",primitive,create" in line:
            found = _SET.search(line.split(",")[6]) if line.count(",") > 6 else None
            made[found[0] if found else "any"] += 1
    return Dispatch(limit=limit, primitives=dict(made))


def check_dispatch(isa: IsaName, dispatch: Dispatch, implementations: Mapping[str, int]) -> None:
    """Refuse the name of an instruction set to a process that went beyond it, or of which nothing is known.

    Args:
        isa: what the process was held to; nothing is checked for "native".
        dispatch: what oneDNN told.
        implementations: kernels by name, as the runtime model names them.

    Raises:
        MissingDependencyError: a kernel of a higher set was made or executed, or the limit was not taken.
    """
    if isa == NATIVE:
        return
    level = LEVELS[isa]
    if dispatch.limit != level.told:
        told = f"says that its limit is {dispatch.limit!r}" if dispatch.limit else "does not say what its limit is"
        raise MissingDependencyError(f"held to {level.title}, oneDNN {told}, not {level.told!r}", "this OpenVINO cannot emulate it here")
    if above := [*_above(level, dispatch), *_executed_above(level, implementations)]:
        raise MissingDependencyError(f"held to {level.title}, OpenVINO executed kernels that are not of it: {', '.join(above)}")


def _above(level: IsaLevel, dispatch: Dispatch) -> Iterator[str]:
    for found, number in dispatch.primitives.items():
        if found != "any" and found not in level.permits:
            yield f"{number} primitives for {found}"


def _executed_above(level: IsaLevel, implementations: Mapping[str, int]) -> Iterator[str]:
    """The runtime model names registers (avx2, avx512) and AMX, not VNNI."""
    permitted = {name.partition("_")[0] for name in level.permits} | {"sse42"}
    for name, number in implementations.items():
        parts = name.lower().split("_")
        sets = [part for part in parts if part in ("amx", _BLIND) or _SET.fullmatch(part)]
        if any(part not in permitted for part in sets):
            yield f"{number} x {name}"
