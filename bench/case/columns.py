"""The columns of a comparison, defined once for the terminal, Markdown and JSON, and where a row's gain comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge_latup.bench.case.plan import FULL
from edge_latup.bench.case.policies import ONE_PASS
from edge_latup.bench.case.records import CaseRow
from edge_latup.bench.case.store import LoadedComparison
from edge_latup.bench.columns import Column, Value
from edge_latup.spec import Region


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a line of the table is read from."""

    row: CaseRow
    run: LoadedComparison


@dataclass(frozen=True, kw_only=True)
class Gain:
    """MONAI's full-volume seconds divided by a row's, taken apart: `voxels` x `runtime` x `precision` is `total`.

    voxels: MONAI on the full volume against PyTorch by the row's policy. runtime: PyTorch against our FP32 row of that policy.
    precision: that FP32 row against the row itself.
    """

    row: str
    total: float
    voxels: float
    runtime: float
    precision: float


def gains(run: LoadedComparison) -> list[Gain]:
    """The gain of each of our rows whose policy PyTorch ran too; none where MONAI was left out."""
    found: list[Gain] = []
    if run.full is None:
        return found
    for name, row in run.rows.items():
        pytorch = FULL if row.policy == "sliding-window" else next(iter(_pytorch(run, row)), None)
        fp32 = _fp32(run, row)
        if row.engine == "edge-latup" and row.runtime != "pytorch" and pytorch is not None and fp32 is not None:
            base = run.rows[pytorch].p50_s
            found.append(
                Gain(
                    row=name, total=run.full.p50_s / row.p50_s, voxels=run.full.p50_s / base, runtime=base / run.rows[fp32].p50_s,
                    precision=run.rows[fp32].p50_s / row.p50_s,
                )
            )  # fmt: skip
    return found


def _pytorch(run: LoadedComparison, row: CaseRow) -> list[str]:
    same = (name for name, other in run.rows.items() if other.policy == row.policy and other.runtime == "pytorch")
    return [name for name in same if row.policy in ONE_PASS]


def _fp32(run: LoadedComparison, row: CaseRow) -> str | None:
    """The row that this one's label map is compared with, or itself where that is MONAI's or none."""
    agreement = run.agreement(row.name)
    if agreement is None or agreement.against == run.record.full:
        return row.name
    return agreement.against


def _agreement(region: Region) -> Callable[[Line], Value]:
    def value(line: Line) -> Value:
        found = line.run.agreement(line.row.name)
        return None if found is None else found.dice.get(region)

    return value


def _accuracy(region: Region) -> Callable[[Line], Value]:
    return lambda line: line.run.record.accuracy.get(line.row.name, {}).get(region)


def _times(line: Line, other: CaseRow | None) -> Value:
    return None if other is None else other.p50_s / line.row.p50_s


def _against(line: Line) -> Value:
    found = line.run.agreement(line.row.name)
    return None if found is None else found.against


def executed(row: CaseRow) -> str | None:
    """What was read back: the float part, and how many convolutions ran in 8-bit integers."""
    if row.executed_float is None:
        return None
    eight = sum(count for precision, count in row.executed_convolutions.items() if precision in ("i8", "u8"))
    total = sum(row.executed_convolutions.values())
    return f"{row.executed_float} + {eight}/{total} conv i8" if eight or row.precision == "int8" else row.executed_float


COLUMNS: Final[tuple[Column[Line], ...]] = (
    Column(name="row", header="row", about="Artifact and policy, or MONAI and what it saw.", value=lambda line: line.row.name),
    Column(name="engine", header="engine", about="What segmented.", full=True, value=lambda line: line.row.engine),
    Column(name="policy", header="policy", about="Where the network looked.", full=True, value=lambda line: line.row.policy),
    Column(name="runtime", header="runtime", about="What executed the network.", full=True, value=lambda line: line.row.runtime),
    Column(name="executed", header="executed", about="Precision read back from the runtime.", value=lambda line: executed(line.row)),
    Column(
        name="cold_s",
        header="cold",
        unit="s",
        about="The first run, files to label map: loads the model; of a command, with an empty cache.",
        value=lambda line: line.row.runs[0].total,
        spec=",.2f",
    ),
    Column(
        name="p50_s",
        header="p50",
        unit="s",
        about="Median of the later runs: model loaded; of a command, from a new process with a filled cache. "
        "Where there is one run, that run without loading.",
        value=lambda line: line.row.p50_s,
        spec=",.2f",
    ),
    Column(name="n", header="n", about="Runs after the first.", value=lambda line: len(line.row.warm), spec="d"),
    Column(name="infer_s", header="infer", unit="s", about="Of p50, in the network.", value=lambda line: line.row.infer_s, spec=",.2f"),
    Column(name="around_s", header="rest", unit="s", about="Run minus network, median.", value=lambda line: line.row.around_s, spec=",.3f"),
    Column(
        name="peak_rss_mib",
        header="peak RSS",
        unit="MiB",
        about="Peak resident memory of the whole process.",
        value=lambda line: line.row.peak_rss_bytes / 2**20,
        spec=",.0f",
    ),
    Column(
        name="windows",
        header="windows",
        about="Network inputs that were run, of all.",
        value=lambda line: f"{line.row.windows_run}/{line.row.windows}",
        spec="",
    ),
    Column(
        name="skipped_percent",
        header="skipped",
        unit="%",
        about="Share of windows left out because they hold no head.",
        full=True,
        value=lambda line: 100 * line.row.skipped,
        spec=".0f",
    ),
    Column(
        name="ratio_full",
        header="x full",
        about="p50 of MONAI on the full volume divided by this row's, in this run.",
        value=lambda line: _times(line, line.run.full),
        spec=",.2f",
    ),
    Column(
        name="ratio_foreground",
        header="x crop",
        about="The same, of MONAI on its foreground crop.",
        value=lambda line: _times(line, line.run.foreground),
        spec=",.2f",
    ),
    Column(name="agreement_wt", header="agree WT", about="Dice with the label map of `against`.", value=_agreement("WT"), spec=".4f"),
    Column(name="agreement_tc", header="TC", about="The same, tumour core.", value=_agreement("TC"), spec=".4f"),
    Column(name="agreement_et", header="ET", about="The same, enhancing tumour.", value=_agreement("ET"), spec=".4f"),
    Column(name="against", header="against", about="Row whose label map it is compared with.", full=True, value=_against),
    Column(name="dice_wt", header="Dice WT", about="Dice with the case's label.", full=True, value=_accuracy("WT"), spec=".4f"),
    Column(name="dice_tc", header="Dice TC", about="The same, tumour core.", full=True, value=_accuracy("TC"), spec=".4f"),
    Column(name="dice_et", header="Dice ET", about="The same, enhancing tumour.", full=True, value=_accuracy("ET"), spec=".4f"),
)

GAINS: Final[tuple[Column[Gain], ...]] = (
    Column(name="row", header="row", about="Artifact and policy.", value=lambda gain: gain.row),
    Column(name="total", header="gain", about="MONAI on the full volume / this row.", value=lambda gain: gain.total, spec=",.2f"),
    Column(name="voxels", header="fewer voxels", about="MONAI / PyTorch by this policy.", value=lambda gain: gain.voxels, spec=",.2f"),
    Column(name="runtime", header="runtime", about="That PyTorch row / our FP32 row.", value=lambda gain: gain.runtime, spec=",.2f"),
    Column(name="precision", header="precision", about="Our FP32 row / this row.", value=lambda gain: gain.precision, spec=",.2f"),
)
