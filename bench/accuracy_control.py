"""Accuracy-controlled INT8: which layers have to stay float for the gate to accept, found by whole cases and not by tensor error.

First the two ends: everything in INT8, and every convolution in float. Where the gate refuses the first and accepts the second, each
layer is ranked by what leaving it alone in float gives back; layers go to float in that order, twice as many at each step, until the
gate accepts; then each of them is tried in INT8 again, the least harmful first. So the ranking decides how long the search takes, and
not what it finds: where one layer ruins the output, leaving another in float shows nothing, and a ranking alone would miss that one.

Where leaving more in float never turns accepted into refused, no single layer of the result can go back to INT8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

from edge_latup.bench.accuracy_records import ControlStep, Layer, LayerEffect, Measurement, Outcome, StepKind
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateDecision, GateRule
from edge_latup.bench.records import CaseDrift, DriftRecord
from edge_latup.bench.summary import ORIGINS
from edge_latup.cases.identity import CaseOrigin

Measure = Callable[[tuple[str, ...]], Measurement]
"""Makes the candidate with these layers in float, in the order of the network, and measures it on the development cases."""


DECIMALS: Final = 9
"""Gains that differ by less are equal: what is left is the rounding of sums."""


class _OutOfStepsError(Exception):
    """The gate may not be asked about another candidate."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """How a search ended. keep_float: None where no candidate was accepted."""

    outcome: Outcome
    keep_float: tuple[str, ...] | None
    layers: tuple[Layer, ...]
    effects: tuple[LayerEffect, ...]
    steps: tuple[ControlStep, ...]
    untried: int = 0


@dataclass(kw_only=True)
class Search:
    """One search, deterministic in what `measure` and `layers` give.

    Args:
        layers: the INT8 convolutions of the full candidate, in the order of the network; asked once that candidate was measured.
        measure: measures a candidate; the same candidate is asked for more than once.
        rule: the gate's.
        max_steps: candidates that may come before the gate after the ranking; None sets no limit.
        tell: gets a line at each step.
    """

    layers: Callable[[], tuple[Layer, ...]]
    measure: Measure
    rule: GateRule
    max_steps: int | None = None
    tell: Callable[[str], None]
    _steps: list[ControlStep] = field(default_factory=list)
    _refused: set[frozenset[str]] = field(default_factory=set)
    _known: tuple[Layer, ...] = ()
    _ranked: tuple[LayerEffect, ...] = ()
    _limit: int | None = None

    def run(self) -> Found:
        """Search to the end."""
        full = self._gate("all INT8", (), frozenset())
        self._known = self.layers()
        if full.accepted:
            return self._found("INT8 accepted as it is", frozenset())
        if self.measure(()).unexecuted is not None or not self._known:
            return self._found("refused: INT8 does not run here")
        if not self._gate("all float", (), frozenset(layer.name for layer in self._known)).accepted:
            return self._found("refused: convolutions are not to blame")
        self._ranked = self._rank()
        self._limit = None if self.max_steps is None else len(self._steps) + self.max_steps
        try:
            return self._return_layers(self._revert())
        except _OutOfStepsError:
            return self._found("refused: out of steps")

    def _rank(self) -> tuple[LayerEffect, ...]:
        """Most harmful first; of equally harmful ones first what has fewer multiply-accumulates, and so costs less time in float."""
        full = self.measure(()).drift
        effects = []
        for index, layer in enumerate(self._known):
            effects.append(effect_of(layer, full, self.measure((layer.name,)).drift))
            self.tell(f"ranking {index + 1}/{len(self._known)}: {layer.name} alone in float gives back {_told(effects[-1].dice)} Dice")
        return tuple(sorted(effects, key=lambda effect: (-_most(effect.dice), -_most(effect.agreement), effect.layer.macs)))

    def _revert(self) -> frozenset[str]:
        """Leave 1, 2, 4, ... layers in float until the gate accepts, which it is known to do with all of them."""
        names, count, before = [effect.layer.name for effect in self._ranked], 1, 0
        while count < len(names):
            if self._gate("to float", names[before:count], frozenset(names[:count])).accepted:
                break
            before, count = count, 2 * count
        return frozenset(names[:count])

    def _return_layers(self, chosen: frozenset[str]) -> Found:
        """Try each layer in INT8 again, the least harmful first."""
        untried = [effect.layer.name for effect in self._ranked if effect.layer.name in chosen]
        while untried:
            name = untried[-1]
            try:
                if self._without(name, chosen):
                    chosen -= {name}
            except _OutOfStepsError:
                break
            untried.pop()
        if len(chosen) < len(self._known):
            return self._found("INT8 accepted with layers in float", chosen, untried=len(untried))
        return self._found("refused: out of steps" if untried else "refused: INT8 cannot meet the rule")

    def _without(self, name: str, chosen: frozenset[str]) -> bool:
        """Whether the gate accepts `chosen` with one layer back in INT8; it is not asked again what it refused on the way there."""
        fewer = chosen - {name}
        return fewer not in self._refused and self._gate("back to INT8", (name,), fewer).accepted

    def _gate(self, kind: StepKind, moved: Sequence[str], kept: frozenset[str]) -> ControlStep:
        if self._limit is not None and len(self._steps) >= self._limit:
            raise _OutOfStepsError
        measured = self.measure(self._in_order(kept))
        step = _step(len(self._steps) + 1, kind, moved, measured, judge(measured.drift, self.rule))
        self._steps.append(step)
        if not step.accepted:
            self._refused.add(kept)
        self.tell(step_line(step))
        return step

    def _in_order(self, kept: frozenset[str]) -> tuple[str, ...]:
        return tuple(layer.name for layer in self._known if layer.name in kept)

    def _found(self, outcome: Outcome, kept: frozenset[str] | None = None, untried: int = 0) -> Found:
        return Found(
            outcome=outcome, keep_float=None if kept is None else self._in_order(kept), layers=self._known, effects=self._ranked,
            steps=tuple(self._steps), untried=untried,
        )  # fmt: skip


def _step(number: int, kind: StepKind, moved: Sequence[str], measured: Measurement, decision: GateDecision) -> ControlStep:
    regions = [figures for finding in decision.origins for figures in finding.regions]
    unexecuted = () if measured.unexecuted is None else (f"it did not run what it declares: {measured.unexecuted}",)
    return ControlStep(
        number=number, kind=kind, moved=tuple(moved), keep_float=measured.keep_float, int8_macs=measured.int8_macs,
        mean_drop=max((figures.mean_drop for figures in regions), default=0.0),
        worst_drop=max((figures.worst.drop for figures in regions), default=0.0),
        accepted=decision.accepted and not unexecuted, reasons=(*unexecuted, *decision.reasons),
    )  # fmt: skip


def step_line(step: ControlStep) -> str:
    """One step in one line."""
    moved = f" {', '.join(step.moved)}" if step.moved else ""
    kept = f"{len(step.keep_float)} in float"
    told = "accepted" if step.accepted else f"refused: {step.reasons[0]}"
    return f"step {step.number}, {step.kind}:{moved} ({kept}, largest mean drop {step.mean_drop:.4f}) {told}"


def effect_of(layer: Layer, full: DriftRecord, reverted: DriftRecord) -> LayerEffect:
    """What leaving `layer` in float gives back, for the cases of each origin by themselves."""
    return LayerEffect(layer=layer, dice=_gain(_harm, full, reverted), agreement=_gain(_disagreement, full, reverted))


def _gain(loss: Callable[[Sequence[CaseDrift]], float | None], full: DriftRecord, reverted: DriftRecord) -> dict[CaseOrigin, float]:
    gains = {}
    for origin in ORIGINS:
        before, after = (loss([case for case in record.cases if case.origin == origin]) for record in (full, reverted))
        if before is not None and after is not None:
            gains[origin] = before - after
    return gains


def _harm(cases: Sequence[CaseDrift]) -> float | None:
    """Mean over labelled cases of the worst region's Dice drop; None without a labelled case."""
    drops = [[drift.dice_drop for drift in case.regions.values() if drift.dice_drop is not None] for case in cases]
    return fmean(max(regions) for regions in drops if regions) if any(drops) else None


def _disagreement(cases: Sequence[CaseDrift]) -> float | None:
    return fmean(1 - min(drift.agreement for drift in case.regions.values()) for case in cases) if cases else None


def _most(gains: dict[CaseOrigin, float]) -> float:
    """Of the origin where it helps most: the gate refuses for one origin alone, so a help there must not drown in the others."""
    return round(max(gains.values(), default=0.0), DECIMALS)


def _told(gains: dict[CaseOrigin, float]) -> str:
    return ", ".join(f"{gain:+.4f} ({origin})" for origin, gain in gains.items()) or "no"
