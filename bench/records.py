"""Records of a bench run: raw samples and per-case values on disk, statistics derived when read."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from edge_latup.cases.identity import CaseOrigin
from edge_latup.manifest import AuditSummary, Format, Precision, RuntimeName, Storage
from edge_latup.metrics.lesionwise import LesionScores
from edge_latup.records import Record
from edge_latup.spec import REGIONS, Region
from edge_latup.targets.host import Host
from edge_latup.targets.isa import IsaName
from edge_latup.targets.telemetry import Telemetry


class TimingRow(Record):
    """One artifact on one runtime, timed in a process of its own. `label` is always "measured" here."""

    schema_version: Literal[1] = 1
    label: Literal["measured"] = "measured"
    artifact: str
    artifact_sha256: str
    format: Format
    runtime: RuntimeName
    runtime_version: str
    precision: Precision
    """Declared by the manifest."""
    storage: Storage
    executed_float: str
    """Precision of the float part, read back from the runtime: "f32", "bf16", "f16"."""
    executed_kernels: dict[str, int]
    """Operations by the precision they were executed in."""
    executed_convolutions: dict[str, int]
    """Convolutions and transposed convolutions by the precision they were executed in."""
    audit: AuditSummary | None = None
    """Declared beside executed precision in shares of MACs, read back after the timing.

    None in records made before it was kept, and where the file's shapes cannot be inferred.
    """
    input_shape: tuple[int, ...]
    threads: int
    warm_up_runs: int
    samples_ms: tuple[float, ...] = Field(min_length=1)
    load_ms: float
    """Reading and compiling the model, from a cold cache."""
    first_inference_ms: float
    peak_rss_bytes: int
    """Of the whole process."""
    rss_delta_bytes: int
    """Peak minus what the process held after its imports and before the model was loaded."""
    model_bytes: int
    load_average: float
    """Of the machine in the minute before the timing began: it counts this tool's own work then."""
    other_busy: float | None = None
    """Mean number of processors that something else kept busy while it was timed; None where that is not known."""
    started: str
    """UTC, ISO 8601."""
    host: Host
    isa: IsaName = "native"
    """Instruction set the kernels were held to."""
    emulated: bool = False
    """Whether that set was chosen by a limit: kernels are then those of the set, clock and memory those of the host."""
    implementations: dict[str, int] = {}
    """Operations by the runtime's own name for their kernel; empty in records made before they were kept."""
    timed_until: float | None = None
    """Unix time at the end of the last timed run, for sensors that were read meanwhile; None in records made before it was kept."""
    telemetry: Telemetry | None = None
    """What the machine's sensors told meanwhile; None where none was read, as in every local run."""

    @property
    def min_ms(self) -> float:
        """Shortest latency."""
        return min(self.samples_ms)

    @property
    def p50_ms(self) -> float:
        """Median latency."""
        return float(np.percentile(self.samples_ms, 50))

    @property
    def p90_ms(self) -> float:
        """90th percentile of latency."""
        return float(np.percentile(self.samples_ms, 90))

    @property
    def crops_per_second(self) -> float:
        """Throughput of the one stream that was timed."""
        return len(self.samples_ms) * 1000 / sum(self.samples_ms)


class RegionDrift(Record):
    """One region of one case: candidate, reference and label."""

    dice_reference: float | None
    """Dice of the reference's output with the label; None where the case has no label."""
    dice_candidate: float | None
    agreement: float
    """Dice of the reference's output with the candidate's."""
    iou_reference: float | None
    iou_candidate: float | None
    hd95_reference_mm: float | None
    """None without a label, or where just one of the two masks is empty and no distance exists."""
    hd95_candidate_mm: float | None
    volume_reference_ml: float
    volume_candidate_ml: float
    lesionwise_reference: LesionScores | None = None
    """None without a label, and in records made before these scores were kept."""
    lesionwise_candidate: LesionScores | None = None
    sensitivity_reference: float | None = None
    """None without a label or where the region is empty in it, and in records made before it was kept. So is specificity."""
    sensitivity_candidate: float | None = None
    specificity_reference: float | None = None
    specificity_candidate: float | None = None

    @property
    def dice_drop(self) -> float | None:
        """Reference minus candidate: positive is worse."""
        if self.dice_reference is None or self.dice_candidate is None:
            return None
        return self.dice_reference - self.dice_candidate

    @property
    def iou_drop(self) -> float | None:
        """Reference minus candidate: positive is worse."""
        if self.iou_reference is None or self.iou_candidate is None:
            return None
        return self.iou_reference - self.iou_candidate


class CaseDrift(Record):
    """One case seen by one candidate and by the reference."""

    case: str
    origin: CaseOrigin
    regions: dict[Region, RegionDrift]


class DriftRecord(Record):
    """One candidate against the reference on every evaluated case."""

    schema_version: Literal[1] = 1
    artifact: str
    artifact_sha256: str
    spec_sha256: str | None = None
    """Of the candidate's model spec, by which the same weights give other label maps; None in older records."""
    runtime: RuntimeName
    executed_float: str
    reference: str
    reference_sha256: str
    reference_runtime: RuntimeName
    regions: tuple[Region, ...] = Field(tuple(REGIONS), min_length=1)
    """What the network can find, which every case holds; of a network of the whole tumour WT alone. All three in older records."""
    cases: tuple[CaseDrift, ...] = Field(min_length=1)


class RunRecord(Record):
    """What a bench run was asked to do; written first, as run.json."""

    schema_version: Literal[1] = 1
    started: str
    command: str
    host: Host
    versions: dict[str, str]
    reference: str
    baseline: str
    """Artifact whose latency the others are divided by."""
    artifacts: tuple[str, ...]
    cases: tuple[str, ...]
    timed_only: tuple[str, ...] = ()
    """Artifacts whose latency and memory were measured but whose output was not compared."""
    turns: int | None = None
    """Rounds in which every row was run once, so that sample i of each is of round i; None where one was timed after the other."""
    pictured_case: str | None
    notes: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[str, ...]:
        """Artifacts whose output was kept and compared."""
        return tuple(name for name in self.artifacts if name not in self.timed_only)
