"""The columns of a run's figures, defined once for the terminal, Markdown, CSV, JSON and HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from edge_latup.bench.records import TimingRow
from edge_latup.bench.speed_up import speed_up, times_as_fast
from edge_latup.bench.store import LoadedRun
from edge_latup.bench.summary import DriftSummary, executed
from edge_latup.spec import Region

Value = str | int | float | None
Item = TypeVar("Item")
MISSING: Final = "\N{EN DASH}"


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What a line of the timing table is read from."""

    row: TimingRow
    run: LoadedRun


@dataclass(frozen=True, kw_only=True)
class Drifted:
    """What a line of a drift table is read from."""

    artifact: str
    drift: DriftSummary


@dataclass(frozen=True, kw_only=True)
class Column(Generic[Item]):
    """One column: its key in CSV and JSON, its heading, what it means, where its value comes from and how it is shown."""

    name: str
    header: str
    unit: str = ""
    about: str
    value: Callable[[Item], Value]
    spec: str = ""
    """Python format of a number."""
    full: bool = False
    """Left out where room is short, as on a terminal."""

    @property
    def heading(self) -> str:
        """Header and unit."""
        return f"{self.header} {self.unit}".rstrip()

    def show(self, item: Item) -> str:
        """The value as people read it."""
        return shown(self.value(item), self.spec)


def shown(value: Value, spec: str) -> str:
    """A number in a format, text as it is, a dash for what does not exist; nothing is shown as minus zero."""
    if value is None:
        return MISSING
    text = format(value, spec)
    return text.lstrip("+-") if spec.startswith("+") and not text.strip("+-0.,") else text


def _interval(line: Timed) -> tuple[float, float] | tuple[None, None]:
    return speed_up(line.run, line.row, line.run.baseline).interval or (None, None)


def _drop(region: Region) -> Callable[[Drifted], Value]:
    return lambda line: line.drift.dice_drop.get(region)


TIMING: Final[tuple[Column[Timed], ...]] = (
    Column(name="artifact", header="artifact", about="Name of the model that was timed.", value=lambda line: line.row.artifact),
    Column(name="runtime", header="runtime", about="Software that executed it.", value=lambda line: line.row.runtime),
    Column(name="precision", header="declared", about="Precision the artifact declares.", full=True, value=lambda line: line.row.precision),
    Column(
        name="executed",
        header="executed",
        about="Precision read back from the runtime: the float part, and the share of multiply-accumulates that ran in 8-bit integers.",
        value=lambda line: executed(line.row),
    ),
    Column(name="p50_ms", header="p50", unit="ms", about="Median latency of one input.", value=lambda line: line.row.p50_ms, spec=",.1f"),
    Column(name="p90_ms", header="p90", unit="ms", about="90th percentile of latency.", value=lambda line: line.row.p90_ms, spec=",.1f"),
    Column(name="n", header="n", about="Latency samples, after the warm-up.", value=lambda line: len(line.row.samples_ms), spec="d"),
    Column(
        name="speed_up",
        header="speed-up",
        about="Median latency of the baseline divided by this one's, in the same run on the same machine; "
        "of rows run in turns, the median over the rounds of that ratio within each.",
        value=lambda line: times_as_fast(line.run, line.row, line.run.baseline),
        spec=",.2f",
    ),
    Column(
        name="speed_up_low",
        header="speed-up from",
        about="Of rows run in turns, the lower end of that median's 95 % confidence interval.",
        full=True,
        value=lambda line: _interval(line)[0],
        spec=",.2f",
    ),
    Column(
        name="speed_up_high",
        header="to",
        about="Its upper end.",
        full=True,
        value=lambda line: _interval(line)[1],
        spec=",.2f",
    ),
    Column(
        name="crops_per_s",
        header="crops/s",
        about="Inputs per second of one stream.",
        full=True,
        value=lambda line: line.row.crops_per_second,
        spec=",.3f",
    ),
    Column(
        name="load_s",
        header="load",
        unit="s",
        about="Reading and compiling the model, from a cold cache.",
        value=lambda line: line.row.load_ms / 1000,
        spec=",.2f",
    ),
    Column(
        name="first_inference_ms",
        header="first",
        unit="ms",
        about="The first inference after loading.",
        full=True,
        value=lambda line: line.row.first_inference_ms,
        spec=",.1f",
    ),
    Column(
        name="peak_rss_mib",
        header="peak RSS",
        unit="MiB",
        about="Peak resident memory of the whole process.",
        value=lambda line: line.row.peak_rss_bytes / 2**20,
        spec=",.0f",
    ),
    Column(
        name="rss_delta_mib",
        header="RSS delta",
        unit="MiB",
        about="That peak minus what the process held after its imports, before the model was loaded.",
        full=True,
        value=lambda line: line.row.rss_delta_bytes / 2**20,
        spec=",.0f",
    ),
    Column(
        name="file_mb",
        header="file",
        unit="MB",
        about="Size of the model files; a megabyte is 1,000,000 bytes.",
        value=lambda line: line.row.model_bytes / 1e6,
        spec=",.2f",
    ),
    Column(
        name="file_percent",
        header="file",
        unit="%",
        about="That size in per cent of the reference's.",
        value=lambda line: 100 * line.row.model_bytes / line.run.reference.model_bytes,
        spec=",.1f",
    ),
    Column(
        name="int8_percent",
        header="INT8",
        unit="%",
        about="That share, unrounded; declared INT8 beyond it is warned of.",
        full=True,
        value=lambda line: 100 * line.row.audit.executed_int8 if line.row.audit else None,
        spec=",.1f",
    ),
)

DRIFT: Final[tuple[Column[Drifted], ...]] = (
    Column(name="artifact", header="candidate", about="Name of the model compared with the reference.", value=lambda line: line.artifact),
    Column(name="cases", header="cases", about="Cases that were evaluated.", full=True, value=lambda line: line.drift.cases, spec="d"),
    Column(
        name="labelled",
        header="labelled",
        about="Of these, cases with a label: n of the drops.",
        value=lambda line: line.drift.labelled,
        spec="d",
    ),
    Column(
        name="dice_drop_wt",
        header="Dice drop WT",
        about="Mean drop (reference minus candidate), whole tumour.",
        value=_drop("WT"),
        spec="+.4f",
    ),
    Column(name="dice_drop_tc", header="Dice drop TC", about="The same, tumour core.", value=_drop("TC"), spec="+.4f"),
    Column(name="dice_drop_et", header="Dice drop ET", about="The same, enhancing tumour.", value=_drop("ET"), spec="+.4f"),
    Column(
        name="worst_dice_drop",
        header="worst drop",
        about="Largest Dice drop of any labelled case and region.",
        value=lambda line: line.drift.worst.drop if line.drift.worst else None,
        spec="+.4f",
    ),
    Column(
        name="worst_at",
        header="worst at",
        about="Region and case of that drop, where there is one.",
        full=True,
        value=lambda line: f"{line.drift.worst.region} {line.drift.worst.case}" if line.drift.worst and line.drift.worst.drop > 0 else None,
    ),
    Column(
        name="iou_drop",
        header="IoU drop",
        about="Mean of reference minus candidate over labelled cases and regions, intersection over union.",
        value=lambda line: line.drift.iou_drop,
        spec="+.5f",
    ),
    Column(
        name="agreement",
        header="agreement",
        about="Mean Dice of the candidate's output with the reference's, over cases and regions.",
        value=lambda line: line.drift.agreement,
        spec=".4f",
    ),
    Column(
        name="hd95_change_mm",
        header="HD95 change",
        unit="mm",
        about="Mean of |candidate minus reference| of the 95 % Hausdorff distance to the label.",
        value=lambda line: line.drift.hd95_change_mm,
        spec=".3f",
    ),
    Column(
        name="hd95_n",
        header="HD95 n",
        about="Pairs of case and region in which both distances exist.",
        full=True,
        value=lambda line: line.drift.hd95_n,
        spec="d",
    ),
    Column(
        name="volume_change_ml",
        header="volume change",
        unit="mL",
        about="Mean of |candidate minus reference| of the volume, over cases and regions.",
        value=lambda line: line.drift.volume_change_ml,
        spec=".3f",
    ),
)
