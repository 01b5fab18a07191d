"""What to ship on each instruction set of a sweep, in words that follow from its rows; and whether INT8 pays there.

Ratios are taken only between rows of one instruction set, one runtime, one number of threads and one sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edge_latup.bench.disturbance import disturbance
from edge_latup.bench.executed import not_executed
from edge_latup.bench.gate import judge
from edge_latup.bench.gate_records import GateRule
from edge_latup.bench.judging import count
from edge_latup.bench.pareto import drift_of
from edge_latup.bench.records import TimingRow
from edge_latup.bench.summary import executed
from edge_latup.bench.sweep_records import SweepRow
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.bench.verdict import GAIN
from edge_latup.manifest import RuntimeName
from edge_latup.targets.isa import LEVELS, NATIVE, IsaName

Refusals = dict[tuple[str, RuntimeName], str]
"""Why the artifact of a name is not to be shipped on a runtime; empty where it may be."""
RUNS: Final = ("run", "runs")
THREADS: Final = ("thread", "threads")
NO_DRIFT: Final = "its drift on labelled cases was not measured as it runs here"


@dataclass(frozen=True, kw_only=True)
class SweepVerdict:
    """One instruction set.

    use: the row to ship, None where nothing could be judged. int8: whether INT8 pays, in one sentence. refused: reason by artifact and
    runtime. caveats: how far the statement reaches.
    """

    isa: IsaName
    use: TimingRow | None
    headline: str
    int8: str
    reasons: tuple[str, ...]
    refused: dict[str, str]
    caveats: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """A measured row; `refused` is empty where drift accepts it. `best_float`: what an INT8 row is held against."""

    row: TimingRow
    refused: str
    best_float: TimingRow | None

    @property
    def name(self) -> str:
        return f"{self.row.artifact} on {self.row.runtime}"

    @property
    def is_int8(self) -> bool:
        return self.row.precision == "int8"

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the best float row of its runtime and threads."""
        return None if self.best_float is None else self.best_float.p50_ms / self.row.p50_ms

    @property
    def without_gain(self) -> bool:
        return self.is_int8 and self.ratio is not None and self.ratio < GAIN


def sweep_verdicts(sweep: LoadedSweep, rule: GateRule | None = None) -> list[SweepVerdict]:
    """One verdict for each instruction set, by the gate's rule (its defaults unless given)."""
    return [_verdict(sweep, isa, rule or GateRule()) for isa in sweep.isas]


def _verdict(sweep: LoadedSweep, isa: IsaName, rule: GateRule) -> SweepVerdict:
    judged = _judged(sweep, isa, rule)
    accepted = [one for one in judged if not one.refused]
    gaining = [one for one in accepted if not one.without_gain]
    use = min(gaining, key=lambda one: one.row.p50_ms, default=None)
    return SweepVerdict(
        isa=isa,
        use=use.row if use else None,
        headline=_headline(sweep, isa, use, judged),
        int8=_int8(sweep, isa, judged),
        reasons=tuple(_reasons(use, accepted)) if use else (),
        refused={one.name: one.refused or _no_gain(one) for one in judged if one.refused or one.without_gain},
        caveats=tuple(_caveats(sweep, isa, judged)),
    )


def _judged(sweep: LoadedSweep, isa: IsaName, rule: GateRule) -> list[_Judged]:
    rows = sweep.timings(isa)
    refused: Refusals = {(row.artifact, row.runtime): _refusal(sweep, row, rule) for row in rows}
    return [_Judged(row=row, refused=refused[row.artifact, row.runtime], best_float=_best_float(sweep, row, refused)) for row in rows]


def _refusal(sweep: LoadedSweep, row: TimingRow, rule: GateRule) -> str:
    """Why a row is not to be shipped, whatever its speed."""
    if missed := not_executed(row):
        return f"it did not run what it declares: {missed}"
    if row.artifact == sweep.record.reference:
        return ""
    record = drift_of(sweep, row)
    if record is None:
        return NO_DRIFT
    decision = judge(record, rule)
    return "" if decision.accepted else f"the gate refuses it: {_first(decision.reasons)}"


def _first(reasons: tuple[str, ...]) -> str:
    """The whole list is what `edge-latup gate` prints."""
    return reasons[0] + (f"; and {count(len(reasons) - 1, ('more reason', 'more reasons'))}" if len(reasons) > 1 else "")


def _best_float(sweep: LoadedSweep, row: TimingRow, refused: Refusals) -> TimingRow | None:
    """The fastest float row of the same runtime and threads: among those the gate does not refuse, where there are any."""
    beside = sweep.floats_beside(row)
    allowed = [one for one in beside if refused[one.artifact, one.runtime] in ("", NO_DRIFT)]
    return min(allowed or beside, key=lambda one: one.p50_ms, default=None)


def _headline(sweep: LoadedSweep, isa: IsaName, use: _Judged | None, judged: list[_Judged]) -> str:
    here = f"on this machine ({sweep.record.host.cpu})" if isa == NATIVE else f"on a CPU with {LEVELS[isa].title} (emulated)"
    if use is not None:
        return f"Ship {use.row.artifact} on {use.row.runtime} with {count(use.row.threads, THREADS)} {here}."
    if not judged:
        return f"No recommendation {here}: nothing was measured."
    if not sweep.record.reference and not sweep.drift:
        return f"No recommendation {here}: what compression costs in Dice is unknown. Give a bench run with --drift."
    return f"No recommendation {here}: no row was accepted."


def _speed(row: TimingRow) -> str:
    return f"{row.p50_ms:,.1f} ms (median of {count(len(row.samples_ms), RUNS)}; {executed(row)})"


def _against(one: _Judged) -> str:
    """An INT8 row beside the best float one."""
    if one.best_float is None:
        return f"{one.name} takes {_speed(one.row)}, with no float row of its runtime and {count(one.row.threads, THREADS)} beside it"
    return (
        f"{one.name} is {one.ratio:.2f} times as fast as {one.best_float.artifact}, the best float one: "
        f"{_speed(one.row)} against {_speed(one.best_float)}, {count(one.row.threads, THREADS)}"
    )


def _no_gain(one: _Judged) -> str:
    return f"it is only {one.ratio:.2f} times as fast as the best float one of its runtime; less than {GAIN} counts as no gain"


def _int8(sweep: LoadedSweep, isa: IsaName, judged: list[_Judged]) -> str:
    """Whether INT8 pays: with the fastest INT8 row that was accepted, else with what stands against each."""
    rows = sorted((one for one in judged if one.is_int8), key=lambda one: one.row.p50_ms)
    if not rows:
        reasons = [row.reason for row in sweep.unmeasured() if row.cell.isa == isa and _is_int8(sweep, row)]
        return f"INT8 was not measured here{': ' + reasons[0] if reasons else ''}."
    paying = [one for one in rows if not one.refused and not one.without_gain and one.best_float is not None]
    if paying:
        return f"INT8 pays here: {_against(paying[0])}; the gate accepts it."
    unknown = [one for one in rows if one.refused == NO_DRIFT and not one.without_gain]
    if unknown:
        return f"Do not ship INT8 yet: {_against(unknown[0])}, but {NO_DRIFT}."
    return f"Do not use INT8 here: {'. '.join(dict.fromkeys(map(_why_not, rows)))}."


def _why_not(one: _Judged) -> str:
    slower = f"; less than {GAIN} counts as no gain" if one.without_gain else ""
    return f"{_against(one)}{slower}{', but it is refused' if one.refused else ''}"


def _is_int8(sweep: LoadedSweep, row: SweepRow) -> bool:
    """Whether an artifact that has no timing here is known as INT8 from where it was timed."""
    same = (other.timing for other in sweep.rows.values() if other.cell.artifact == row.cell.artifact)
    return any(timing is not None and timing.precision == "int8" for timing in same)


def _reasons(use: _Judged, accepted: list[_Judged]) -> Iterator[str]:
    row, size = use.row, " x ".join(map(str, use.row.input_shape[-3:]))
    yield f"It is the fastest of {count(len(accepted), ('accepted row', 'accepted rows'))}: {_speed(row)} for an input of {size} voxels."
    if use.is_int8 and use.best_float is not None:
        yield f"That is {use.ratio:.2f} times as fast as {use.best_float.artifact}, the best float one on {row.runtime}."
    same = [one.row for one in accepted if (one.row.runtime, one.row.threads) == (row.runtime, row.threads)]
    slowest = max(same, key=lambda one: one.p50_ms)
    if slowest.artifact != row.artifact and slowest is not use.best_float:
        yield f"It is {slowest.p50_ms / row.p50_ms:.2f} times as fast as {slowest.artifact} on {row.runtime}."
    yield f"Its file has {row.model_bytes / 1e6:,.2f} MB; its process peaked at {row.peak_rss_bytes / 2**20:,.0f} MiB."
    for other in accepted:
        if other.row.artifact == row.artifact and other.row.runtime == row.runtime and other.row.threads != row.threads:
            yield f"With {count(other.row.threads, THREADS)} it takes {_speed(other.row)}."


def _caveats(sweep: LoadedSweep, isa: IsaName, judged: list[_Judged]) -> Iterator[str]:
    if isa != NATIVE:
        yield (
            f"Emulated: kernels of {LEVELS[isa].title} ran on {sweep.record.host.cpu}, with its clock and memory. "
            "Ratios are indications, milliseconds are not those of such a CPU."
        )
        if sweep.drift:
            yield "Drift was measured with this host's own kernels; those of another instruction set round otherwise: measure it there."
    if fewest := min((len(one.row.samples_ms) for one in judged), default=0):
        yield f"Every median is of at least {count(fewest, RUNS)}; a ratio below {GAIN} is taken for no difference."
    busy = sorted({one.name for one in judged if disturbance(one.row) is not None})
    if busy:
        yield f"The machine was busy with something else, so these are disturbed: {', '.join(busy)}."
