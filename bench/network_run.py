"""One network from its source to a segmented case: export or import, compress, bench, gate, and the fastest accepted form on a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact
from edge_latup.bench.case.processes import run_case
from edge_latup.bench.case.records import CaseRow
from edge_latup.bench.case.worker import CaseJob
from edge_latup.bench.demo import compress
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateDecision, GateRule
from edge_latup.bench.network_records import ALL_VIEWS, NAME, ONE_VIEW, OTHER_RUN, RUN, LoadedNetwork, NetworkRecord, load_network
from edge_latup.bench.run import Entry, Plan, run_bench
from edge_latup.bench.store import LoadedRun, load_run
from edge_latup.cases.layout import CaseFiles
from edge_latup.errors import InputError
from edge_latup.export.adapters.road import import_any
from edge_latup.export.cost import cost_of
from edge_latup.export.torch_onnx import export_onnx, is_checkpoint
from edge_latup.quantize.methods import quantize
from edge_latup.records import write_record
from edge_latup.runtimes.base import usable_cores
from edge_latup.spec import Size

STORED: Final = ("dynamic-range", "dynamic-range-bf16")
"""Weights stored as int8, computed in FP32 and in BF16."""
REPEATS: Final = 3
CASE_SECONDS: Final = 60.0
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """What to do with one network.

    size: of its input, where the checkpoint's own is not wanted. spec: for an import that needs one.
    onnxruntime: run its FP32 and its dynamic INT8 too, each held against the same runtime's FP32.
    """

    source: Path
    calibration: Path
    cases: tuple[CaseFiles, ...]
    command: str
    size: Size | None = None
    spec: Path | None = None
    onnxruntime: bool = False
    min_runs: int = 5
    min_seconds: float = 10.0


def run_network(plan: NetworkPlan, out: Path, progress: Progress) -> LoadedNetwork:
    """Take a network down the whole road on this machine, in OpenVINO, and where asked in ONNX Runtime too.

    Args:
        plan: the network, and cases that it was not trained on.
        out: folder for artifacts, records and label maps; must not hold a finished one.
        progress: gets a line at each step.

    Raises:
        InputError: `out` is taken, or an option does not suit the source.
        EdgeLatupError: any step's own error.
    """
    if (out / NAME).exists():
        raise InputError(f"{out} holds a finished run", "choose a new --out")
    progress("to an artifact, proven to compute what its source computes")
    fp32 = float_artifact(plan, out / "artifacts" / "fp32")
    entries = (Entry(artifact=fp32, runtime="openvino"), *compress(fp32, out / "artifacts", plan.calibration, progress, stored=STORED))
    run = _bench(plan, entries, out / RUN, progress)
    decisions, other_decisions = _judged(run), tuple[GateDecision, ...]()
    if plan.onnxruntime:
        progress("compressing: dynamic-int8")
        dynamic = quantize(fp32, "dynamic-int8", out / "artifacts" / "dynamic-int8", runtime="onnxruntime")
        others = tuple(Entry(artifact=artifact, runtime="onnxruntime") for artifact in (fp32, dynamic))
        other_decisions = _judged(_bench(plan, others, out / OTHER_RUN, progress))
    chosen = fastest_accepted(run, decisions)
    artifacts, cost = {entry.name: entry.artifact for entry in entries}, cost_of(fp32.folder)
    record = NetworkRecord(
        source=plan.source.name, spec=fp32.manifest.spec, parameters=cost.parameters, macs=cost.macs, input_shape=cost.input_shape,
        decisions=decisions, other_decisions=other_decisions, chosen=chosen,
        cases=tuple(_cases(artifacts, run.record.reference, chosen, plan.cases[0], out, progress)),
    )  # fmt: skip
    write_record(record, out / NAME)
    return load_network(out)


def _bench(plan: NetworkPlan, entries: tuple[Entry, ...], out: Path, progress: Progress) -> LoadedRun:
    """The entries on the cases, the first of them being reference and baseline."""
    first = entries[0].name
    asked = Plan(
        entries=entries, cases=plan.cases, reference=first, baseline=first, min_runs=plan.min_runs, min_seconds=plan.min_seconds,
        command=plan.command,
    )  # fmt: skip
    run_bench(asked, out, progress)
    return load_run(out)


def _judged(run: LoadedRun) -> tuple[GateDecision, ...]:
    return tuple(judge(record, GateRule(), run.rows[name]) for name, record in run.drift.items())


def float_artifact(plan: NetworkPlan, out: Path) -> Artifact:
    """The FP32 artifact of a checkpoint, an artifact, or anything `edge-latup import` takes.

    Raises:
        InputError: an option that belongs to another kind of source.
    """
    of_checkpoint, is_artifact = is_checkpoint(plan.source), (plan.source / MANIFEST_NAME).is_file()
    if plan.size is not None and not of_checkpoint:
        raise InputError(f"--size is for checkpoints, and {plan.source} is none", "leave it out, or state the size in --spec")
    if plan.spec is not None and (of_checkpoint or is_artifact):
        raise InputError(f"--spec is for models of other tools, and {plan.source} has its own", "leave it out")
    if of_checkpoint:
        return export_onnx(plan.source, out, size=plan.size)
    if is_artifact:
        return open_artifact(plan.source)
    return import_any([plan.source], out, spec=plan.spec)


def fastest_accepted(run: LoadedRun, decisions: tuple[GateDecision, ...]) -> str:
    """Name of the form with the shortest median latency, of those the gate accepts and the reference."""
    accepted = [run.record.reference, *(one.candidate for one in decisions if one.accepted)]
    return min(accepted, key=lambda name: run.rows[name].p50_ms)


def _cases(
    artifacts: dict[str, Artifact], reference: str, chosen: str, case: CaseFiles, out: Path, progress: Progress
) -> Iterator[CaseRow]:  # fmt: skip
    """One row for each process; nothing else runs meanwhile."""
    for name in dict.fromkeys((reference, chosen)):
        progress(f"the case with {name}")
        yield _row(artifacts[name], ONE_VIEW, case, out)
    if artifacts[chosen].manifest.spec.views != ("identity",):
        progress(f"the case with {chosen}, all views")
        yield _row(artifacts[chosen], ALL_VIEWS, case, out)


def _row(artifact: Artifact, views: str, case: CaseFiles, out: Path) -> CaseRow:
    spec, name = artifact.manifest.spec, f"{artifact.manifest.name}, {views}"
    labels = out / "labels"
    labels.mkdir(exist_ok=True)
    return run_case(
        CaseJob(
            name=name, engine="edge-latup", policy=spec.spatial.kind, artifact=str(artifact.folder), runtime="openvino",
            spec=spec if views == ALL_VIEWS else spec.model_copy(update={"views": ("identity",)}), case=str(case.path),
            label_map=str(labels / f"{name.replace(', ', '-').replace(' ', '-')}.nii.gz"), threads=usable_cores(), repeats=REPEATS,
            seconds=CASE_SECONDS,
        )
    )  # fmt: skip
