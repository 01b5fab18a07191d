"""What INT8 of LATUP-Net must reach over float at 128^3 on each instruction set: one PASS, FAIL or N/A each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from edge_latup.bench.disturbance import disturbance
from edge_latup.bench.executed import not_executed
from edge_latup.bench.records import TimingRow
from edge_latup.bench.summary import int8_convolutions
from edge_latup.bench.sweep_store import LoadedSweep
from edge_latup.manifest import Precision
from edge_latup.targets.host import AMX
from edge_latup.targets.isa import NATIVE, IsaName, title

SIZE: Final = (128, 128, 128)
RUNTIME: Final = "openvino"
Status = Literal["PASS", "FAIL", "N/A"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """INT8 must be `ratio` times as fast as the fastest artifact of precision `over`, of one runtime and number of threads."""

    isa: IsaName
    over: Precision
    ratio: float
    needs: str = ""
    """Instruction set that the host itself must have."""


BOUNDS: Final = (
    Bound(isa="avx2", over="fp32", ratio=1.8),
    Bound(isa="avx2-vnni", over="fp32", ratio=3.2),
    Bound(isa="avx512", over="fp32", ratio=1.5),
    Bound(isa="avx512-vnni", over="fp32", ratio=3.2),
    Bound(isa=NATIVE, over="bf16", ratio=1.4, needs=AMX),
)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One bound against one sweep."""

    bound: Bound
    status: Status
    text: str

    @property
    def line(self) -> str:
        """As it is printed."""
        what = f"{title(self.bound.isa)}: INT8 at least {self.bound.ratio:g} times as fast as {self.bound.over.upper()}"
        return f"{self.status:<4}  {what}: {self.text}"


def check_bounds(sweep: LoadedSweep) -> list[Checked]:
    """Every bound; N/A where the host or the sweep has not what it is about."""
    return [_check(sweep, bound) for bound in BOUNDS]


def _check(sweep: LoadedSweep, bound: Bound) -> Checked:
    if bound.needs and bound.needs not in sweep.record.host.isa:
        return Checked(bound=bound, status="N/A", text=f"this CPU has no {bound.needs}")
    rows = [row for row in sweep.timings(bound.isa) if row.runtime == RUNTIME and row.input_shape[-3:] == SIZE]
    pairs = list(_pairs(rows, bound.over))
    if not pairs:
        size = " x ".join(map(str, SIZE))
        return Checked(
            bound=bound, status="N/A", text=f"the sweep has no pair of {bound.over.upper()} and INT8 rows of {size} on {RUNTIME}"
        )
    eight, other = min(pairs, key=lambda pair: pair[0].p50_ms)
    ratio = other.p50_ms / eight.p50_ms
    text = (
        f"{ratio:.2f} ({eight.artifact} {eight.p50_ms:,.0f} ms, n {len(eight.samples_ms)}; "
        f"{other.artifact} {other.p50_ms:,.0f} ms, n {len(other.samples_ms)}; {eight.threads} threads)"
    )
    for row in (eight, other):
        if (disturbed := disturbance(row)) is not None:
            text += f"; {row.artifact} is disturbed: {disturbed}"
    return Checked(bound=bound, status="PASS" if ratio >= bound.ratio else "FAIL", text=text)


def _pairs(rows: list[TimingRow], over: Precision) -> Iterator[tuple[TimingRow, TimingRow]]:
    """The fastest INT8 row that ran what it declares and the fastest of the other precision, per number of threads that has both."""
    for threads in sorted({row.threads for row in rows}):
        same = [row for row in rows if row.threads == threads]
        eights = [row for row in same if row.precision == "int8" and int8_convolutions(row)[0] and not_executed(row) is None]
        others = [row for row in same if row.precision == over]
        if eights and others:
            yield min(eights, key=lambda row: row.p50_ms), min(others, key=lambda row: row.p50_ms)
