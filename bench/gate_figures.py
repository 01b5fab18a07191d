"""The figures of one region that the gate decides on or reports, derived from the records of its cases."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from edge_latup.bench.gate_records import Agreement, GateRule, NonInferiority, RegionFigures, ReportedFigures, WorstCase
from edge_latup.bench.judging import ROUNDING
from edge_latup.bench.records import CaseDrift, RegionDrift
from edge_latup.bench.summary import volume_change
from edge_latup.metrics.lesionwise import LesionScores
from edge_latup.spec import REGIONS, Region


def region_figures(region: Region, labelled: Sequence[CaseDrift], test: NonInferiority | None, rule: GateRule) -> RegionFigures:
    """One region over labelled cases, of which there is at least one."""
    drifts = [case.regions[region] for case in labelled]
    dice = [(d.dice_reference, d.dice_candidate) for d in drifts if d.dice_reference is not None and d.dice_candidate is not None]
    drops = [reference - candidate for reference, candidate in dice]
    worst = max(range(len(drops)), key=lambda index: drops[index])
    reference, candidate = fmean(pair[0] for pair in dice), fmean(pair[1] for pair in dice)
    return RegionFigures(
        region=region,
        cases=len(drops),
        dice_reference=reference,
        dice_candidate=candidate,
        mean_drop=fmean(drops),
        test=test,
        worst=WorstCase(drop=drops[worst], case=labelled[worst].case),
        large_drops=sum(drop > rule.large_drop + ROUNDING for drop in drops),
        reported=_reported(drifts, candidate / reference if reference else None),
    )


def _reported(drifts: Sequence[RegionDrift], relative: float | None) -> ReportedFigures:
    rises = [
        d.hd95_candidate_mm - d.hd95_reference_mm
        for d in drifts
        if d.hd95_candidate_mm is not None and d.hd95_reference_mm is not None
    ]  # fmt: skip
    changes = [volume_change(drift) for drift in drifts]
    pairs = _lesionwise(drifts)
    return ReportedFigures(
        relative=relative,
        hd95_rise_mm=_mean(rises),
        hd95_n=len(rises),
        hd95_lost=sum(drift.hd95_candidate_mm is None and drift.hd95_reference_mm is not None for drift in drifts),
        volume_bias_ml=fmean(changes),
        volume_change_ml=fmean(map(abs, changes)),
        lesionwise_n=len(pairs),
        lesionwise_dice_drop=_mean([reference.dice - candidate.dice for reference, candidate in pairs]),
        lesionwise_hd95_rise_mm=_mean([candidate.hd95_mm - reference.hd95_mm for reference, candidate in pairs]),
        missed_more=sum(candidate.missed - reference.missed for reference, candidate in pairs),
        false_positives_more=sum(candidate.false_positives - reference.false_positives for reference, candidate in pairs),
    )


def _lesionwise(drifts: Sequence[RegionDrift]) -> list[tuple[LesionScores, LesionScores]]:
    """Reference's and candidate's scores, where both were kept."""
    pairs = [(drift.lesionwise_reference, drift.lesionwise_candidate) for drift in drifts]
    return [(reference, candidate) for reference, candidate in pairs if reference is not None and candidate is not None]


def agreement(unlabelled: Sequence[CaseDrift]) -> tuple[Agreement, ...]:
    """Dice of the two outputs by region; nothing where every case has a label."""
    found = {region: [case.regions[region].agreement for case in unlabelled if region in case.regions] for region in REGIONS}
    return tuple(
        Agreement(region=region, cases=len(values), mean=fmean(values), lowest=min(values)) for region, values in found.items() if values
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
