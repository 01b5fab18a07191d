"""The search finds the layers that were planted as harmful, and says honestly where it cannot. Worlds are made up, the gate is real."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Planted
from sample_run import Plan, drift_record, region_drift, timing_row

from edge_latup.bench.accuracy_control import effect_of
from edge_latup.bench.accuracy_records import Layer
from edge_latup.bench.records import CaseDrift, DriftRecord
from edge_latup.cases.identity import CaseOrigin
from edge_latup.spec import REGIONS


@st.composite
def worlds(draw: st.DrawFn, **changes: Any) -> Planted:
    """Two to seven layers, some of which ruin the output each by itself."""
    layers = draw(st.integers(2, 7))
    harmful = draw(st.sets(st.integers(0, layers - 1), min_size=1))
    harm = {f"layer{index}": draw(st.integers(3, 30)) / 100 for index in sorted(harmful)}
    return Planted(layers=layers, harm=harm, **changes)


@given(worlds())
def test_exactly_the_planted_layers_stay_float(world: Planted) -> None:
    found = world.search()
    if len(world.harm) == world.layers:
        assert (found.outcome, found.keep_float) == ("refused: INT8 cannot meet the rule", None)
        return
    assert found.outcome == "INT8 accepted with layers in float"
    assert found.keep_float == tuple(world.harm)
    sizes = [len(step.keep_float) for step in found.steps if step.kind == "to float"]
    assert sizes == [1, 2, 4][: len(sizes)], "steps to float double"
    assert sizes[-1] < 2 * len(world.harm), "a right ranking goes no further than it must"
    by_harm = sorted(world.harm, key=lambda name: -world.harm[name])
    assert [effect.layer.name for effect in found.effects][: len(by_harm)] == by_harm


@given(worlds(cap=0.03))
def test_a_ranking_that_shows_nothing_makes_the_search_longer_and_not_wrong(world: Planted) -> None:
    """Each harmful layer alone costs all there is to lose, so with two of them no single layer in float gives anything back."""
    found = world.search()
    everything = len(world.harm) == world.layers
    assert found.keep_float == (None if everything else tuple(world.harm))
    if len(world.harm) > 1:
        assert {gain for effect in found.effects for gain in effect.dice.values()} == {0.0}


@given(worlds(), st.integers(1, 12))
def test_fewer_steps_never_give_a_candidate_that_was_not_accepted(world: Planted, steps: int) -> None:
    found, whole = world.search(max_steps=steps), world.search()
    assert sum(step.kind in ("to float", "back to INT8") for step in found.steps) <= steps
    if found.keep_float is None:
        assert found.outcome in ("refused: out of steps", whole.outcome)
    else:
        assert any(step.keep_float == found.keep_float and step.accepted for step in found.steps)
        assert set(whole.keep_float or ()) <= set(found.keep_float)
        assert found.untried or found.keep_float == whole.keep_float


def test_what_is_good_as_it_is_is_left_alone() -> None:
    world = Planted(layers=4)
    found = world.search()
    assert (found.outcome, found.keep_float, found.effects) == ("INT8 accepted as it is", (), ())
    assert world.measured == [()]
    assert [(step.kind, step.accepted) for step in found.steps] == [("all INT8", True)]


def test_a_float_part_that_breaks_the_rule_itself_ends_the_search_before_the_ranking() -> None:
    world = Planted(layers=5, harm={"layer1": 0.1}, floor=0.006)
    found = world.search()
    assert (found.outcome, found.keep_float, found.effects) == ("refused: convolutions are not to blame", None, ())
    assert set(world.measured) == {(), world.names}
    assert not found.steps[-1].accepted
    assert "mean Dice drop of WT of 0.0060 is more than 0.005" in found.steps[-1].reasons[0]


def test_int8_that_does_not_run_is_not_searched() -> None:
    world = Planted(layers=5, unexecuted="declared INT8 97.0 % of MACs, executed INT8 0.0 %")
    found = world.search()
    assert found.outcome == "refused: INT8 does not run here"
    assert found.steps[0].reasons == ("it did not run what it declares: declared INT8 97.0 % of MACs, executed INT8 0.0 %",)
    assert set(world.measured) == {()}


def test_of_equally_harmful_layers_those_with_little_arithmetic_go_to_float_first() -> None:
    world = Planted(layers=3, harm=dict.fromkeys(("layer0", "layer1", "layer2"), 0.004), every=0.0)
    layers = tuple(Layer(name=f"layer{index}", macs=macs) for index, macs in enumerate((0.6, 0.1, 0.3)))
    found = world.search(layers=lambda: layers)
    assert [effect.layer.name for effect in found.effects] == ["layer1", "layer2", "layer0"]
    assert found.keep_float == ("layer1", "layer2"), "one layer in INT8 is within the margin of 0.005, two are not"


def test_every_step_is_told_as_it_comes() -> None:
    lines: list[str] = []
    Planted(layers=3, harm={"layer2": 0.1}).search(tell=lines.append)
    assert lines[0].startswith("step 1, all INT8: (0 in float, largest mean drop 0.1000) refused: on phantoms")
    assert lines[1].startswith("step 2, all float: (3 in float")
    assert lines[4] == "ranking 3/3: layer2 alone in float gives back +0.1000 (phantom), +0.1000 (real) Dice"
    assert lines[5] == "step 3, to float: layer2 (1 in float, largest mean drop 0.0000) accepted"


def record(drops: dict[str, tuple[CaseOrigin, float, float, float]], *, labelled: bool = True) -> DriftRecord:
    """Of cases with a drop in WT, TC and ET."""
    cases = []
    for case, (origin, *values) in drops.items():
        regions = {region: region_drift(drop, labelled=labelled) for region, drop in zip(REGIONS, values, strict=True)}
        cases.append(CaseDrift(case=case, origin=origin, regions=regions))
    return drift_record(timing_row("int8"), timing_row("fp32"), Plan()).model_copy(update={"cases": tuple(cases)})


LAYER = Layer(name="a", macs=0.5)


def test_an_effect_is_the_mean_over_cases_of_the_worst_region_for_each_origin_by_itself() -> None:
    full = record({"a": ("real", 0.1, 0.3, 0.2), "b": ("real", 0.5, 0.1, 0.0), "c": ("phantom", 0.01, 0.02, 0.03)})
    better = record({"a": ("real", 0.1, 0.1, 0.2), "b": ("real", 0.4, 0.1, 0.0), "c": ("phantom", 0.04, 0.02, 0.03)})
    effect = effect_of(LAYER, full, better)
    assert effect.dice == pytest.approx({"real": (0.3 + 0.5) / 2 - (0.2 + 0.4) / 2, "phantom": 0.03 - 0.04})


def test_cases_without_a_label_count_by_agreement_alone() -> None:
    full, better = (record({"a": ("real", *drops)}, labelled=False) for drops in ((0.1, 0.3, 0.2), (0.1, 0.05, 0.2)))
    effect = effect_of(LAYER, full, better)
    assert (effect.dice, effect.agreement) == ({}, pytest.approx({"real": 0.3 - 0.2}))


def test_a_layer_that_hurts_cases_of_one_origin_only_is_found_all_the_same() -> None:
    """The worst origin is hurt by another layer; a figure that mixed them, or looked at the worst alone, would rank this one last."""
    world = Planted(layers=4)

    def drift(keep_float: tuple[str, ...]) -> DriftRecord:
        real, phantom = (0.0 if name in keep_float else harm for name, harm in (("layer3", 0.3), ("layer1", 0.05)))
        return record({"a": ("real", real, real, real), "b": ("phantom", phantom, phantom, phantom)})

    found = world.search(measure=lambda keep: world.measure(keep).model_copy(update={"drift": drift(keep)}))
    assert [effect.layer.name for effect in found.effects][:2] == ["layer3", "layer1"]
    assert found.keep_float == ("layer1", "layer3")
