"""The gate's decision as people read it: two tables for each origin of cases, and the lines below them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from edge_latup.bench.columns import Column, Value, shown
from edge_latup.bench.gate import TEST
from edge_latup.bench.gate_records import GateDecision, GateRule, OriginFinding, RegionFigures
from edge_latup.bench.summary import ORIGIN_TITLES
from edge_latup.bench.table import Table, make_table
from edge_latup.metrics.statistics import Method


def _bound(method: Method) -> Callable[[RegionFigures], Value]:
    return lambda figures: None if figures.test is None else figures.test.upper[method]


DECIDING: Final[tuple[Column[RegionFigures], ...]] = (
    Column(name="region", header="region", about="WT, TC or ET.", value=lambda f: f.region),
    Column(name="holds", header="holds", about="Whether the region holds the rule.", value=lambda f: "no" if f.reasons else "yes"),
    Column(name="cases", header="n", about="Labelled cases.", value=lambda f: f.cases, spec="d"),
    Column(name="dice_reference", header="Dice", unit="ref.", about="The reference's mean.", value=lambda f: f.dice_reference, spec=".4f"),
    Column(name="mean_drop", header="mean", unit="drop", about="Reference minus candidate.", value=lambda f: f.mean_drop, spec="+.4f"),
    Column(name="upper_t", header="upper", unit="t", about="Upper bound of the mean drop by t.", value=_bound("t"), spec="+.4f"),
    Column(name="upper_hall", header="upper", unit="Hall", about="By t, corrected for skewness.", value=_bound("hall"), spec="+.4f"),
    Column(name="upper_bca", header="upper", unit="BCa", about="By the BCa bootstrap.", value=_bound("bca"), spec="+.4f"),
    Column(
        name="p_holm",
        header="p",
        unit="Holm",
        about="That the mean drop is the margin or more: the largest of the three methods, after Holm over the regions.",
        value=lambda f: None if f.test is None else f.test.p_holm,
        spec=".4f",
    ),
    Column(name="worst_drop", header="worst", unit="drop", about="Largest drop of a case.", value=lambda f: f.worst.drop, spec="+.4f"),
    Column(name="large_drops", header="large", unit="drops", about="Cases with a large drop.", value=lambda f: f.large_drops, spec="d"),
)

REPORTED: Final[tuple[Column[RegionFigures], ...]] = (
    DECIDING[0],
    Column(
        name="relative",
        header="of ref.",
        unit="%",
        about="Candidate's mean Dice in per cent of the reference's.",
        value=lambda f: None if f.reported.relative is None else 100 * f.reported.relative,
        spec=".2f",
    ),
    Column(
        name="hd95_rise_mm",
        header="HD95",
        unit="mm",
        about="Mean of candidate minus reference.",
        value=lambda f: f.reported.hd95_rise_mm,
        spec="+.2f",
    ),
    Column(
        name="volume_bias_ml",
        header="volume",
        unit="mL",
        about="Mean of candidate minus reference.",
        value=lambda f: f.reported.volume_bias_ml,
        spec="+.2f",
    ),
    Column(
        name="volume_change_ml",
        header="|volume|",
        unit="mL",
        about="Mean of |candidate minus reference|.",
        value=lambda f: f.reported.volume_change_ml,
        spec=".2f",
    ),
    Column(
        name="lesionwise_dice_drop",
        header="lesion-wise",
        unit="drop",
        about="Mean drop of the lesion-wise Dice.",
        value=lambda f: f.reported.lesionwise_dice_drop,
        spec="+.4f",
    ),
    Column(
        name="lesionwise_hd95_rise_mm",
        header="lesion-wise",
        unit="HD95 mm",
        about="Mean of candidate minus reference of the lesion-wise HD95.",
        value=lambda f: f.reported.lesionwise_hd95_rise_mm,
        spec="+.1f",
    ),
    Column(
        name="missed_more",
        header="lesions",
        unit="missed",
        about="Lesions missed by the candidate minus those missed by the reference.",
        value=lambda f: f.reported.missed_more if f.reported.lesionwise_n else None,
        spec="+d",
    ),
    Column(
        name="false_positives_more",
        header="false",
        unit="finds",
        about="The same of finds that are near no lesion.",
        value=lambda f: f.reported.false_positives_more if f.reported.lesionwise_n else None,
        spec="+d",
    ),
)


def gate_tables(decision: GateDecision) -> list[Table]:
    """For each origin that has labelled cases, what decides and what is only reported: candidate minus reference, means over cases."""
    return [
        make_table(title, columns, list(finding.regions), full=True)
        for finding in decision.origins
        if finding.regions
        for title, columns in ((_title(decision, finding), DECIDING), ("reported, not decided on", REPORTED))
    ]


def _title(decision: GateDecision, finding: OriginFinding) -> str:
    outcome = "refused" if finding.reasons else "holds"
    return f"{decision.candidate} against {decision.reference} on {ORIGIN_TITLES[finding.origin]}: {outcome} ({finding.basis})"


def gate_lines(decision: GateDecision) -> Iterator[str]:
    """What stands below the tables: MLPerf's lines, agreement without labels, the decision and its reasons."""
    for finding in decision.origins:
        yield from _mlperf(finding, decision.rule)
        yield from _agreement(finding)
    yield f"{decision.candidate}: {'ACCEPTED' if decision.accepted else 'REFUSED'}{'' if decision.tested else _untested(decision)}"
    yield from (f"  - {reason}" for reason in decision.reasons)


def _untested(decision: GateDecision) -> str:
    """Says which part of the decision no test stands behind."""
    parts = [f"{finding.basis} on {ORIGIN_TITLES[finding.origin]}" for finding in decision.origins if finding.basis != TEST]
    return f" ({'; '.join(parts)})"


def _mlperf(finding: OriginFinding, rule: GateRule) -> Iterator[str]:
    if finding.relative is not None:
        lines = [f"{100 * line:g} % {'held' if finding.relative >= line else 'missed'}" for line in sorted(rule.mlperf_lines)]
        where = ORIGIN_TITLES[finding.origin]
        yield f"MLPerf's lines on {where}, not decided on: {100 * finding.relative:.2f} % of the reference's mean Dice: {', '.join(lines)}"


def _agreement(finding: OriginFinding) -> Iterator[str]:
    if finding.agreement:
        cases = finding.agreement[0].cases
        figures = ", ".join(f"{a.region} {a.mean:.4f} (lowest {a.lowest:.4f})" for a in finding.agreement)
        yield f"agreement of the two outputs without a label, n = {cases}, not decided on: {figures}"


def rule_line(rule: GateRule) -> str:
    """The rule in one line."""
    margins = ", ".join(f"{region} {margin:g}" for region, margin in rule.margin.items())
    return (
        f"rule: mean Dice drop below {margins} at one-sided alpha {rule.alpha:g} after Holm; no case loses more than {rule.worst_drop:g}, "
        f"at most {shown(100 * rule.large_drop_share, 'g')} % of cases more than {rule.large_drop:g}; no region emptied"
    )


def as_data(rule: GateRule, decisions: list[GateDecision]) -> dict[str, Any]:
    """The decisions as plain values for JSON, unrounded."""
    kept = [decision.model_dump(mode="json", exclude={"rule"}) for decision in decisions]
    return {"schema_version": 1, "accepted": all(d.accepted for d in decisions), "rule": rule.model_dump(mode="json"), "decisions": kept}
