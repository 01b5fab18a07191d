"""Which artifact to use on the machine of a run, in words that follow from its records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edge_latup.bench.cautions import cautions
from edge_latup.bench.columns import shown
from edge_latup.bench.disturbance import disturbance
from edge_latup.bench.executed import not_executed
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateRule
from edge_latup.bench.judging import CASE_NOUNS, MARGIN, POOR, ROUNDING, count
from edge_latup.bench.records import TimingRow
from edge_latup.bench.speed_up import times_as_fast
from edge_latup.bench.store import LoadedRun
from edge_latup.bench.summary import DriftSummary, present_origins, summarise
from edge_latup.spec import Region

GAIN: Final = 1.05
"""An INT8 artifact must be this many times as fast as the best float one; below it, repeat runs can turn the order round."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to use, why, what not to use, and how far the statement reaches.

    use: the artifact, None where nothing could be judged. caveats: what speaks against relying on it. refused: reason by artifact.
    """

    use: str | None
    headline: str
    reasons: tuple[str, ...]
    caveats: tuple[str, ...]
    refused: dict[str, str]
    scope: tuple[str, ...]


def verdict(run: LoadedRun) -> Verdict:
    """The fastest artifact within the drift margin, or the reference."""
    judged = _judged(run)
    if not judged:
        return Verdict(use=None, headline=_unjudged(run), reasons=(), caveats=(), refused={}, scope=tuple(_scope(run, judged)))
    refused = _drifted(run, judged)
    best_float = _fastest([row for row in _accepted(run, refused) if row.precision != "int8"])
    if best_float is not None:
        refused |= _without_gain(run, _accepted(run, refused), best_float)
    use = _fastest(_accepted(run, refused)) or run.reference
    return Verdict(
        use=use.artifact,
        headline=_headline(run, use),
        reasons=tuple(_reasons(run, use, best_float, judged, refused)),
        caveats=tuple(_caveats(run, use, next(iter(judged.values())))),
        refused=refused,
        scope=tuple(_scope(run, judged)),
    )


def _judged(run: LoadedRun) -> dict[str, list[DriftSummary]]:
    """Drift on labelled cases, by candidate and origin; empty where no case has a label."""
    found = {name: [summarise(record, origin) for origin in present_origins(run)] for name, record in run.drift.items()}
    labelled = {name: [summary for summary in summaries if summary and summary.labelled] for name, summaries in found.items()}
    return {name: summaries for name, summaries in labelled.items() if summaries}


def _unjudged(run: LoadedRun) -> str:
    if not run.candidates:
        return f"No recommendation: no output was compared with that of {run.record.reference}."
    return "No recommendation: no labelled case was evaluated, so what compression costs in Dice is unknown."


def _drifted(run: LoadedRun, judged: dict[str, list[DriftSummary]]) -> dict[str, str]:
    reasons = {
        name: "; ".join([*_another_size(run, run.rows[name]), *_unexecuted(run.rows[name]), *_excess(judged.get(name, []))])
        for name in run.candidates
    }
    unknown = {name: "no labelled case was evaluated with it" for name in run.candidates if name not in judged}
    return {name: reason for name, reason in (reasons | unknown).items() if reason}


def _another_size(run: LoadedRun, row: TimingRow) -> Iterator[str]:
    """A smaller window is quicker, and a case needs more of them."""
    own, reference = ("x".join(map(str, one.input_shape[-3:])) for one in (row, run.reference))
    if own != reference:
        yield f"it was timed on an input of {own} voxels, {run.record.reference} on {reference}: their times cannot be compared"


def _unexecuted(row: TimingRow) -> Iterator[str]:
    """However fast and true it is, an artifact that does not run what it declares is not what was asked for."""
    if (reason := not_executed(row)) is not None:
        yield reason


def _excess(summaries: list[DriftSummary]) -> Iterator[str]:
    for summary in summaries:
        over = {region: drop for region, drop in summary.dice_drop.items() if drop > MARGIN + ROUNDING}
        if over:
            drops = ", ".join(f"{region} {drop:.5f}" for region, drop in over.items())
            yield f"its mean Dice drop of {drops} on {count(summary.labelled, CASE_NOUNS[summary.origin])} is more than {MARGIN}"


def _accepted(run: LoadedRun, refused: dict[str, str]) -> list[TimingRow]:
    return [run.rows[name] for name in run.record.compared if name not in refused]


def _without_gain(run: LoadedRun, accepted: list[TimingRow], best: TimingRow) -> dict[str, str]:
    slow = [row for row in accepted if row.precision == "int8" and times_as_fast(run, row, best) < GAIN]
    return {row.artifact: _no_gain(run, row, best) for row in slow}


def _no_gain(run: LoadedRun, row: TimingRow, best: TimingRow) -> str:
    return (
        f"at a median of {row.p50_ms:,.1f} ms it is {times_as_fast(run, row, best):.2f} times as fast as {best.artifact} "
        f"({best.p50_ms:,.1f} ms), which is not quantized to INT8; less than {GAIN} counts as no gain"
    )


def _fastest(rows: list[TimingRow]) -> TimingRow | None:
    return min(rows, key=lambda row: row.p50_ms, default=None)


def _headline(run: LoadedRun, use: TimingRow) -> str:
    if use.artifact == run.record.reference:
        return f"Stay with the reference {use.artifact} on this machine."
    return f"Use {use.artifact} on this machine."


def _reasons(
    run: LoadedRun, use: TimingRow, best_float: TimingRow | None, judged: dict[str, list[DriftSummary]], refused: dict[str, str]
) -> Iterator[str]:
    yield _speed(run, use, best_float, len(_accepted(run, refused)))
    yield _footprint(run, use)
    yield from map(_drops, judged.get(use.artifact, []))
    if use.artifact in judged:
        yield f"A drop is reference minus candidate; a mean of up to {MARGIN} per region is accepted."
    else:
        yield "It is what the drift of the others is measured against."


def _speed(run: LoadedRun, use: TimingRow, best_float: TimingRow | None, accepted: int) -> str:
    among = f"the fastest of the {accepted} artifacts accepted here" if accepted > 1 else "the only artifact accepted here"
    against = []
    if use.artifact != run.record.baseline:
        against.append(f"{times_as_fast(run, use, run.baseline):.1f} times as fast as the baseline {run.record.baseline}")
    if best_float is not None and best_float.artifact not in (use.artifact, run.record.baseline):
        against.append(
            f"{times_as_fast(run, use, best_float):.2f} times as fast as {best_float.artifact}, the fastest accepted one that is not INT8"
        )
    compared = f": {' and '.join(against)}" if against else ""
    runs = count(len(use.samples_ms), ("run", "runs"))
    size = " x ".join(map(str, use.input_shape[-3:]))
    return f"With {use.p50_ms:,.1f} ms for an input of {size} voxels (median of {runs}) it is {among}{compared}."


def _footprint(run: LoadedRun, use: TimingRow) -> str:
    file, memory = f"{use.model_bytes / 1e6:,.2f} MB", f"{use.peak_rss_bytes / 2**20:,.0f} MiB"
    if use.artifact == run.record.reference:
        return f"Its file has {file}; its process peaked at {memory}."
    file += f", {100 * use.model_bytes / run.reference.model_bytes:.1f} % of the reference's"
    memory += f", {100 * use.peak_rss_bytes / run.reference.peak_rss_bytes:.0f} % of the reference's"
    return f"Its file has {file}; its process peaked at {memory}."


def _drops(summary: DriftSummary) -> str:
    worst = summary.worst
    largest = (
        f"; largest of any: {shown(worst.drop, '+.4f')} ({worst.region} of {worst.case})"
        if worst and worst.drop > 0 and summary.labelled > 1
        else ""
    )
    mean = "Mean Dice drop" if summary.labelled > 1 else "Dice drop"
    return f"{mean} on {count(summary.labelled, CASE_NOUNS[summary.origin])}: {_by_region(summary.dice_drop)}{largest}."


def _by_region(drops: dict[Region, float]) -> str:
    return ", ".join(f"{region} {shown(drop, '+.4f')}" for region, drop in drops.items())


def _caveats(run: LoadedRun, use: TimingRow, summaries: list[DriftSummary]) -> Iterator[str]:
    for summary in summaries:
        if poor := {region: dice for region, dice in summary.dice_reference.items() if dice < POOR}:
            own = ", ".join(f"{region} {dice:.3f}" for region, dice in poor.items())
            where = count(summary.labelled, CASE_NOUNS[summary.origin])
            yield f"The reference {run.record.reference} is itself poor on {where} (Dice of {own}): a small drop from it says little."
    if use.artifact in run.drift and (against := judge(run.drift[use.artifact], GateRule(), use).reasons):
        yield f"`edge-latup gate`, which looks at single cases and at chance too, refuses {use.artifact}: {'; '.join(against)}."
    if concerned := sum(text.startswith(f"{use.artifact}: ") for text in cautions(run)):
        warnings = count(concerned, ("warning concerns", "warnings concern"))
        yield f"{warnings} {use.artifact} itself: read below before relying on its figures."
    if run.baseline is not use and disturbance(run.baseline) is not None:
        yield f"The baseline {run.record.baseline} was disturbed while it was timed: what is said to be faster than it may be less so."


def _scope(run: LoadedRun, judged: dict[str, list[DriftSummary]]) -> Iterator[str]:
    threads = sorted({row.threads for row in run.rows.values()})
    yield f"Machine: {run.record.host.summary}; timed with {' or '.join(map(str, threads))} threads."
    summaries = next(iter(judged.values()), [])
    if summaries:
        yield f"Judged on {', '.join(count(summary.labelled, CASE_NOUNS[summary.origin]) for summary in summaries)}."
    for summary in summaries:
        dice = ", ".join(f"{region} {value:.3f}" for region, value in summary.dice_reference.items())
        yield f"The reference {run.record.reference} itself has a Dice of {dice} on {count(summary.labelled, CASE_NOUNS[summary.origin])}."
    if run.record.timed_only:
        yield f"Timed only, its output not compared, so not considered: {', '.join(run.record.timed_only)}."
    origins = {summary.origin for summary in summaries}
    if summaries and not origins - {"phantom"}:
        yield "No labelled real case was evaluated."
    if "phantom" in present_origins(run):
        yield "Phantoms are synthetic volumes made by this software; they are not patients."
    if "real, pseudo-label" in origins:
        yield "A pseudo-label is the output of another algorithm, not ground truth."
    yield "Nothing here is a clinical claim: drift says how far an artifact departs from its reference, not how well it serves a patient."
