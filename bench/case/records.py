"""Records of a comparison on one case: every run's seconds and memory on disk, statistics derived when read."""

from __future__ import annotations

from statistics import median
from typing import Literal

from pydantic import Field

from edge_latup.cases.identity import CaseOrigin
from edge_latup.manifest import FileRecord, Precision, RuntimeName, Sha256, Storage
from edge_latup.records import Record
from edge_latup.spec import Modality, ModelSpec, Region
from edge_latup.targets.host import Host

Engine = Literal["edge-latup", "command", "monai"]
"""What segmented: our engine in a worker, `edge-latup segment` as a command, or MONAI's sliding windows over PyTorch."""
Policy = Literal["centre-crop", "brain-crop", "sliding-window", "head-windows", "full", "foreground"]
"""Where the network looked; the last two are MONAI's: the full volume, or the box CropForeground leaves of it."""


class CaseRun(Record):
    """The case once, from its files to the label map's file."""

    seconds: dict[str, float]
    """By stage; "total" is all of it. Of a command, "start" is what it took besides the case: interpreter and imports."""
    peak_rss_bytes: int = Field(ge=0)
    """Of the whole process since it began, so a later run of one process never has less."""
    label_map_sha256: Sha256

    @property
    def total(self) -> float:
        """Seconds of the whole run."""
        return self.seconds["total"]


class CaseRow(Record):
    """One engine, artifact and policy in processes of its own."""

    schema_version: Literal[1] = 1
    label: Literal["measured"] = "measured"
    name: str
    engine: Engine
    policy: Policy
    artifact: str
    artifact_sha256: Sha256
    runtime: RuntimeName
    runtime_version: str
    precision: Precision
    """Declared by the manifest."""
    storage: Storage
    executed_float: str | None
    """Precision of the float part as read back from the runtime; None for a command, which does not tell."""
    executed_convolutions: dict[str, int]
    spec: ModelSpec
    """As applied."""
    input_shape: tuple[int, ...]
    windows: int = Field(ge=0)
    windows_run: int = Field(ge=0)
    threads: int = Field(ge=1)
    runs: tuple[CaseRun, ...] = Field(min_length=1)
    """The first is cold: it loads the model (a command's first also compiles it, into an empty cache). The others are warm."""
    load_average: float
    """Of the machine in the minute before the row began."""
    other_busy: float | None = None
    """Mean number of processors that something else kept busy during its runs; None where that is not known."""
    started: str
    host: Host
    versions: dict[str, str]

    @property
    def warm(self) -> tuple[CaseRun, ...]:
        """The runs after the first."""
        return self.runs[1:]

    @property
    def p50_s(self) -> float:
        """Median of the warm runs; of a row that ran once, that run without loading the model."""
        return self.stage_s("total") if self.warm else self.runs[0].total - self.runs[0].seconds.get("load", 0.0)

    @property
    def infer_s(self) -> float:
        """Median of pure inference."""
        return self.stage_s("infer")

    @property
    def around_s(self) -> float:
        """Median of all but inference: reading, normalising, blending, writing; of a command also starting and loading."""
        loading = 0.0 if self.warm else self.runs[0].seconds.get("load", 0.0)
        return median(run.total - run.seconds.get("infer", 0.0) for run in self._settled) - loading

    @property
    def peak_rss_bytes(self) -> int:
        """The most any run took."""
        return max(run.peak_rss_bytes for run in self.runs)

    @property
    def skipped(self) -> float:
        """Share of the windows that were left out because they hold no head."""
        return 1 - self.windows_run / self.windows if self.windows else 0.0

    @property
    def _settled(self) -> tuple[CaseRun, ...]:
        return self.warm or self.runs

    def stage_s(self, stage: str) -> float:
        """Median seconds of a stage over the warm runs, or of the one run there is."""
        return median(run.seconds.get(stage, 0.0) for run in self._settled)


class Agreement(Record):
    """How far one row's label map is that of another."""

    row: str
    against: str
    label_maps: tuple[Sha256, Sha256]
    """Of the two files, so that it is known which were compared."""
    dice: dict[Region, float]
    identical: bool
    """Every voxel has the same label."""


class ComparisonRecord(Record):
    """What a comparison was asked to do and what its label maps are; written last, as comparison.json."""

    schema_version: Literal[1] = 1
    started: str
    command: str
    host: Host
    versions: dict[str, str]
    case: str
    origin: CaseOrigin
    shape: tuple[int, int, int]
    """Of the case's volumes."""
    inputs: dict[Modality, FileRecord]
    rows: tuple[str, ...]
    full: str | None
    """The row of MONAI on the full volume, by which the others' seconds divide its own; None where MONAI was left out."""
    foreground: str | None
    """The row of MONAI on the foreground, likewise."""
    agreements: tuple[Agreement, ...]
    accuracy: dict[str, dict[Region, float]]
    """Dice of each row's label map with the case's label; empty where the case has none."""
