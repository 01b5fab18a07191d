"""The gate accepts what is not worse, refuses what is, and says which, why and how sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError
from sample_run import region_drift
from scipy import stats

from edge_latup.bench.columns import MISSING
from edge_latup.bench.gate import TEST, TOO_FEW, judge, noninferiority
from edge_latup.bench.gate_records import GateRule
from edge_latup.bench.gate_table import gate_lines, gate_tables
from edge_latup.bench.records import CaseDrift, DriftRecord, RegionDrift
from edge_latup.cases.identity import CaseOrigin
from edge_latup.errors import SpecError
from edge_latup.spec import REGIONS, Region

QUICK = GateRule(resamples=2000)


def record(cases: Sequence[CaseDrift], regions: Sequence[Region] = tuple(REGIONS)) -> DriftRecord:
    return DriftRecord(
        artifact="int8", artifact_sha256="a", runtime="openvino", executed_float="f32", reference="fp32", reference_sha256="b",
        reference_runtime="openvino", regions=tuple(regions), cases=tuple(cases),
    )  # fmt: skip


def cohort(drops: Sequence[float], origin: CaseOrigin = "real", **regions: RegionDrift) -> list[CaseDrift]:
    """One case a drop, alike in all regions; `regions` replaces those of the last case."""
    cases = [
        CaseDrift(case=f"{origin}-{number}", origin=origin, regions={region: region_drift(drop) for region in REGIONS})
        for number, drop in enumerate(drops)
    ]
    return [*cases[:-1], cases[-1].model_copy(update={"regions": cases[-1].regions | regions})]


def spread(mean: float, cases: int = 24, sd: float = 0.002) -> list[float]:
    """Drops whose mean and standard deviation are known exactly."""
    raw = np.random.default_rng(4).normal(size=cases)
    return [float(value) for value in mean + sd * stats.zscore(raw, ddof=1)]


def test_a_candidate_that_is_not_worse_is_accepted() -> None:
    found = judge(record(cohort(spread(0.001))), QUICK)
    assert (found.accepted, found.tested, found.reasons) == (True, True, ())
    (origin,) = found.origins
    assert (origin.origin, origin.labelled, origin.basis) == ("real", 24, TEST)
    assert [figures.region for figures in origin.regions] == list(REGIONS)
    assert found.warnings == (
        "few cases: a harm to 5 % of patients shows in none of 24 labelled real cases with a probability of 29 %; 59 are wanted",
    )


def test_the_figures_are_those_of_the_cases() -> None:
    """Mean 0.001, sd 0.002, n 24, from a Dice of 0.9: the bound by t is 0.001 + 1.7139 * 0.002 / sqrt(24)."""
    (origin,) = judge(record(cohort(spread(0.001))), QUICK).origins
    for figures in origin.regions:
        assert figures.test is not None
        assert figures.mean_drop == pytest.approx(0.001)
        assert figures.test.upper["t"] == pytest.approx(0.001 + 1.7139 * 0.002 / np.sqrt(24), rel=1e-4)
        assert figures.test.bound == max(figures.test.upper.values())
        assert figures.test.p_holm >= 3 * figures.test.p["t"], "the smallest of three p-values counts three times"
        assert figures.worst.drop == pytest.approx(max(spread(0.001)))
        assert figures.reported.relative == pytest.approx(0.899 / 0.9)
        assert figures.reported.hd95_rise_mm == pytest.approx(0.04)
        assert figures.reported.volume_bias_ml == pytest.approx(-0.2)
        assert (figures.reported.hd95_n, figures.reported.hd95_lost, figures.reported.lesionwise_n) == (24, 0, 0)
    assert origin.relative == pytest.approx(0.899 / 0.9)


@pytest.mark.parametrize("mean", [0.0045, 0.005, 0.01])
def test_a_loss_that_may_reach_the_margin_is_refused(mean: float) -> None:
    found = judge(record(cohort(spread(mean))), QUICK)
    assert not found.accepted
    assert f"a mean loss of 0.005 Dice of ET or more is not excluded (mean drop +{mean:.4f}, upper bound" in found.reasons[2]
    assert judge(record(cohort(spread(mean))), GateRule(resamples=2000, margin=dict.fromkeys(REGIONS, 0.02))).accepted


def test_one_bad_region_is_enough_to_refuse() -> None:
    cases = [
        case.model_copy(update={"regions": case.regions | {"ET": region_drift(drop + 0.006)}})
        for case, drop in zip(cohort(spread(0.0)), spread(0.0), strict=True)
    ]
    found = judge(record(cases), QUICK)
    assert [bool(figures.reasons) for figures in found.origins[0].regions] == [False, False, True]
    assert all("ET" in reason for reason in found.reasons)


def test_holm_asks_more_of_the_smallest_p_than_each_test_alone() -> None:
    """P of about 0.03 in each region: enough for one test, not for three."""
    drops = np.array(spread(0.0, cases=40))
    margin = 0.002 / np.sqrt(40) * -stats.t.ppf(0.03, 39)
    tests = noninferiority(dict.fromkeys(REGIONS, drops), GateRule(margin=dict.fromkeys(REGIONS, float(margin))))
    for test in tests.values():
        assert test.p["t"] == pytest.approx(0.03)
        assert test.p_holm == pytest.approx(3 * max(test.p.values()))
        assert test.p_holm > 0.05


def test_rare_large_losses_are_refused_however_good_the_mean() -> None:
    drops = [*spread(-0.005, cases=58), 0.03, 0.03]
    assert judge(record(cohort(drops)), QUICK).accepted, "2 of 60: 5 % may"
    found = judge(record(cohort([*drops, 0.021, 0.021])), QUICK)
    assert found.reasons[0] == "on real cases, 4 of 62 labelled real cases lose more than 0.02 Dice of WT, where 3 may"


def test_one_case_that_loses_too_much_is_refused_by_name() -> None:
    found = judge(record(cohort([*spread(-0.005, cases=59), 0.0], TC=region_drift(0.11))), QUICK)
    assert found.reasons[-1] == "on real cases, real-59 loses 0.1100 Dice of TC, more than the 0.1 that no case may lose"
    assert all("TC" in reason for reason in found.reasons)


@pytest.mark.parametrize("cases", [1, 2, 9])
def test_too_few_cases_are_judged_by_the_mean_and_say_so(cases: int) -> None:
    found = judge(record(cohort([0.004] * cases)), QUICK)
    assert (found.accepted, found.tested, found.origins[0].basis) == (True, False, TOO_FEW)
    assert all(figures.test is None for figures in found.origins[0].regions)
    assert f"{TOO_FEW}: {cases} labelled real case" in found.warnings[0]
    assert "int8: ACCEPTED (too few cases for a test on real cases)" in list(gate_lines(found))
    refused = judge(record(cohort([0.006] * cases)), QUICK)
    assert "the mean Dice drop of WT of 0.0060 is more than 0.005" in refused.reasons[0]


def test_the_most_cautious_bound_decides() -> None:
    """One large gain widens the bound by t, which knows no direction: the bootstrap alone would have accepted."""
    tests = noninferiority(dict.fromkeys(REGIONS, np.array([*spread(0.0, cases=23), -0.9])), QUICK)
    for test in tests.values():
        assert test.upper["bca"] < test.upper["hall"] < 0.005 < test.upper["t"] == test.bound
        assert test.p_holm > 0.05


def test_too_few_cases_hold_the_other_rules_too() -> None:
    assert "1 of 8 labelled real cases lose more than 0.02" in judge(record(cohort([*[-0.01] * 7, 0.025])), QUICK).reasons[0]


def test_origins_are_judged_apart() -> None:
    """A good mean over phantoms does not hide a bad real case."""
    found = judge(record([*cohort(spread(0.0), "phantom"), *cohort([0.011])]), QUICK)
    assert [origin.basis for origin in found.origins] == [TEST, TOO_FEW]
    assert not found.accepted
    assert all(reason.startswith("on real cases, ") for reason in found.reasons)


def test_phantoms_alone_are_no_patients() -> None:
    found = judge(record(cohort(spread(0.0), "phantom")), QUICK)
    assert found.accepted
    assert found.warnings[-1].startswith("no real case with an expert's label was judged")


def test_a_region_that_comes_out_empty_is_refused_even_where_the_mean_is_good() -> None:
    empty = region_drift(0.0, volume_candidate_ml=0.0)
    found = judge(record(cohort(spread(0.0), ET=empty)), QUICK)
    assert found.reasons == ("on real cases, the candidate found no ET in real-23, where the reference found 40.00 mL",)


def test_a_region_is_rightly_empty_where_the_label_has_none() -> None:
    right = region_drift(-1.0, dice_reference=0.0, dice_candidate=1.0, volume_reference_ml=0.01, volume_candidate_ml=0.0)
    found = judge(record(cohort(spread(0.0, cases=9), ET=right)), QUICK)
    assert (found.accepted, found.origins[0].emptied) == (True, ())


def test_without_labels_nothing_is_accepted_and_agreement_is_reported() -> None:
    cases = [
        CaseDrift(case=f"c{index}", origin="real", regions={region: region_drift(drop, labelled=False) for region in REGIONS})
        for index, drop in enumerate((0.01, 0.03))
    ]
    found = judge(record(cases), QUICK)
    assert found.reasons == ("no case has a label, so what the candidate costs in Dice is unknown",)
    assert {a.region: (a.cases, a.mean, a.lowest) for a in found.origins[0].agreement} == {
        region: (2, pytest.approx(0.98), pytest.approx(0.97)) for region in REGIONS
    }
    assert any("ET 0.9800 (lowest 0.9700)" in line for line in gate_lines(found))


def test_an_unlabelled_case_counts_for_the_empty_masks() -> None:
    lost: dict[Region, RegionDrift] = {region: region_drift(0.0, labelled=False, volume_candidate_ml=0.0) for region in REGIONS}
    found = judge(record([*cohort(spread(0.0)), CaseDrift(case="new", origin="real", regions=lost)]), QUICK)
    assert found.reasons == ("on real cases, the candidate found nothing at all in new, where the reference found 40.00 mL",)


def test_the_mlperf_lines_are_reported() -> None:
    def line(relative: float) -> str:
        return next(text for text in gate_lines(judge(record(cohort(spread(0.9 * (1 - relative)))), QUICK)) if "MLPerf" in text)

    assert line(0.9995).endswith("99.95 % of the reference's mean Dice: 99 % held, 99.9 % held")
    assert line(0.995).endswith("99.50 % of the reference's mean Dice: 99 % held, 99.9 % missed")
    assert line(0.98).endswith("98.00 % of the reference's mean Dice: 99 % missed, 99.9 % missed")


def test_of_a_network_of_the_whole_tumour_nothing_else_is_judged() -> None:
    """Regions it cannot find would pass by themselves, thin out means, and make Holm ask for more of the one that counts."""
    cases = [case.model_copy(update={"regions": {"WT": case.regions["WT"]}}) for case in cohort(spread(0.004))]
    alone, among_three = judge(record(cases, ("WT",)), QUICK), judge(record(cohort(spread(0.004))), QUICK)
    (finding,) = alone.origins
    (figures,) = finding.regions
    assert figures.region == "WT"
    assert figures.test is not None
    assert figures.test.p_holm == max(figures.test.p.values())
    assert among_three.origins[0].regions[0].test is not None
    assert figures.test.p_holm < among_three.origins[0].regions[0].test.p_holm
    assert finding.relative == pytest.approx(1 - 0.004 / 0.9)
    assert not [warning for warning in alone.warnings if "poor" in warning]
    with pytest.raises(SpecError, match="does not say that its network finds TC, ET of case real-0"):
        judge(record(cohort(spread(0.004)), ("WT",)), QUICK)
    with pytest.raises(SpecError, match="holds no WT of case"):
        judge(record([case.model_copy(update={"regions": {"TC": case.regions["WT"]}}) for case in cases], ("WT",)), QUICK)


def test_a_network_of_the_whole_tumour_that_finds_nothing_is_refused() -> None:
    nothing = region_drift(0.9, volume_candidate_ml=0.0)
    cases = [case.model_copy(update={"regions": {"WT": nothing}}) for case in cohort(spread(0.0))]
    reasons = judge(record(cases, ("WT",)), QUICK).reasons
    assert "the candidate found nothing in any case, so nothing was tested" in reasons
    assert any("found nothing at all in real-0" in reason for reason in reasons)


def test_a_record_without_a_region_is_refused_not_guessed_at() -> None:
    cases = cohort(spread(0.0))
    whole = cases[3].regions
    torn = cases[3].model_copy(update={"regions": {region: whole[region] for region in ("WT", "TC")}})
    with pytest.raises(SpecError, match="the drift of int8 holds no ET of case real-3"):
        judge(record([*cases[:3], torn]), QUICK)
    half = cases[3].model_copy(update={"regions": whole | {"TC": region_drift(0.0, labelled=False)}})
    with pytest.raises(SpecError, match="a Dice drop for only some regions of case real-3"):
        judge(record([half]), QUICK)


def test_drift_written_before_lesion_wise_scores_were_kept_is_still_read() -> None:
    old = record(cohort(spread(0.001)))
    data = old.model_dump(mode="json")
    for case in data["cases"]:
        for drift in case["regions"].values():
            del drift["lesionwise_reference"], drift["lesionwise_candidate"]
    assert DriftRecord.model_validate(data) == old
    assert MISSING in gate_tables(judge(old, QUICK))[1].rows[0]


@pytest.mark.parametrize(
    "fields",
    [{"margin": {"WT": 0.005}}, {"margin": {"WT": 0.005, "TC": 0.005, "ET": 0}}, {"alpha": 0.7}, {"min_cases": 2}, {"margins": 0.005}],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GateRule.model_validate(fields)


def test_few_is_where_a_rare_harm_would_probably_not_show() -> None:
    """0.95^58 is 5.1 %, 0.95^59 is 4.8 %; a harm to one in ten shows sooner: 0.9^29 is 4.7 %."""
    assert GateRule().small_below == 59
    assert GateRule(large_drop_share=0.1).small_below == 29
