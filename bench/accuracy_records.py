"""Records of accuracy-controlled INT8: what was asked, each candidate's measurement, and what came of the search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from edge_latup.bench.gate_records import GateDecision, GateRule
from edge_latup.bench.records import DriftRecord
from edge_latup.cases.identity import CaseOrigin
from edge_latup.manifest import RuntimeName, Sha256
from edge_latup.records import Record
from edge_latup.spec import ModelSpec

StepKind = Literal["all INT8", "all float", "to float", "back to INT8"]
Share = Annotated[float, Field(ge=0, le=1)]


class CaseInput(Record):
    """One case as it was given: known by its voxels, not by its name."""

    name: str
    sha256: Sha256
    """Of the modalities that the network reads."""
    label_sha256: Sha256 | None
    """None where the case has no label."""
    origin: CaseOrigin


class ControlInputs(Record):
    """accuracy.json: all that decides the result. A search is only ever continued with the same."""

    schema_version: Literal[1] = 1
    reference: str
    reference_sha256: Sha256
    spec: ModelSpec | None = None
    """Of the reference: its model file does not hold what its outputs mean. None in records of edge-latup before this was kept."""
    runtime: RuntimeName
    threads: int = Field(ge=1)
    settings: dict[str, Any]
    """What else makes a candidate, such as the precision of its float part."""
    calibration: tuple[Sha256, ...]
    development: tuple[CaseInput, ...]
    """Cases that rank the layers and choose among candidates."""
    confirmation: tuple[CaseInput, ...]
    """Cases that judge what was chosen, once; empty where none were left for it."""
    floats: dict[str, Sha256]
    """Float artifacts that were given to time the chosen one beside, by name."""
    rule: GateRule
    versions: dict[str, str]


class Layer(Record):
    """An INT8 convolution of the full candidate, by the name that leaves it in float."""

    name: str
    macs: Share
    """Of the model's multiply-accumulates."""


class Measurement(Record):
    """measurements/NAME.json: one candidate on the development cases. Written when it is complete, never measured again."""

    schema_version: Literal[1] = 1
    keep_float: tuple[str, ...]
    int8_macs: Share | None
    """Share of the multiply-accumulates that ran in INT8 when the candidate was made; None where nothing could be audited."""
    unexecuted: str | None
    """Which of the declared precision did not run; None where it ran."""
    drift: DriftRecord


class LayerEffect(Record):
    """What leaving one layer in float, and no other, gives back on the development cases. Positive: the layer hurts in INT8."""

    layer: Layer
    dice: dict[CaseOrigin, float]
    """By how much the Dice drop falls: mean over labelled cases of the worst region; origins are never averaged together."""
    agreement: dict[CaseOrigin, float]
    """By how much the output's Dice with the reference's output rises: mean over all cases of the worst region. Breaks ties."""


class ControlStep(Record):
    """One candidate before the gate, on the development cases."""

    number: int = Field(ge=1)
    kind: StepKind
    moved: tuple[str, ...]
    """The layers that were moved, most harmful first; empty where all were."""
    keep_float: tuple[str, ...]
    int8_macs: Share | None
    mean_drop: float
    """Largest over regions and origins of the mean Dice drop."""
    worst_drop: float
    """Largest Dice drop of a case in a region."""
    accepted: bool
    reasons: tuple[str, ...]


Outcome = Literal[
    "INT8 accepted as it is",
    "INT8 accepted with layers in float",
    "refused: INT8 cannot meet the rule",
    "refused: convolutions are not to blame",
    "refused: INT8 does not run here",
    "refused: out of steps",
    "refused: not confirmed",
]


class Timed(Record):
    """One artifact of the last bench run, in which all were timed side by side."""

    artifact: str
    role: Literal["float", "all INT8", "chosen"]
    p50_ms: float
    load_average: float
    """Of the machine in the minute before its timing began."""
    other_busy: float | None = None
    """Mean number of processors that something else kept busy meanwhile; None where that is not known."""
    threads: int
    accepted: bool | None
    """By the gate on the cases of that run; None for the reference."""
    model_bytes: int | None = None
    """Of all model files; None in results of before this was kept, as are the drops."""
    dice_drop: float | None = None
    """Largest mean over the regions of the network, reference minus this one, on the labelled cases of that run; None for the reference."""
    iou_drop: float | None = None


class ControlResult(Record):
    """result.json: what to use, what stayed float, what it cost, and which cases say so."""

    schema_version: Literal[1] = 1
    outcome: Outcome
    artifact: str | None
    """Folder of the accepted candidate, inside the folder of the search; None where nothing was accepted."""
    artifact_sha256: Sha256 | None
    keep_float: tuple[Layer, ...]
    """Layers of the chosen candidate that stayed float, in the order of the network."""
    convolutions: int
    """That the full candidate has in INT8."""
    untried: int = 0
    """Layers of `keep_float` that may not have to stay float: the steps ended before they were tried in INT8 again."""
    effects: tuple[LayerEffect, ...]
    """Most harmful first; empty where the search ended before."""
    steps: tuple[ControlStep, ...]
    chosen_on: tuple[str, ...]
    """Names of the development cases."""
    confirmed_on: tuple[str, ...]
    """Names of the confirmation cases; empty where none were given, and then the last decision is optimistic."""
    decision: GateDecision | None
    """The last decision: on the confirmation cases where there are any, else on the development cases. None without a candidate."""
    timing: tuple[Timed, ...]

    @property
    def accepted(self) -> bool:
        """Whether there is a candidate that the gate accepts."""
        return self.artifact is not None
