"""Everything this toolkit says of one checkpoint on one machine, from one command: surgery, compression, audit, gate, sweep, verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.bench.cautions import cautions
from edge_latup.bench.demo import CALIBRATION_CASES, CALIBRATION_SEED, EVALUATION_SEED, make_phantoms, notes_on, pairs_pay, time_stamp
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateDecision, GateRule
from edge_latup.bench.report import render_report
from edge_latup.bench.run import Entry, Plan, run_bench
from edge_latup.bench.store import LoadedRun, load_run
from edge_latup.bench.summary import executed
from edge_latup.bench.sweep import ISAS, SweepPlan, run_sweep
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.cases.layout import CaseFiles, find_cases
from edge_latup.export.torch_onnx import export_onnx, refuse_no_checkpoint
from edge_latup.manifest import RuntimeName
from edge_latup.quantize.advice import int8_options
from edge_latup.quantize.all_methods import quantize_all
from edge_latup.quantize.calibration import Calibration, make_calibration
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.prepared import looker, prepare
from edge_latup.runtimes import RUNTIMES
from edge_latup.runtimes.audit import sentence, shortfall
from edge_latup.runtimes.base import usable_cores
from edge_latup.targets.host import describe_host
from edge_latup.targets.isa import NATIVE, IsaName

METHODS: Final = ("rewrite", "bf16", "int8", "int8-onnxruntime")
"""What is made of the FP32 artifact by itself; methods that only store smaller compute as FP32 does."""
UNPAIRED: Final = "int8-bf16-unpaired"
"""What int8-bf16 would be without taps in pairs."""
TIMED_ONLY: Final = ("rewrite", UNPAIRED)
"""They compute what fp32 and int8-bf16 do, up to rounding, so that their Dice is not measured once more."""
EMULATED: Final = ("fp32", "int8", "int8-rewritten")
"""What is measured on emulated instruction sets too, where the gate accepted it here. None of them has BF16: OpenVINO refuses it or takes
four times as long as for FP32."""
ROUNDS: Final = 4
"""In which the bench times what is for OpenVINO in turns."""
EMULATED_ROUNDS: Final = 2
MIN_RUNS: Final = 3
WARM_UP_RUNS: Final = 1
Progress = Callable[[str], None]


@dataclass(kw_only=True)
class Stopwatch:
    """Seconds by stage, told as each ends."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside; nothing is noted of a stage that fails."""
        self.progress(f"stage: {name}")
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began
        self.progress(f"stage: {name} took {self.seconds[name]:,.0f} s")


@dataclass(frozen=True, kw_only=True)
class Full:
    """What was made and found. `audit`: one line for each artifact; `decisions`: the gate's; `seconds`: by stage."""

    run: LoadedRun
    sweep: LoadedSweep
    report: Path
    audit: tuple[str, ...]
    decisions: tuple[GateDecision, ...]
    seconds: dict[str, float]


def run_full(
    out: Path, *, checkpoint: Path, cases: Sequence[Path], phantoms: int, command: str, progress: Progress,
    isas: Sequence[IsaName] = ISAS,
) -> Full:  # fmt: skip
    """Run every stage; phantoms in `out` are kept between runs, everything else goes into a folder of its own.

    Args:
        out: folder for phantoms and runs.
        checkpoint: checkpoint folder.
        cases: folders of the user's own cases, evaluated beside the phantoms.
        phantoms: how many held-out phantoms to evaluate on.
        command: as typed, for the record.
        progress: gets a line at each step.
        isas: instruction sets of the sweep, beside the native one.

    Raises:
        EdgeLatupError: any step's own error.
    """
    refuse_no_checkpoint(checkpoint)  # what is mistyped is told before phantoms take their time
    watch, folder = Stopwatch(progress=progress), out / time_stamp()
    with watch.stage("phantoms"):
        own = [case for given in cases for case in find_cases(given)]
        make_phantoms(out / "phantoms-calibration", CALIBRATION_SEED, CALIBRATION_CASES, progress)
        held_out = make_phantoms(out / "phantoms-evaluation", EVALUATION_SEED, phantoms, progress)
    with watch.stage("export, proven equal to PyTorch"):
        fp32 = export_onnx(checkpoint, folder / "artifacts" / "fp32")
    with watch.stage("surgery and compression"):
        calibration = make_calibration([out / "phantoms-calibration"], fp32.manifest.spec)
        made = {"fp32": fp32} | _compress(fp32, folder / "artifacts", calibration, progress)
    with watch.stage("bench and drift"):
        run = _bench(made, [*held_out, *own], folder / "records", command, progress)
    with watch.stage("audit of executed kernels"):
        audit = tuple(_audit(run))
    with watch.stage("gate"):
        decisions = tuple(judge(record, GateRule(), run.rows[name]) for name, record in run.drift.items())
    with watch.stage("sweep"):
        accepted = {decision.candidate for decision in decisions if decision.accepted}
        sweep = _sweep(made, run, folder / "sweep", command, progress, isas, accepted)
    with watch.stage("report"):
        report = render_report(run.folder, folder / "report.html", sweep)
    return Full(run=run, sweep=sweep, report=report, audit=audit, decisions=decisions, seconds=watch.seconds)


def _compress(fp32: Artifact, folder: Path, calibration: Calibration, progress: Progress) -> dict[str, Artifact]:
    """Every form by name. INT8 is made of the graph as exported and of the rewritten one; its float part is tried in BF16 too."""
    progress("looking at the calibration inputs")
    int8 = int8_options(fp32)
    with prepare(fp32.model_path, calibration.inputs, outputs=True, runtime=looker(fp32)) as prepared:
        attempts = quantize_all(
            fp32, folder, calibration=calibration, progress=progress, only=METHODS, prepared=prepared, options={"int8": int8}
        )  # fmt: skip
        made = {attempt.task.name: attempt.artifact for attempt in attempts if attempt.artifact is not None}
        if {"int8", "bf16"} <= set(made):
            paired = pairs_pay(describe_host())
            for name, pairs in (("int8-bf16", paired), *([(UNPAIRED, False)] if paired else [])):
                progress(f"{name}: int8 with its float part in BF16{', taps in pairs' if pairs else ''}")
                made[name] = quantize(
                    fp32, "int8", folder / name, calibration=calibration, prepared=prepared, float_precision="bf16", paired=pairs, **int8
                )  # fmt: skip
        if {"int8", "rewrite"} <= set(made):
            progress("int8-rewritten: int8 of the rewritten graph")
            with prepare(made["rewrite"].model_path, calibration.inputs, like=prepared, runtime=looker(fp32)) as again:
                made["int8-rewritten"] = quantize(
                    made["rewrite"], "int8", folder / "int8-rewritten", calibration=calibration, prepared=again, **int8
                )  # fmt: skip
    return made


def _on(made: dict[str, Artifact], runtime: RuntimeName) -> tuple[Entry, ...]:
    """The reference and the artifacts made for a runtime first; none where the runtime is not installed."""
    if not RUNTIMES[runtime].is_available():
        return ()
    return tuple(
        Entry(artifact=one, runtime=runtime) for name, one in made.items() if name == "fp32" or one.manifest.runtimes[0] == runtime
    )  # fmt: skip


def _bench(made: dict[str, Artifact], cases: Sequence[CaseFiles], out: Path, command: str, progress: Progress) -> LoadedRun:
    plan = Plan(
        entries=tuple(replace(entry, timed_only=_timed_only(entry)) for entry in _on(made, "openvino")), cases=tuple(cases),
        reference="fp32", baseline="fp32", turns=ROUNDS, command=command,
        notes=notes_on(made["fp32"]),
    )  # fmt: skip
    return load_run(run_bench(plan, out, progress).folder)


def _timed_only(entry: Entry) -> bool:
    """Whether Dice would tell nothing: of what computes the same, and of what does not run as declared and is refused for that."""
    audit = entry.artifact.manifest.audit
    return entry.name in TIMED_ONLY or (audit is not None and shortfall(audit) is not None)


def _audit(run: LoadedRun) -> Iterator[str]:
    """What each artifact declares and what its runtime executed, then every warning about it."""
    for name, row in run.rows.items():
        yield f"{name} on {row.runtime}: {sentence(row.audit) if row.audit is not None else executed(row)}"
    yield from cautions(run)


def _sweep(
    made: dict[str, Artifact], run: LoadedRun, out: Path, command: str, progress: Progress, isas: Sequence[IsaName],
    accepted: Collection[str],
) -> LoadedSweep:  # fmt: skip
    """Everything natively, then FP32 and what was accepted of `EMULATED` on each emulated instruction set: two plans, one sweep."""

    def plan(entries: tuple[Entry, ...], levels: tuple[IsaName, ...], turns: int | None = None) -> SweepPlan:
        return SweepPlan(
            entries=entries, threads=(max(2, usable_cores()),), isas=levels, min_runs=MIN_RUNS, warm_up_runs=WARM_UP_RUNS, drift=run,
            turns=turns, timed=run, command=command, notes=notes_on(made["fp32"]),
        )  # fmt: skip

    openvino = _on(made, "openvino")
    sweep = run_sweep(plan((*openvino, *_on(made, "onnxruntime")), (NATIVE,)), out, progress)
    emulated = tuple(isa for isa in isas if isa != NATIVE)
    if not emulated:
        return sweep
    chosen = tuple(entry for entry in openvino if entry.name in EMULATED and entry.name in {"fp32", *accepted})
    for entry in openvino:
        if entry.name in EMULATED and entry not in chosen:
            progress(f"{entry.name} is not measured on emulated instruction sets: it was not accepted")
    return run_sweep(plan(chosen, emulated, EMULATED_ROUNDS), out, progress)
