"""The verdict follows from the records: what is fastest within the margin, what is refused and why, how far it reaches."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_run import DROPS, HOST, ORIGINS, REAL, REFERENCE, ROWS, Plan, region_drift, sample, write_run

from edge_latup.bench.store import RunStore, load_run
from edge_latup.bench.verdict import verdict


def _rows(*names: str) -> dict[str, dict[str, object]]:
    return {name: ROWS[name] for name in names}


def test_int8_wins_where_it_is_fastest_and_within_the_margin(tmp_path: Path) -> None:
    run = sample(tmp_path / "run")
    found = verdict(run)
    int8, bf16, reference = (run.rows[name] for name in ("openvino-int8", "openvino-bf16", REFERENCE))
    assert (found.use, found.headline) == ("openvino-int8", "Use openvino-int8 on this machine.")
    assert found.refused == {}
    speed, footprint, *drift = found.reasons
    assert f"With {int8.p50_ms:,.1f} ms for an input of 128 x 128 x 128 voxels (median of 24 runs)" in speed
    assert "the fastest of the 5 artifacts accepted here" in speed
    assert f"{reference.p50_ms / int8.p50_ms:.1f} times as fast as the baseline {REFERENCE}" in speed
    assert f"{bf16.p50_ms / int8.p50_ms:.2f} times as fast as openvino-bf16, the fastest accepted one that is not INT8" in speed
    assert "3.25 MB, 26.2 % of the reference's" in footprint
    assert "630 MiB, 25 % of the reference's" in footprint
    assert drift[0].startswith("Mean Dice drop on 8 labelled phantoms: WT +0.00")
    assert drift[1].startswith("Dice drop on 1 labelled real case: WT +0.00")
    assert drift[2].startswith("Dice drop on 1 real case with a pseudo-label: WT +0.00")


@pytest.mark.parametrize("median_ms", [900.0, 1200.0, 880.0])
def test_int8_without_gain_over_bf16_is_not_used(tmp_path: Path, median_ms: float) -> None:
    run = sample(
        tmp_path / "run", Plan().changed("openvino-int8", samples_ms=(median_ms,) * 24).changed("openvino-bf16", samples_ms=(900.0,) * 24)
    )
    found = verdict(run)
    assert found.use == "openvino-bf16"
    assert list(found.refused) == ["openvino-int8"]
    assert f"it is {900 / median_ms:.2f} times as fast as openvino-bf16 (900.0 ms)" in found.refused["openvino-int8"]
    assert "the fastest of the 4 artifacts accepted here" in found.reasons[0]
    assert "not INT8" not in found.reasons[0]


def test_int8_that_was_never_executed_is_called_that(tmp_path: Path) -> None:
    """However fast it is."""
    found = verdict(sample(tmp_path / "run", Plan().changed("openvino-int8", executed_convolutions={"f32": 18})))
    assert found.use == "openvino-bf16"
    assert found.refused == {"openvino-int8": "declared INT8, executed none (18 convolutions, none in i8)"}


def test_what_was_timed_on_another_size_is_not_compared(tmp_path: Path) -> None:
    """A window of half the side takes an eighth of the time, and a case needs more of them."""
    found = verdict(sample(tmp_path / "run", Plan().changed("openvino-int8", input_shape=(1, 3, 64, 64, 64), samples_ms=(90.0,) * 24)))
    assert found.use == "openvino-bf16"
    assert "it was timed on an input of 64x64x64 voxels" in found.refused["openvino-int8"]


def test_a_candidate_that_drifts_too_far_is_refused(tmp_path: Path) -> None:
    run = sample(tmp_path / "run", Plan(drops=DROPS | {"openvino-int8": 0.02}))
    found = verdict(run)
    assert found.use == "openvino-bf16"
    assert "on 8 labelled phantoms is more than 0.005" in found.refused["openvino-int8"]
    assert "on 1 labelled real case is more than 0.005" in found.refused["openvino-int8"]


def test_drift_on_one_real_case_is_enough_to_refuse(tmp_path: Path) -> None:
    store = RunStore(write_run(tmp_path / "run"))
    record = store.read_drift("openvino-int8")
    spoilt = [
        case.model_copy(update={"regions": {**case.regions, "ET": case.regions["ET"].model_copy(update={"dice_candidate": 0.89})}})
        if case.case == REAL
        else case
        for case in record.cases
    ]
    store.write_drift(record.model_copy(update={"cases": tuple(spoilt)}))
    found = verdict(load_run(store.folder))
    assert found.use == "openvino-bf16"
    assert found.refused == {"openvino-int8": "its mean Dice drop of ET 0.01000 on 1 labelled real case is more than 0.005"}


def test_a_float_that_drifts_too_far_is_no_yardstick_for_int8(tmp_path: Path) -> None:
    plan = Plan(drops=DROPS | {"openvino-bf16": 0.02}).changed("openvino-bf16", median_ms=300.0)
    found = verdict(sample(tmp_path / "run", plan))
    assert found.use == "openvino-int8"
    assert list(found.refused) == ["openvino-bf16"]
    assert "times as fast as openvino-fp32, the fastest accepted one that is not INT8" in found.reasons[0]


def test_the_margin_itself_is_accepted(tmp_path: Path) -> None:
    store = RunStore(write_run(tmp_path / "run", Plan(rows=_rows(REFERENCE, "openvino-int8"), origins={REAL: "real"})))
    record = store.read_drift("openvino-int8")
    edge = {
        region: drift.model_copy(update={"dice_reference": 0.905, "dice_candidate": 0.9})
        for region, drift in record.cases[0].regions.items()
    }
    store.write_drift(record.model_copy(update={"cases": (record.cases[0].model_copy(update={"regions": edge}),)}))
    assert verdict(load_run(store.folder)).use == "openvino-int8"


def test_where_all_are_refused_the_reference_stays(tmp_path: Path) -> None:
    found = verdict(sample(tmp_path / "run", Plan(drops=dict.fromkeys(DROPS, 0.05))))
    assert (found.use, found.headline) == (REFERENCE, f"Stay with the reference {REFERENCE} on this machine.")
    assert set(found.refused) == set(DROPS)
    assert "the only artifact accepted here." in found.reasons[0]
    assert found.reasons[-1] == "It is what the drift of the others is measured against."


def test_what_was_only_timed_is_never_recommended(tmp_path: Path) -> None:
    found = verdict(sample(tmp_path / "run", Plan(run={"timed_only": ("openvino-int8",)})))
    assert found.use == "openvino-bf16"
    assert "Timed only, its output not compared, so not considered: openvino-int8." in found.scope


def test_without_labels_nothing_is_recommended(tmp_path: Path) -> None:
    found = verdict(sample(tmp_path / "run", Plan(labelled=False)))
    assert found.use is None
    assert found.headline.startswith("No recommendation: no labelled case was evaluated")
    assert not any("Judged on" in line for line in found.scope)


def test_without_cases_nothing_is_recommended(tmp_path: Path) -> None:
    assert verdict(sample(tmp_path / "run", Plan(origins={}))).use is None


def test_without_candidates_nothing_is_recommended(tmp_path: Path) -> None:
    found = verdict(sample(tmp_path / "run", Plan(rows=_rows(REFERENCE))))
    assert found.headline == f"No recommendation: no output was compared with that of {REFERENCE}."


def test_what_the_gate_refuses_is_told_beside_the_recommendation(tmp_path: Path) -> None:
    """One of eight loses 0.03: the mean stays within the margin, and the gate, which looks at single cases, refuses it."""
    store = RunStore(write_run(tmp_path / "run"))
    record = store.read_drift("openvino-int8")
    drop = {region: region_drift(0.03) for region in record.cases[0].regions}
    cases = tuple(
        case.model_copy(update={"regions": drop if index == 0 else {region: region_drift(0.0) for region in drop}})
        for index, case in enumerate(record.cases)
    )
    store.write_drift(record.model_copy(update={"cases": cases}))
    found = verdict(load_run(tmp_path / "run"))
    assert found.use == "openvino-int8"
    (caveat,) = [text for text in found.caveats if "edge-latup gate" in text]
    assert "refuses openvino-int8" in caveat
    assert "1 of 8 labelled phantoms lose more than 0.02 Dice of WT" in caveat


def test_a_sound_run_has_no_caveat(tmp_path: Path) -> None:
    assert verdict(sample(tmp_path / "run")).caveats == ()


def test_a_poor_reference_and_a_disturbed_timing_speak_against_relying_on_it(tmp_path: Path) -> None:
    store = RunStore(write_run(tmp_path / "run", Plan(origins={REAL: "real"}).changed("openvino-int8", load_average=4.0)))
    for name in DROPS:
        record = store.read_drift(name)
        poor = {**record.cases[0].regions, "ET": region_drift(0.001, dice_reference=0.3, dice_candidate=0.299)}
        store.write_drift(record.model_copy(update={"cases": (record.cases[0].model_copy(update={"regions": poor}),)}))
    found = verdict(load_run(store.folder))
    assert found.use == "openvino-int8"
    assert found.caveats == (
        f"The reference {REFERENCE} is itself poor on 1 labelled real case (Dice of ET 0.300): a small drop from it says little.",
        "1 warning concerns openvino-int8 itself: read below before relying on its figures.",
    )


def test_a_disturbed_baseline_speaks_against_the_speed_up(tmp_path: Path) -> None:
    run = sample(tmp_path / "run")
    name = run.record.baseline
    found = verdict(sample(tmp_path / "disturbed", Plan().changed(name, load_average=4.0)))
    assert found.use != name
    assert found.caveats == (f"The baseline {name} was disturbed while it was timed: what is said to be faster than it may be less so.",)


def test_the_scope_says_machine_number_and_kind_of_cases(tmp_path: Path) -> None:
    scope = verdict(sample(tmp_path / "run")).scope
    assert scope[0] == f"Machine: {HOST.summary}; timed with 2 threads."
    assert scope[1] == "Judged on 8 labelled phantoms, 1 labelled real case, 1 real case with a pseudo-label."
    assert f"The reference {REFERENCE} itself has a Dice of WT 0.900, TC 0.900, ET 0.900 on 8 labelled phantoms." in scope
    assert "Phantoms are synthetic volumes made by this software; they are not patients." in scope
    assert "A pseudo-label is the output of another algorithm, not ground truth." in scope
    assert scope[-1].startswith("Nothing here is a clinical claim")


def test_the_scope_says_only_what_is_true_of_the_run(tmp_path: Path) -> None:
    phantoms = {case: origin for case, origin in ORIGINS.items() if origin == "phantom"}
    scope = verdict(sample(tmp_path / "phantoms", Plan(origins=phantoms))).scope
    assert "No labelled real case was evaluated." in scope
    assert not any("pseudo" in line for line in scope)
    scope = verdict(sample(tmp_path / "real", Plan(origins={REAL: "real"}))).scope
    assert not any("hantom" in line or "No labelled real" in line for line in scope)
