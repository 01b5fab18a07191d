"""What a search for accuracy-controlled INT8 found, as people read it: tables of steps, layers and times, and sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from edge_latup.bench.accuracy_records import ControlResult, ControlStep, Layer, LayerEffect, Timed
from edge_latup.bench.columns import Column, Value
from edge_latup.bench.disturbance import disturbance
from edge_latup.bench.summary import ORIGIN_TITLES, ORIGINS
from edge_latup.bench.table import Table, make_table
from edge_latup.bench.verdict import GAIN
from edge_latup.cases.identity import CaseOrigin

CASES: Final = ("case", "cases")


def _first_reason(step: ControlStep) -> str:
    more = f" (and {len(step.reasons) - 1} more)" if len(step.reasons) > 1 else ""
    return "accepted" if step.accepted else f"refused: {step.reasons[0]}{more}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _megabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e6


STEPS: Final[tuple[Column[ControlStep], ...]] = (
    Column(name="number", header="step", about="In the order of the search.", value=lambda step: str(step.number)),
    Column(name="kind", header="candidate", about="What was changed.", value=lambda step: step.kind),
    Column(name="moved", header="moved", about="The layers that were moved.", value=lambda step: ", ".join(step.moved)),
    Column(name="gate", header="gate", about="On the development cases.", value=_first_reason),
    Column(name="floats", header="float", unit="layers", about="Layers in float.", value=lambda step: len(step.keep_float), spec="d"),
    Column(name="int8", header="INT8", unit="MAC %", about="Executed in INT8.", value=lambda step: _percent(step.int8_macs), spec=".1f"),
    Column(name="mean_drop", header="mean", unit="drop", about="Largest of regions and origins.", value=lambda s: s.mean_drop, spec="+.4f"),
    Column(name="worst_drop", header="worst", unit="drop", about="Largest of a case.", value=lambda step: step.worst_drop, spec="+.4f"),
)
TIMES: Final[tuple[Column[Timed], ...]] = (
    Column(name="artifact", header="artifact", about="Timed in one bench run.", value=lambda timed: timed.artifact),
    Column(name="role", header="as", about="Why it was timed.", value=lambda timed: timed.role),
    Column(
        name="accepted",
        header="gate",
        about="On the cases of that run.",
        value=lambda timed: {True: "accepted", False: "refused", None: "reference"}[timed.accepted],
    ),
    Column(name="p50_ms", header="p50", unit="ms", about="Median latency of one input.", value=lambda timed: timed.p50_ms, spec=",.1f"),
    Column(
        name="model_mb", header="file", unit="MB", about="All model files.", value=lambda timed: _megabytes(timed.model_bytes), spec=".2f"
    ),
    Column(name="dice_drop", header="Dice", unit="drop", about="Worst region's mean.", value=lambda timed: timed.dice_drop, spec="+.5f"),
    Column(name="iou_drop", header="IoU", unit="drop", about="Worst region's mean.", value=lambda timed: timed.iou_drop, spec="+.5f"),
)


def _gain(origin: CaseOrigin, of: Callable[[LayerEffect], dict[CaseOrigin, float]]) -> Callable[[LayerEffect], Value]:
    return lambda effect: of(effect).get(origin)


def _effect_columns(effects: tuple[LayerEffect, ...]) -> tuple[Column[LayerEffect], ...]:
    present = [origin for origin in ORIGINS if any(origin in effect.agreement for effect in effects)]
    dice, agreement = (lambda effect: effect.dice), (lambda effect: effect.agreement)
    return (
        Column(name="layer", header="layer", about="Alone in float.", value=lambda effect: effect.layer.name),
        Column(name="macs", header="MAC", unit="%", about="Of the model.", value=lambda effect: 100 * effect.layer.macs, spec=".1f"),
        *(Column(name=f"dice_{o}", header="Dice back", unit=o, about=ORIGIN_TITLES[o], value=_gain(o, dice), spec="+.4f") for o in present),
        *(
            Column(name=f"agreement_{o}", header="agreement", unit=o, about=ORIGIN_TITLES[o], value=_gain(o, agreement), spec="+.4f")
            for o in present
        ),
    )


def control_tables(result: ControlResult) -> list[Table]:
    """The steps, the ranking where there was one, and the times where something was timed."""
    found = [make_table("Steps", STEPS, list(result.steps), full=True)]
    if result.effects:
        title = "What each INT8 convolution alone in float gives back"
        found.append(make_table(title, _effect_columns(result.effects), list(result.effects), full=True))
    if result.timing:
        found.append(make_table("Times, side by side", TIMES, list(result.timing), full=True))
    return found


def control_lines(result: ControlResult) -> Iterator[str]:
    """The result in sentences: the outcome, what stayed float, what it cost, and how far the choice can be trusted."""
    yield result.outcome + ("" if result.artifact is None else f": {result.artifact}")
    yield from (f"  - {reason}" for reason in _reasons(result))
    if result.timing:
        yield f"{len(result.keep_float)} of {result.convolutions} INT8 convolutions stayed float{_named(result.keep_float)}"
        yield from _cost(result)
    yield _selection(result)


def _reasons(result: ControlResult) -> tuple[str, ...]:
    if result.accepted:
        return ()
    return result.decision.reasons if result.decision is not None else result.steps[-1].reasons


def _named(layers: tuple[Layer, ...]) -> str:
    if not layers:
        return ""
    return f" ({100 * sum(layer.macs for layer in layers):.1f} % of MACs): {', '.join(layer.name for layer in layers)}"


def _cost(result: ControlResult) -> Iterator[str]:
    full, chosen, best = _timed(result, "all INT8"), _timed(result, "chosen"), best_float(result)
    if full is not None and chosen is not None:
        added = chosen.p50_ms - full.p50_ms
        yield f"cost in time: {added:+,.1f} ms ({chosen.p50_ms:,.1f} ms against {full.p50_ms:,.1f} ms with everything in INT8)"
    own = chosen or full
    if own is not None and best is not None:
        yield f"{best.p50_ms / own.p50_ms:.2f} times as fast as {best.artifact}, the fastest float artifact that is accepted"


def _timed(result: ControlResult, role: str) -> Timed | None:
    return next((timed for timed in result.timing if timed.role == role), None)


def best_float(result: ControlResult) -> Timed | None:
    """The fastest float artifact that was timed and that the gate accepts, the reference among them."""
    found = [timed for timed in result.timing if timed.role == "float" and timed.accepted is not False]
    return min(found, key=lambda timed: timed.p50_ms, default=None)


def _selection(result: ControlResult) -> str:
    chosen = f"chosen on {_cases(result.chosen_on)}"
    if not result.timing:
        return f"searched on {_cases(result.chosen_on)}"
    if not result.confirmed_on:
        return f"{chosen}; no other case confirms it"
    return f"{chosen}; judged on {_cases(result.confirmed_on)} that had no part in the choice"


def _cases(names: tuple[str, ...]) -> str:
    return f"{len(names)} {CASES[len(names) != 1]}"


def control_warnings(result: ControlResult) -> Iterator[str]:
    """What a reader must not miss."""
    if result.accepted and not result.confirmed_on:
        yield "the choice was judged on the cases it was made on, which is optimistic: give cases of its own for that with --confirm"
    if result.untried:
        yield f"the steps ended before {result.untried} of the layers were tried in INT8 again: fewer may have to stay float"
    own, best = _timed(result, "chosen") or _timed(result, "all INT8"), best_float(result)
    if own is not None and best is not None and best.p50_ms < GAIN * own.p50_ms:
        yield f"INT8 pays nothing here: {best.artifact} takes {best.p50_ms:,.1f} ms, {own.artifact} {own.p50_ms:,.1f} ms"
    if busy := [timed.artifact for timed in result.timing if disturbance(timed) is not None]:
        yield f"the machine was busy with something else when {', '.join(busy)} was timed: the times are disturbed"
    yield from () if result.decision is None else result.decision.warnings
