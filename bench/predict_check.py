"""Check predictions against measurements of this host: the demo network in every size, precision and instruction set it can run.

Class rates are measured first, each instruction set in a process of its own; the network is then timed as any sweep times it. No
factor is fitted to those timings. Every step leaves a file in OUT, and what is there already is not made again:
rates/ISA.json, SIDE/artifacts/, SIDE/sweep/, check.json, table.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, get_args

from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact
from edge_latup.bench.demo import CALIBRATION_SEED, demo_checkpoint, make_phantoms
from edge_latup.bench.predict import by_class
from edge_latup.bench.predict_check_records import CheckRecord, CheckRow
from edge_latup.bench.predict_graph import Work, work_of
from edge_latup.bench.predict_memory import predict_memory
from edge_latup.bench.published_cases import check_published
from edge_latup.bench.run import PACKAGES, Entry
from edge_latup.bench.sweep import SweepPlan, run_sweep
from edge_latup.bench.sweep_records import SweepRow
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.errors import InputError, MissingDependencyError
from edge_latup.export.torch_onnx import export_onnx
from edge_latup.manifest import Precision
from edge_latup.quantize.calibration import make_calibration
from edge_latup.quantize.methods import quantize
from edge_latup.records import read_record, write_record
from edge_latup.runtimes.base import usable_cores
from edge_latup.targets.class_measure import measure_class_rates
from edge_latup.targets.class_rates import ClassRates
from edge_latup.targets.host import cpu_flags, describe_host
from edge_latup.targets.isa import NATIVE, IsaName, refusal, title
from edge_latup.targets.profile import Figure, Profile
from edge_latup.targets.roofline import bound_of
from edge_latup.versions import versions_of

SIDES: Final = (64, 96, 128)
MIN_RUNS: Final = 5
MIN_SECONDS: Final = 20.0
CALIBRATION_CASES: Final = 1
"""Ranges do not change how long a model takes, so that one phantom is enough here."""


@dataclass(frozen=True, kw_only=True)
class CheckPlan:
    """What is checked. isas: those this host cannot be held to are left out, and the record says so."""

    sides: tuple[int, ...] = SIDES
    isas: tuple[IsaName, ...] = get_args(IsaName)
    threads: int = 0
    command: str = ""

    @property
    def thread_count(self) -> int:
        """Two at least, as INT8 takes."""
        return self.threads or max(2, usable_cores())


def run_check(plan: CheckPlan, out: Path, progress: Callable[[str], None]) -> CheckRecord:
    """Measure what is missing in `out`, predict everything, and write check.json.

    Raises:
        InputError: `out` holds the measurements of another machine, or no instruction set is left.
        EdgeLatupError: a step's own error.
    """
    out.mkdir(parents=True, exist_ok=True)
    refused = {isa: reason for isa in plan.isas if (reason := refusal(isa, "openvino", cpu_flags()))}
    isas = tuple(isa for isa in plan.isas if isa not in refused)
    if not isas:
        raise InputError("no instruction set is left to check", "name native among them")
    rates = {isa: _rates(isa, plan.thread_count, out, progress) for isa in isas}
    rows: list[CheckRow] = []
    missing = [f"{title(isa)}: {reason}" for isa, reason in refused.items()]
    for side in plan.sides:
        artifacts = _artifacts(side, out, progress)
        sweep = _sweep(artifacts, isas, plan, out / str(side) / "sweep", progress)
        missing += [f"{side}, {row.cell.text}: {row.reason}" for row in sweep.unmeasured()]
        rows += _rows(side, artifacts, sweep, rates)
    record = CheckRecord(
        command=plan.command, started=datetime.now(timezone.utc).isoformat(timespec="seconds"), host=describe_host(),
        versions=versions_of(*PACKAGES), threads=plan.thread_count, rows=tuple(rows), missing=tuple(missing),
        published=tuple(check_published()),
    )  # fmt: skip
    write_record(record, out / "check.json")
    return record


def _rates(isa: IsaName, threads: int, out: Path, progress: Callable[[str], None]) -> ClassRates:
    path = out / "rates" / f"{isa}.json"
    if not path.is_file():
        progress(f"measuring class rates, {title(isa)}")
        path.parent.mkdir(exist_ok=True)
        write_record(measure_class_rates(isa, threads), path)
    found = read_record(ClassRates, path)
    here = describe_host()
    if (found.host.cpu, found.host.cores, found.threads) != (here.cpu, here.cores, threads):
        raise InputError(f"{path} was measured on {found.host.cpu} with {found.threads} threads", "choose another folder")
    return found


def _artifacts(side: int, out: Path, progress: Callable[[str], None]) -> dict[Precision, Artifact]:
    """The demo network at one size in each precision; BF16 where this CPU has it."""
    folder = out / str(side) / "artifacts"
    fp32 = _kept(folder / f"fp32-{side}") or _made(
        f"exporting at {side}", progress, lambda: export_onnx(demo_checkpoint(), folder / f"fp32-{side}", size=(side, side, side))
    )  # fmt: skip
    found: dict[Precision, Artifact] = {"fp32": fp32}
    try:
        found["bf16"] = _kept(folder / f"bf16-{side}") or quantize(fp32, "bf16", folder / f"bf16-{side}")
    except MissingDependencyError as error:
        progress(f"no bf16: {error.message}")
    found["int8"] = _kept(folder / f"int8-{side}") or _made(
        f"quantizing at {side}", progress, lambda: _quantized(fp32, folder / f"int8-{side}", out / "phantoms", progress)
    )  # fmt: skip
    return found


def _kept(folder: Path) -> Artifact | None:
    return open_artifact(folder) if (folder / MANIFEST_NAME).is_file() else None


def _made(step: str, progress: Callable[[str], None], make: Callable[[], Artifact]) -> Artifact:
    progress(step)
    return make()


def _quantized(fp32: Artifact, folder: Path, phantoms: Path, progress: Callable[[str], None]) -> Artifact:
    make_phantoms(phantoms, CALIBRATION_SEED, CALIBRATION_CASES, progress)
    return quantize(fp32, "int8", folder, calibration=make_calibration([phantoms], fp32.manifest.spec))


def _sweep(
    artifacts: dict[Precision, Artifact], isas: Sequence[IsaName], plan: CheckPlan, folder: Path, progress: Callable[[str], None]
) -> LoadedSweep:
    """Time every artifact; BF16 natively only, because no emulated set has kernels for it."""
    everywhere = tuple(Entry(artifact=artifacts[name], runtime="openvino") for name in artifacts if name != "bf16")
    native = tuple(Entry(artifact=artifacts[name], runtime="openvino") for name in artifacts if name == "bf16" and NATIVE in isas)
    found = None
    for entries, sets in ((everywhere, tuple(isas)), (native, (NATIVE,))):
        if entries:
            asked = SweepPlan(
                entries=entries, threads=(plan.thread_count,), isas=sets, min_runs=MIN_RUNS, min_seconds=MIN_SECONDS, warm_up_runs=1,
                command=plan.command,
            )  # fmt: skip
            found = run_sweep(asked, folder, progress)
    if found is None:
        raise InputError("there is nothing to measure", "check an instruction set that this host has")
    return found


def _rows(
    side: int, artifacts: dict[Precision, Artifact], sweep: LoadedSweep, rates: dict[IsaName, ClassRates]
) -> Iterator[CheckRow]:  # fmt: skip
    names = {artifact.manifest.name: precision for precision, artifact in artifacts.items()}
    works = {precision: work_of(artifact) for precision, artifact in artifacts.items()}
    for row in sweep.rows.values():
        precision = names.get(row.cell.artifact)
        if precision is not None and row.timing is not None and row.cell.isa in rates:
            yield _row(side, precision, row, artifacts[precision], works[precision], rates[row.cell.isa])


def _row(side: int, precision: Precision, row: SweepRow, artifact: Artifact, work: Work, rates: ClassRates) -> CheckRow:
    timing = row.timing
    if timing is None:
        raise InputError(f"{row.cell.text} was not measured", "measure it first")
    likely = by_class(work, rates)
    return CheckRow(
        side=side, precision=precision, isa=row.cell.isa, emulated=timing.emulated,
        predicted_bound_ms=1000 * bound_of(work.operations, rates.machine), predicted_likely_ms=likely.milliseconds or 0.0,
        measured_ms=timing.p50_ms, measured_min_ms=timing.min_ms, runs=len(timing.samples_ms),
        predicted_peak_bytes=predict_memory(artifact, work, profile_of_rates(rates)).total, measured_peak_bytes=timing.peak_rss_bytes,
        load_average=timing.load_average,
    )  # fmt: skip


def profile_of_rates(rates: ClassRates) -> Profile:
    """The measured host held to an instruction set, as a target."""
    machine, command = rates.machine, "edge-latup predict --check"
    return Profile(
        name=f"this-host-{rates.isa}", title=f"{rates.host.cpu}, {title(rates.isa)}", kind="x86", processor=rates.host.cpu,
        architecture="x86-64", isa=rates.isa, cores=rates.host.cores, unified_memory=False,
        gmacs={name: Figure(value=value, kind="measured", source=command) for name, value in machine.gmacs.items()},
        bandwidth_gb_s=Figure(value=machine.bandwidth_gb_s, kind="measured", source=command),
        memory_gib=Figure(value=rates.host.memory_bytes / 2**30, kind="measured", source=command), runtimes=("openvino",),
    )  # fmt: skip
