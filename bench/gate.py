"""The gate: accepts a candidate only where harm beyond a margin fixed beforehand is excluded.

Decision, for the cases of each origin by themselves: the non-inferiority test passes for WT, TC and ET after Holm, no case and no
more than a small share of cases loses much, and no region comes out empty that the reference found. A candidate whose declared
precision did not run is refused whatever it does. Everything else is reported.

The most cautious of three bounds decides, because each alone fails somewhere. Of cohorts of 20 cases, a 95 % bound held in 95 % (t),
95 % (Hall) and 94 % (BCa) where drops were normal, but in only 89, 93 and 91 % where they had a tail of large losses (exponential);
the largest of the three held in 96 and 93 %, and in 98 % with a tail of gains. With a harm that strikes one case in 20 all hold in 68 %:
hence the warning of few cases, and the limits on single cases. tests/unit/metrics/test_statistics.py has the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Final

import numpy as np

from edge_latup.bench.columns import shown
from edge_latup.bench.executed import not_executed
from edge_latup.bench.gate_figures import agreement, region_figures
from edge_latup.bench.gate_records import Basis, GateDecision, GateRule, NonInferiority, OriginFinding, RegionFigures
from edge_latup.bench.judging import CASE_NOUNS, POOR, ROUNDING, count
from edge_latup.bench.records import CaseDrift, DriftRecord, RegionDrift, TimingRow
from edge_latup.bench.summary import ORIGIN_TITLES, ORIGINS
from edge_latup.cases.identity import CaseOrigin
from edge_latup.errors import SpecError
from edge_latup.metrics.statistics import Values, holm, p_values, upper_bounds
from edge_latup.spec import Region

TEST: Final[Basis] = "non-inferiority test"
TOO_FEW: Final[Basis] = "too few cases for a test"


def judge(record: DriftRecord, rule: GateRule, row: TimingRow | None = None) -> GateDecision:
    """Hold one candidate's drift against the rule; with its `row`, also what was executed against what it declares.

    Raises:
        SpecError: a case lacks a region of the record, has one that the record does not name, or has a label for only some.
    """
    _check_whole(record)
    origins = tuple(_finding(record, origin, rule) for origin in ORIGINS if any(case.origin == origin for case in record.cases))
    unexecuted = None if row is None else not_executed(row)
    reasons = [] if unexecuted is None else [f"it did not run what it declares: {unexecuted}"]
    reasons += [f"on {ORIGIN_TITLES[finding.origin]}, {reason}" for finding in origins for reason in finding.reasons]
    reasons += _nothing_shown(record, origins)
    return GateDecision(
        candidate=record.artifact,
        candidate_sha256=record.artifact_sha256,
        candidate_spec_sha256=record.spec_sha256,
        reference=record.reference,
        reference_sha256=record.reference_sha256,
        accepted=not reasons,
        tested=bool(bases := {finding.basis for finding in origins if finding.labelled}) and bases == {TEST},
        reasons=tuple(reasons),
        warnings=tuple(_warnings(origins)),
        origins=origins,
        rule=rule,
    )


def _check_whole(record: DriftRecord) -> None:
    hint = "make the run anew with edge-latup bench"
    for case in record.cases:
        if missing := [region for region in record.regions if region not in case.regions]:
            raise SpecError(f"the drift of {record.artifact} holds no {', '.join(missing)} of case {case.case}", hint)
        if beyond := [region for region in case.regions if region not in record.regions]:
            raise SpecError(
                f"the drift of {record.artifact} does not say that its network finds {', '.join(beyond)} of case {case.case}", hint
            )
        if len({drift.dice_drop is None for drift in case.regions.values()}) != 1:
            raise SpecError(f"the drift of {record.artifact} has a Dice drop for only some regions of case {case.case}", hint)


def _finding(record: DriftRecord, origin: CaseOrigin, rule: GateRule) -> OriginFinding:
    cases = [case for case in record.cases if case.origin == origin]
    labelled = [case for case in cases if _is_labelled(case)]
    basis: Basis = "no labelled case" if not labelled else TEST if len(labelled) >= rule.min_cases else TOO_FEW
    drops = {region: np.array([case.regions[region].dice_drop for case in labelled], np.float64) for region in record.regions}
    tests = noninferiority(drops, rule) if basis == TEST else {}
    regions = tuple(
        _judged(region_figures(region, labelled, tests.get(region), rule), origin, rule) for region in record.regions if labelled
    )
    emptied = tuple(_emptied(cases))
    reference = fmean(figures.dice_reference for figures in regions) if regions else 0.0
    return OriginFinding(
        origin=origin,
        cases=len(cases),
        labelled=len(labelled),
        basis=basis,
        regions=regions,
        relative=fmean(figures.dice_candidate for figures in regions) / reference if reference else None,
        agreement=agreement([case for case in cases if not _is_labelled(case)]),
        emptied=emptied,
        reasons=(*(reason for figures in regions for reason in figures.reasons), *emptied),
        warnings=tuple(_origin_warnings(regions, origin, basis, rule)),
    )


def _is_labelled(case: CaseDrift) -> bool:
    return all(drift.dice_drop is not None for drift in case.regions.values())


def _judged(figures: RegionFigures, origin: CaseOrigin, rule: GateRule) -> RegionFigures:
    reasons = tuple(_excess(figures, rule, count(figures.cases, CASE_NOUNS[origin])))
    return figures.model_copy(update={"reasons": reasons})


def noninferiority(drops: dict[Region, Values], rule: GateRule) -> dict[Region, NonInferiority]:
    """The test of every region. H0: its mean drop is the margin or more; the most cautious method's p goes into Holm.

    `drops`: shape (n,) by region. Raises InputError where n is below 2.
    """
    upper = {region: upper_bounds(values, rule.alpha, rule.bootstrap) for region, values in drops.items()}
    p = {region: p_values(values, rule.margin[region], rule.bootstrap) for region, values in drops.items()}
    adjusted = holm({region: max(float(value) for value in p[region].values()) for region in drops})
    return {
        region: NonInferiority(
            upper={method: float(value) for method, value in upper[region].items()},
            p={method: float(value) for method, value in p[region].items()},
            p_holm=adjusted[region],
        )
        for region in drops
    }


def _excess(figures: RegionFigures, rule: GateRule, where: str) -> Iterator[str]:
    region, margin, worst = figures.region, rule.margin[figures.region], figures.worst
    if figures.test is not None and figures.test.p_holm > rule.alpha:
        bound = (
            f"mean drop {shown(figures.mean_drop, '+.4f')}, upper bound {figures.test.bound:.4f}, p after Holm {figures.test.p_holm:.3g}"
        )
        yield f"a mean loss of {margin:g} Dice of {region} or more is not excluded ({bound}, {where})"
    if figures.test is None and figures.mean_drop > margin + ROUNDING:
        yield f"the mean Dice drop of {region} of {figures.mean_drop:.4f} is more than {margin:g} ({where}: {TOO_FEW})"
    if worst.drop > rule.worst_drop + ROUNDING:
        yield f"{worst.case} loses {worst.drop:.4f} Dice of {region}, more than the {rule.worst_drop:g} that no case may lose"
    allowed = int(rule.large_drop_share * figures.cases + ROUNDING)
    if figures.large_drops > allowed:
        yield f"{figures.large_drops} of {where} lose more than {rule.large_drop:g} Dice of {region}, where {allowed} may"


def _emptied(cases: Sequence[CaseDrift]) -> Iterator[str]:
    for case in cases:
        empty = [region for region, drift in case.regions.items() if _is_emptied(drift)]
        if "WT" in empty:
            yield f"the candidate found nothing at all in {case.case}, where the reference found {_found(case, ['WT'])}"
        elif empty:
            yield f"the candidate found no {' and no '.join(empty)} in {case.case}, where the reference found {_found(case, empty)}"


def _is_emptied(drift: RegionDrift) -> bool:
    """A region that the reference found only where the label has none is rightly empty: Dice 1."""
    return drift.volume_candidate_ml == 0 and drift.volume_reference_ml > 0 and drift.dice_candidate != 1


def _found(case: CaseDrift, regions: Iterable[Region]) -> str:
    return " and ".join(f"{case.regions[region].volume_reference_ml:.2f} mL" for region in regions)


def _nothing_shown(record: DriftRecord, origins: Sequence[OriginFinding]) -> Iterator[str]:
    """What makes the whole comparison empty, whichever case one looks at."""
    if not any(finding.labelled for finding in origins):
        yield "no case has a label, so what the candidate costs in Dice is unknown"
    if all(drift.volume_candidate_ml == 0 for case in record.cases for drift in case.regions.values()):
        yield "the candidate found nothing in any case, so nothing was tested"


def _origin_warnings(regions: Sequence[RegionFigures], origin: CaseOrigin, basis: Basis, rule: GateRule) -> Iterator[str]:
    number = regions[0].cases if regions else 0
    where = count(number, CASE_NOUNS[origin])
    if basis == TOO_FEW:
        yield f"{TOO_FEW}: {where}, where {rule.min_cases} are needed; only the mean drop was held against the margin"
    elif 0 < number < rule.small_below:
        unseen = (1 - rule.large_drop_share) ** number
        share = f"{rule.large_drop_share:.0%} of patients".replace("%", " %")
        chance = f"{100 * unseen:.0f} %"
        yield f"few cases: a harm to {share} shows in none of {where} with a probability of {chance}; {rule.small_below} are wanted"
    if poor := [f"{figures.region} {figures.dice_reference:.3f}" for figures in regions if figures.dice_reference < POOR]:
        yield f"the reference is itself poor on {where} (Dice of {', '.join(poor)}): a small drop from it says little"


def _warnings(origins: Sequence[OriginFinding]) -> Iterator[str]:
    yield from (warning for finding in origins for warning in finding.warnings)
    judged = {finding.origin for finding in origins if finding.labelled}
    if judged and "real" not in judged:
        yield "no real case with an expert's label was judged: what is accepted here says nothing yet about patients"
