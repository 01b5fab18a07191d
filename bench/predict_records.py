"""Records of predictions. Each carries the label "predicted", which no record of a measurement takes, so the two never share a table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edge_latup.manifest import Precision
from edge_latup.records import Record
from edge_latup.targets.roofline import OperationKind


class LayerPrediction(Record):
    """One operation with what is fused into it."""

    name: str
    kind: OperationKind
    precision: Precision
    macs: int
    bytes_moved: int
    bound_ms: float
    likely_ms: float | None
    """None where the likely value is one factor for the whole network."""


class MemoryPrediction(Record):
    """Bytes at the peak of one inference, by what takes them, and what the target has for them."""

    weights: int
    activations: int
    """Most alive at once."""
    arrays: int
    """Input and output as the caller holds them."""
    runtime: int
    """Libraries and scratch; an assumption where nothing could be measured."""
    available: int
    """The target's memory without the system's share, which is an assumption."""
    fits: bool
    reason: str = ""
    """Why it does not fit."""
    instead: str = ""
    """The next best option where it does not fit."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.activations + self.arrays + self.runtime


class EnergyPrediction(Record):
    """Energy of one inference in a power mode: never more than the mode's limit for as long as it takes."""

    mode: str
    watts: float
    milliseconds: float | None
    """Likely latency in this mode; None where the mode's clocks are not known or no likely value exists."""
    joules_at_most: float | None
    """Watts times the slow end of the likely range."""


class Prediction(Record):
    """What an artifact is expected to do on a target. Nothing of it was measured on that target."""

    schema_version: Literal[1] = 1
    label: Literal["predicted"] = "predicted"
    artifact: str
    artifact_sha256: str
    target: str
    target_title: str
    input_shape: tuple[int, ...]
    precision: Precision
    threads: int | None = None
    """Of an x86 target; None for all of its cores, and for others."""
    macs: int
    bound_ms: float = Field(gt=0)
    """No runtime is faster: peak rate, peak bandwidth, no product with padding, nothing charged for what can be fused or cached.
    Where `probed`, the rates are what a probe reached, so this is no bound."""
    probed: bool = False
    likely_ms: float | None
    likely_range_ms: tuple[float, float] | None
    method: str
    """How the likely value was found."""
    error: str
    """What is known of its error."""
    evidence: str
    """What was, and was not, executed."""
    memory: MemoryPrediction
    energy: tuple[EnergyPrediction, ...] = ()
    notes: tuple[str, ...] = ()
    layers: tuple[LayerPrediction, ...] = ()
