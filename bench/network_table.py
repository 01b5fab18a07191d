"""Networks side by side, as Markdown: what each is and does on a case, and what every form of it costs in Dice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge_latup.bench.columns import MISSING, shown
from edge_latup.bench.document_block import table_lines
from edge_latup.bench.gate_records import GateDecision
from edge_latup.bench.network_records import ALL_VIEWS, ONE_VIEW, LoadedNetwork
from edge_latup.bench.records import DriftRecord, TimingRow
from edge_latup.bench.store import LoadedRun
from edge_latup.bench.summary import largest_mean_drops, present_origins, summarise
from edge_latup.errors import InputError
from edge_latup.spec import Region

BLOCK: Final = "bench-network"
"""Of docs/networks.md."""
NETWORKS: Final = (
    "network", "parameters", "GMAC an input", "input", "cases", "FP32 Dice", "fastest accepted", "a case in FP32, s",
    "a case in that form, s", "with its augmentation, s", "windows run",
)  # fmt: skip
FORMS: Final = (
    "network", "form", "MB", "FP32 / form", "ms an input", "x FP32", "executed convolutions", "peak MiB", "largest mean Dice drop",
    "largest mean IoU drop", "gate",
)  # fmt: skip


def markdown(networks: Sequence[LoadedNetwork]) -> str:
    """Both tables with the conditions they hold under.

    Raises:
        InputError: they were measured on different machines.
    """
    if not networks:
        raise InputError("no network to show", "name the --out folders of edge-latup bench-network")
    machines = {one.run.record.host.summary for one in networks}
    if len(machines) > 1:
        raise InputError(f"measured on different machines: {'; '.join(sorted(machines))}", "one table is of one machine")
    tables = [*table_lines(NETWORKS, network_rows(networks)), "", *table_lines(FORMS, form_rows(networks))]
    return "\n".join([_conditions(networks), "", *tables, "", *_refusals(networks)]).rstrip()


def network_rows(networks: Sequence[LoadedNetwork]) -> list[list[str]]:
    """A row of `NETWORKS` for each network."""
    return [_network(one) for one in networks]


def form_rows(networks: Sequence[LoadedNetwork]) -> list[list[str]]:
    """A row of `FORMS` for each form of each network."""
    return [_form(one, run, decisions, row) for one in networks for run, decisions in one.judged for row in run.rows.values()]


def _conditions(networks: Sequence[LoadedNetwork]) -> str:
    """Machine, versions, dates and repeats of every figure below."""
    rows = [row for one in networks for run, _ in one.judged for row in run.rows.values()]
    first, started = networks[0].run.record, sorted(one.run.record.started for one in networks)
    versions = [f"OpenVINO {_version(networks, 'openvino')}"]
    if any(one.other for one in networks):
        versions.append(f"ONNX Runtime {_version(networks, 'onnxruntime')}")
    threads = " and ".join(map(str, sorted({row.threads for row in rows})))
    warm = min(len(row.warm) for one in networks for row in one.record.cases)
    return (
        f"{first.host.summary}; {threads} threads; {', '.join(versions)}; {started[0][:16]} to "
        f"{started[-1][:16]} UTC. {_load(rows)} Latency: median of "
        f"{min(len(row.samples_ms) for row in rows)} runs or more, in a process of its own. A case: files to label map with the model "
        f"loaded, median of {warm} runs or more."
    )


def _version(networks: Sequence[LoadedNetwork], package: str) -> str:
    """Of all runs, which one table must not mix.

    Raises:
        InputError: they differ.
    """
    found = {run.record.versions.get(package, "unknown") for one in networks for run, _ in one.judged}
    if len(found) > 1:
        raise InputError(
            f"these networks were measured with {package} {' and '.join(sorted(found))}", "measure them with the same versions"
        )
    return found.pop()


def _load(rows: Sequence[TimingRow]) -> str:
    busy = [row.other_busy for row in rows]
    known = [one for one in busy if one is not None]
    if known:
        few = "" if len(known) == len(busy) else f" ({len(known)} of {len(busy)} lasted long enough to tell)"
        return f"Something else kept up to {max(known):.2f} processors busy during a timing{few}."
    return f"Load average when a timing began: up to {max(row.load_average for row in rows):.1f}."


def _network(one: LoadedNetwork) -> list[str]:
    record, run = one.record, one.run
    cases = {row.name: row for row in record.cases}
    whole = cases[f"{run.record.reference}, {ONE_VIEW}"]
    single, every = cases[f"{record.chosen}, {ONE_VIEW}"], cases.get(f"{record.chosen}, {ALL_VIEWS}")
    name = record.spec.name if record.source == record.spec.name else f"{record.spec.name} ({record.source})"
    return [
        name, f"{record.parameters:,}", f"{record.macs / 1e9:,.1f}", "x".join(map(str, record.input_shape)),
        str(len(run.record.cases)), _dice(one), record.chosen, f"{whole.p50_s:.1f}", f"{single.p50_s:.1f}",
        MISSING if every is None else f"{every.p50_s:.1f}", f"{single.windows_run} of {single.windows}",
    ]  # fmt: skip


def _dice(one: LoadedNetwork) -> str:
    """Mean of the FP32 reference by region, on the labelled cases of each origin."""
    if not one.run.drift:
        return MISSING
    record, regions = next(iter(one.run.drift.values())), one.record.spec.found_regions
    labelled = [found for origin in present_origins(one.run) if (found := summarise(record, origin)) is not None and found.labelled]
    told = {found.origin: ", ".join(f"{name} {shown(found.dice_reference.get(name), '.3f')}" for name in regions) for found in labelled}
    if not told:
        return ", ".join(f"{region} {MISSING}" for region in regions)
    return next(iter(told.values())) if len(told) == 1 else "; ".join(f"{origin}: {dice}" for origin, dice in told.items())


def _form(one: LoadedNetwork, run: LoadedRun, decisions: Sequence[GateDecision], row: TimingRow) -> list[str]:
    reference, drift = run.reference, run.drift.get(row.artifact)
    decision = next((found for found in decisions if found.candidate == row.artifact), None)
    return [
        one.record.spec.name, row.artifact if run is one.run else f"{row.artifact} ({row.runtime})",
        f"{row.model_bytes / 1e6:.2f}", f"{reference.model_bytes / row.model_bytes:.2f}",
        f"{row.p50_ms:,.0f}", f"{reference.p50_ms / row.p50_ms:.2f}",
        ", ".join(f"{count} {precision}" for precision, count in row.executed_convolutions.items()),
        f"{row.peak_rss_bytes / 2**20:,.0f}", *_drops(drift, one.record.spec.found_regions), _gate(decision),
    ]  # fmt: skip


def _drops(record: DriftRecord | None, regions: Sequence[Region]) -> tuple[str, str]:
    dice, iou = (None, None) if record is None else largest_mean_drops(record, regions)
    return tuple(MISSING if drop is None else f"{drop:.5f}" for drop in (dice, iou))  # type: ignore[return-value]


def _gate(decision: GateDecision | None) -> str:
    if decision is None:
        return "reference"
    return ("accepted" if decision.accepted else "refused") + ("" if decision.tested else ", by the mean alone")


def _refusals(networks: Sequence[LoadedNetwork]) -> list[str]:
    told = [
        f"- {one.record.spec.name}, {decision.candidate}: {'; '.join(decision.reasons)}"
        for one in networks for _, decisions in one.judged for decision in decisions if not decision.accepted
    ]  # fmt: skip
    return ["Refused:", "", *told] if told else []
