"""Figures derived from records when they are read. Cases of different origin are never mixed into one figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, get_args

from edge_latup.bench.records import CaseDrift, DriftRecord, RegionDrift, TimingRow
from edge_latup.bench.store import LoadedRun
from edge_latup.cases.identity import CaseOrigin
from edge_latup.manifest import AuditSummary
from edge_latup.spec import REGIONS, Region

ORIGINS: Final[tuple[CaseOrigin, ...]] = get_args(CaseOrigin)
ORIGIN_TITLES: Final[dict[CaseOrigin, str]] = {
    "phantom": "phantoms (synthetic)",
    "real": "real cases",
    "real, pseudo-label": "real cases with a pseudo-label",
}


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The largest Dice drop, and where it is."""

    drop: float
    region: Region
    case: str


@dataclass(frozen=True, kw_only=True)
class DriftSummary:
    """One candidate against the reference over the cases of one origin.

    A drop is reference minus candidate: positive is worse. Changes are absolute. None where nothing could be averaged.
    Agreement, HD95, volume and IoU are means over cases and regions; `hd95_n` counts the pairs of case and region behind HD95.
    """

    origin: CaseOrigin
    cases: int
    labelled: int
    dice_reference: dict[Region, float]
    """The reference's own mean: a small drop from a poor reference says little."""
    dice_drop: dict[Region, float]
    worst: Worst | None
    iou_drop: float | None
    agreement: float | None
    hd95_change_mm: float | None
    hd95_n: int
    volume_change_ml: float | None


def present_origins(run: LoadedRun) -> tuple[CaseOrigin, ...]:
    """Origins of the cases that were evaluated, in a fixed order."""
    found = {case.origin for record in run.drift.values() for case in record.cases}
    return tuple(origin for origin in ORIGINS if origin in found)


def summarise(record: DriftRecord, origin: CaseOrigin) -> DriftSummary | None:
    """Statistics over the cases of one origin; None where there is no such case."""
    cases = [case for case in record.cases if case.origin == origin]
    if not cases:
        return None
    regions = [region for case in cases for region in case.regions.values()]
    changes = [change for region in regions if (change := hd95_change(region)) is not None]
    return DriftSummary(
        origin=origin,
        cases=len(cases),
        labelled=sum(any(region.dice_drop is not None for region in case.regions.values()) for case in cases),
        dice_reference=_by_region(cases, lambda drift: drift.dice_reference),
        dice_drop=_by_region(cases, lambda drift: drift.dice_drop),
        worst=_worst(cases),
        iou_drop=_mean(region.iou_drop for region in regions),
        agreement=_mean(region.agreement for region in regions),
        hd95_change_mm=_mean(changes),
        hd95_n=len(changes),
        volume_change_ml=_mean(abs(volume_change(region)) for region in regions),
    )


def largest_mean_drops(record: DriftRecord, regions: Sequence[Region]) -> tuple[float | None, float | None]:
    """The largest, over these regions and the origins of the cases, of the mean drop in Dice and in IoU; None where no case is labelled.

    Phantoms and real cases are never averaged together.
    """
    groups = [[case for case in record.cases if case.origin == origin] for origin in ORIGINS]
    dice = [_mean(case.regions[region].dice_drop for case in cases) for cases in groups for region in regions]
    iou = [_mean(case.regions[region].iou_drop for case in cases) for cases in groups for region in regions]
    return _largest(dice), _largest(iou)


def _largest(drops: Iterable[float | None]) -> float | None:
    return max((drop for drop in drops if drop is not None), default=None)


def hd95_change(region: RegionDrift) -> float | None:
    """|candidate minus reference| in mm, where both distances exist."""
    if region.hd95_reference_mm is None or region.hd95_candidate_mm is None:
        return None
    return abs(region.hd95_candidate_mm - region.hd95_reference_mm)


def volume_change(region: RegionDrift) -> float:
    """Candidate minus reference in mL."""
    return region.volume_candidate_ml - region.volume_reference_ml


def executed(row: TimingRow) -> str:
    """What was executed, in short: the float part and, where there is any or should be, how much of the arithmetic was INT8.

    In per cent of multiply-accumulates, with the declared share where it differs; in convolutions where no audit was kept.
    """
    if row.audit is not None:
        integer = row.audit.declared_int8 or row.audit.executed_int8
        return f"{row.executed_float} + {_int8_share(row.audit)} i8" if integer else row.executed_float
    eight, total = int8_convolutions(row)
    return f"{row.executed_float} + {eight}/{total} conv i8" if eight or row.precision == "int8" else row.executed_float


def _int8_share(audit: AuditSummary) -> str:
    run, declared = (f"{100 * share:.0f}" for share in (audit.executed_int8, audit.declared_int8))
    return f"{run} %" if run == declared else f"{run} of {declared} %"


def int8_convolutions(row: TimingRow) -> tuple[int, int]:
    """Convolutions executed in 8-bit integers, and all convolutions."""
    counts = row.executed_convolutions
    return sum(count for precision, count in counts.items() if precision in ("i8", "u8")), sum(counts.values())


def _by_region(cases: list[CaseDrift], value: Callable[[RegionDrift], float | None]) -> dict[Region, float]:
    means = {region: _mean(value(case.regions[region]) for case in cases if region in case.regions) for region in REGIONS}
    return {region: mean for region, mean in means.items() if mean is not None}


def _worst(cases: list[CaseDrift]) -> Worst | None:
    drops = (
        Worst(drop=drift.dice_drop, region=region, case=case.case)
        for case in cases
        for region, drift in case.regions.items()
        if drift.dice_drop is not None
    )
    return max(drops, key=lambda worst: worst.drop, default=None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
