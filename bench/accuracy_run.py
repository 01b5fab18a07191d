"""A run of accuracy-controlled INT8: search on some cases, confirm on others, time the choice beside what it competes with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bench.accuracy_control import Found, Search
from edge_latup.bench.accuracy_inputs import divide, keep_inputs, refuse_names, refuse_overlap, refuse_unusable
from edge_latup.bench.accuracy_measure import (
    FULL,
    CaseEvaluator,
    Evaluate,
    Exam,
    Make,
    Measured,
    candidate_name,
    examine,
    int8_convolutions,
)
from edge_latup.bench.accuracy_records import ControlInputs, ControlResult, Layer, Outcome, Timed
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateDecision, GateRule
from edge_latup.bench.run import PACKAGES, Entry, Plan, run_bench
from edge_latup.bench.store import LoadedRun, RunStore, load_run
from edge_latup.bench.summary import largest_mean_drops
from edge_latup.cases.layout import CaseFiles
from edge_latup.errors import InputError, SpecError
from edge_latup.manifest import RuntimeName, SeenCase
from edge_latup.records import read_record, write_record
from edge_latup.runtimes.base import usable_cores
from edge_latup.segmentation.resume import alone_in
from edge_latup.versions import versions_of

RESULT_NAME: Final = "result.json"
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What touches models and cases, so that a test can put something quicker in its place."""

    evaluator: Callable[..., Evaluate] = CaseEvaluator
    layers: Callable[[Artifact, RuntimeName, int], tuple[Layer, ...]] = int8_convolutions
    bench: Callable[[Plan, Path, Progress], RunStore] = run_bench


@dataclass(frozen=True, kw_only=True)
class ControlPlan:
    """What a search is asked to do.

    reference: the FP32 artifact. make: makes the candidates; every parameter it has stands in `settings`.
    calibration: the cases it calibrates on. cases: development cases; where `confirm` is None, some of them confirm if there are enough.
    floats: float artifacts to time the choice beside. make_float: makes another one in a folder; None where this machine cannot.
    """

    reference: Artifact
    make: Make
    calibration: tuple[SeenCase, ...]
    cases: tuple[CaseFiles, ...]
    confirm: tuple[CaseFiles, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    rule: GateRule = field(default_factory=GateRule)
    floats: tuple[Artifact, ...] = ()
    make_float: Callable[[Path], Artifact | None] | None = None
    runtime: RuntimeName = "openvino"
    threads: int = field(default_factory=usable_cores)
    max_steps: int | None = None
    min_runs: int = 20
    min_seconds: float = 10.0
    command: str = ""
    tools: Tools = field(default_factory=Tools)


def control(plan: ControlPlan, out: Path, progress: Progress) -> ControlResult:
    """Find which layers must stay float; continue the search that `out` holds. Every measurement is kept as soon as it is complete.

    Raises:
        InputError: `out` holds something else or a search with other inputs, or nothing could ever be accepted on these cases.
        CaseError: a case cannot be read, is given twice, or calibrates the candidates.
        SpecError: a record of the search is damaged.
        EdgeLatupError: a candidate cannot be made, or a worker failed.
    """
    development, confirmation = _exams(plan, progress)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", "choose another --out: a search is a folder")
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):
        keep_inputs(_inputs(plan, development, confirmation), out)
        if (finished := _finished(out)) is not None:
            progress(f"{out} is finished")
            return finished
        evaluate = plan.tools.evaluator(
            reference=plan.reference, runtime=plan.runtime, exams=development, threads=plan.threads, reference_labels=out / "reference",
            progress=progress,
        )  # fmt: skip
        measured = Measured(folder=out, make=plan.make, evaluate=evaluate, progress=progress)
        search = Search(
            layers=lambda: plan.tools.layers(measured.candidate(()), plan.runtime, plan.threads), measure=measured.measure, rule=plan.rule,
            max_steps=plan.max_steps, tell=progress,
        )  # fmt: skip
        found = search.run()
        run = None if found.keep_float is None else _bench(plan, measured, found.keep_float, confirmation or development, progress)
        result = _result(plan, found, run, development, confirmation)
        write_record(result, out / RESULT_NAME)
        if result.outcome != "refused: out of steps":
            _tidy(out, measured, result)
    return result


def _exams(plan: ControlPlan, progress: Progress) -> tuple[tuple[Exam, ...], tuple[Exam, ...]]:
    """Development and confirmation cases, refused where they cannot serve."""
    refuse_names([plan.reference.manifest.name, *(artifact.manifest.name for artifact in plan.floats)])
    progress("reading the cases")
    spec = plan.reference.manifest.spec
    given = tuple(examine(files, spec) for files in plan.cases)
    others = tuple(examine(files, spec) for files in plan.confirm or ())
    refuse_overlap(plan.calibration, (*given, *others))
    development, confirmation = divide(given, plan.rule) if plan.confirm is None else (given, others)
    refuse_unusable(development, confirmation)
    return development, confirmation


def _inputs(plan: ControlPlan, development: tuple[Exam, ...], confirmation: tuple[Exam, ...]) -> ControlInputs:
    return ControlInputs(
        reference=plan.reference.manifest.name, reference_sha256=plan.reference.digest, spec=plan.reference.manifest.spec,
        runtime=plan.runtime, threads=plan.threads,
        settings=plan.settings, calibration=tuple(case.sha256 for case in plan.calibration),
        development=tuple(exam.known for exam in development), confirmation=tuple(exam.known for exam in confirmation),
        floats={artifact.manifest.name: artifact.digest for artifact in plan.floats}, rule=plan.rule, versions=versions_of(*PACKAGES),
    )  # fmt: skip


def _finished(out: Path) -> ControlResult | None:
    """The result of an earlier run; None where it has yet to come, or ran out of steps: more may be allowed now."""
    if not (out / RESULT_NAME).exists():
        return None
    result = read_record(ControlResult, out / RESULT_NAME)
    if result.outcome == "refused: out of steps":
        return None
    if result.artifact is not None:
        open_artifact(out / result.artifact)
    return result


def _bench(plan: ControlPlan, measured: Measured, kept: tuple[str, ...], exams: tuple[Exam, ...], progress: Progress) -> LoadedRun:
    """The choice, everything in INT8 and the float artifacts, in one run; an earlier, complete one is taken."""
    folder = measured.folder / "bench"
    if not RunStore(folder).run_path.exists():
        made = _made_float(plan, measured.folder / "candidates")
        candidates = [measured.candidate(keep) for keep in dict.fromkeys(((), kept))]
        entries = [Entry(artifact=artifact, runtime=plan.runtime) for artifact in (plan.reference, *plan.floats, *made, *candidates)]
        bench = Plan(
            entries=tuple(entries), cases=tuple(exam.files for exam in exams), reference=plan.reference.manifest.name,
            baseline=plan.reference.manifest.name, threads=plan.threads, min_runs=plan.min_runs, min_seconds=plan.min_seconds,
            command=plan.command, notes=("the last run of a search for the layers that INT8 leaves in float",),
        )  # fmt: skip
        plan.tools.bench(bench, folder, progress)
    run = load_run(folder)
    if candidate_name(kept) not in run.rows:
        raise SpecError(f"{folder} is of another choice than {candidate_name(kept)}", f"remove {folder}: it is then made again")
    return run


def _made_float(plan: ControlPlan, folder: Path) -> tuple[Artifact, ...]:
    if plan.make_float is None:
        return ()
    made = plan.make_float(folder)
    return () if made is None else (made,)


def _result(
    plan: ControlPlan, found: Found, run: LoadedRun | None, development: tuple[Exam, ...], confirmation: tuple[Exam, ...]
) -> ControlResult:  # fmt: skip
    kept = found.keep_float
    decisions = {} if run is None else {name: judge(drift, plan.rule, run.rows[name]) for name, drift in run.drift.items()}
    decision = None if kept is None else decisions[candidate_name(kept)]
    good = decision is not None and decision.accepted
    outcome: Outcome = found.outcome if decision is None or good else "refused: not confirmed"
    return ControlResult(
        outcome=outcome, artifact=f"candidates/{candidate_name(kept)}" if kept is not None and good else None,
        artifact_sha256=decision.candidate_sha256 if decision is not None and good else None,
        keep_float=tuple(layer for layer in found.layers if layer.name in (kept or ())), convolutions=len(found.layers),
        untried=found.untried, effects=found.effects, steps=found.steps,
        chosen_on=tuple(exam.known.name for exam in development), confirmed_on=tuple(exam.known.name for exam in confirmation),
        decision=decision, timing=() if run is None or kept is None else _timing(plan, run, kept, decisions),
    )  # fmt: skip


def _timing(plan: ControlPlan, run: LoadedRun, kept: tuple[str, ...], decisions: dict[str, GateDecision]) -> tuple[Timed, ...]:
    roles, regions = {FULL: "all INT8"} | {candidate_name(kept): "chosen"}, plan.reference.manifest.spec.found_regions
    found = []
    for name, row in run.rows.items():
        dice, iou = largest_mean_drops(run.drift[name], regions) if name in run.drift else (None, None)
        found.append(
            Timed.model_validate({
                "artifact": name, "role": roles.get(name, "float"), "p50_ms": row.p50_ms, "load_average": row.load_average,
                "other_busy": row.other_busy, "threads": row.threads, "accepted": decisions[name].accepted if name in decisions else None,
                "model_bytes": row.model_bytes, "dice_drop": dice, "iou_drop": iou,
            })
        )  # fmt: skip
    return tuple(found)


def _tidy(out: Path, measured: Measured, result: ControlResult) -> None:
    """What only the search needed goes; records, the full candidate and the chosen one stay."""
    names = {FULL, *(timed.artifact for timed in result.timing)}
    measured.remove_others(names)
    shutil.rmtree(out / "reference", ignore_errors=True)
