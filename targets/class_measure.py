"""Measure `class_rates` of this host: each instruction set in a process of its own, since a limit is read once a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.manifest import Precision
from edge_latup.records import read_record, write_record
from edge_latup.runtimes.audit import precision_name
from edge_latup.runtimes.base import usable_cores
from edge_latup.runtimes.openvino import import_openvino, openvino_core
from edge_latup.runtimes.openvino_audit import computing, kernel_precision
from edge_latup.targets.class_graphs import BLOCKS, CONVOLUTIONS, TRANSPOSED, Probe, Watched, block_probe, convolution_probe
from edge_latup.targets.class_rates import ClassRate, ClassRates
from edge_latup.targets.host import cpu_flags, describe_host, load_average
from edge_latup.targets.isa import NATIVE, VARIABLES, IsaName, check_dispatch, environment, read_dispatch, refusal

START: Final = (
    "import sys; sys.path[:] = filter(None, sys.path); from edge_latup.targets.class_measure import main; sys.exit(main(sys.argv[1:]))"
)
RUNS: Final = 5
WARM_UP: Final = 2
CACHE: Final = Path("/sys/devices/system/cpu/cpu0/cache")
COPIED_BYTES: Final = 128 << 20
INTEGERS: Final = ("i8", "u8")


def measure_class_rates(isa: IsaName, threads: int = 0, runs: int = RUNS) -> ClassRates:
    """Measure under an instruction set, in a fresh process. Half a minute or less on an idle machine; a busy one gives lower figures.

    Args:
        isa: "native" for whatever the host has.
        threads: 0 for every core this process may use; two at least, as INT8 takes.
        runs: of each operation, after warm-up.

    Raises:
        InputError: the host cannot be held to the set.
        MissingDependencyError: OpenVINO is missing, or went beyond the set.
        EdgeLatupError: the process failed.
    """
    if reason := refusal(isa, "openvino", cpu_flags()):
        raise InputError(reason, "leave this instruction set out")
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as folder:
        out = Path(folder) / "rates.json"
        command = [sys.executable, "-c", START, isa, str(threads), str(runs), str(out)]
        done = subprocess.run(
            command, env=inherited | environment(isa), capture_output=True, encoding="utf-8", errors="replace", check=False
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise EdgeLatupError(f"the process that measured rates under {isa} ended with code {done.returncode}: {last}")
        rates = read_record(ClassRates, out)
    implementations = {rate.implementation: 1 for rate in rates.rates}
    check_dispatch(isa, read_dispatch(done.stdout.splitlines()), implementations)
    return rates


def main(arguments: list[str]) -> int:
    """Entry point of the measuring process: ISA THREADS RUNS OUT."""
    isa, threads, runs, out = arguments
    write_record(_measure_here(isa, int(threads) or max(2, usable_cores()), int(runs)), Path(out))  # type: ignore[arg-type]
    return 0


def _measure_here(isa: IsaName, threads: int, runs: int) -> ClassRates:
    load, started = load_average(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    ov = import_openvino()
    rates = [rate for precision in _precisions(isa) for probe in _probes(precision) for rate in _rates(probe, precision, threads, runs)]
    return ClassRates(
        isa=isa, emulated=isa != NATIVE, threads=threads, host=describe_host(), runtime_version=ov.__version__, started=started,
        load_average=load, bandwidth_gb_s=copy_bandwidth(threads), cached_bytes=last_level_bytes(), rates=tuple(rates),
    )  # fmt: skip


def _precisions(isa: IsaName) -> tuple[Precision, ...]:
    """What is measured: BF16 only natively and where the CPU has it, because the emulated sets have no kernels for it."""
    told = {str(name).lower() for name in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
    return ("fp32", "bf16", "int8") if isa == NATIVE and "bf16" in told else ("fp32", "int8")


def _probes(precision: Precision) -> Iterator[Probe]:
    int8 = precision == "int8"
    for shape in CONVOLUTIONS:
        yield convolution_probe(shape, int8=int8)
    for shape in TRANSPOSED:
        yield convolution_probe(shape, int8=int8, transposed=True)
    for channels, side in BLOCKS:
        yield block_probe(channels, side, int8=int8)


def _rates(probe: Probe, precision: Precision, threads: int, runs: int) -> list[ClassRate]:
    """The watched operations of one probe, each with the time of every run after the warm-up."""
    ov = import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": ov.Type.bf16 if precision == "bf16" else ov.Type.f32, "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False, "PERF_COUNT": True,
    }  # fmt: skip
    compiled = openvino_core().compile_model(probe.model, "CPU", settings)
    request = compiled.create_infer_request()
    image = np.random.default_rng(1).random(probe.image, dtype=np.float32)
    told = [_told(compiled, request, image, probe.watched) for _ in range(WARM_UP + runs)]
    found = [_rate(watched, precision, [run.get(watched.name) for run in told]) for watched in probe.watched]
    return [rate for rate in found if rate is not None]


Told = dict[str, tuple[Any, dict[str, str]]]
"""What a runtime model says after a run: watched name -> (node, its figures)."""


def _told(compiled: Any, request: Any, image: Any, watched: tuple[Watched, ...]) -> Told:
    request.infer([image], share_inputs=True)
    names = {one.name for one in watched}
    told: Told = {}
    for node, info in computing(compiled.get_runtime_model()):
        for name in names & {str(node.get_friendly_name()), *info.get("originalLayersNames", "").split(",")}:
            told[name] = (node, info)
    return told


def _rate(watched: Watched, precision: Precision, told: list[tuple[Any, dict[str, str]] | None]) -> ClassRate | None:
    """The runtime tells the mean of all runs so far, so each run's own time is the difference of two sums.

    None where the runtime fused the operation away, or executed it in another precision than was asked for.
    """
    if any(one is None for one in told):
        return None
    nodes = [one for one in told if one is not None]
    sums = [(number + 1) * float(info["execTimeMcs"]) for number, (_, info) in enumerate(nodes)]
    times = tuple(max(1.0, after - before) for before, after in zip(sums[WARM_UP - 1 :], sums[WARM_UP:], strict=False))
    node, info = nodes[-1]
    executed = _executed(node, info, precision, multiplies=bool(watched.macs))
    if watched.macs and executed != precision:
        return None
    return ClassRate(
        kind=watched.kind, precision=executed, kernel=watched.kernel, channels=watched.channels, voxels=watched.voxels,
        macs=watched.macs, bytes_moved=_bytes_moved(node), implementation=info["primitiveType"], microseconds=times,
    )  # fmt: skip


def _executed(node: Any, info: dict[str, str], precision: Precision, *, multiplies: bool) -> Precision:
    """What multiplies: its kernel's precision. What moves: int8 where it leaves 8 bits, else the float precision that was pinned."""
    if multiplies:
        return precision_name(kernel_precision(info))  # type: ignore[return-value]  # compared with what was asked for
    if node.output(0).get_element_type().get_type_name() in INTEGERS:
        return "int8"
    return "fp32" if precision == "int8" else precision


def _bytes_moved(node: Any) -> int:
    """Of all that it reads and leaves, in the types that the runtime chose; small constants such as axes included."""
    sizes = [port.get_source_output().get_tensor().size for port in node.inputs()]
    return int(sum(sizes) + sum(output.get_tensor().size for output in node.outputs()))


def last_level_bytes(folder: Path = CACHE) -> int:
    """Size of the largest cache the system tells of; 0 where it tells none."""
    found = []
    for path in folder.glob("index*/size"):
        if size := re.fullmatch(r"(\d+)([KM])", path.read_text(encoding="ascii").strip()):
            found.append(int(size[1]) << (10 if size[2] == "K" else 20))
    return max(found, default=0)


def copy_bandwidth(threads: int, runs: int = RUNS) -> float:
    """10^9 bytes a second of copying, best run: read, written, and once more for the destination, which may be read first.

    An upper estimate of what the memory gives, as a bound needs it.
    """
    source, target = np.ones(COPIED_BYTES, np.uint8), np.zeros(COPIED_BYTES, np.uint8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        best = min(_copied(pool, parts) for _ in range(runs))
    return 3 * COPIED_BYTES / best / 1e9


def _copied(pool: ThreadPoolExecutor, parts: list[tuple[Any, Any]]) -> float:
    """Seconds of one copy, all parts at once; NumPy copies without holding the interpreter."""
    began = time.perf_counter()
    list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))
    return time.perf_counter() - began
