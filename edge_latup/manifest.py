"""The manifest of an artifact: what the model is, what was done to it, and what was measured when it was made."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from edge_latup.records import Record
from edge_latup.spec import ModelSpec

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""What a multiplication is done in. INT8 artifacts keep a float part (norms, attention, softmax)."""
Storage = Literal["float32", "float16", "bfloat16", "int8"]
"""What the weights are stored in, which says nothing of how fast the model runs."""
RuntimeName = Literal["openvino", "onnxruntime", "pytorch", "tensorrt"]
Format = Literal["onnx", "openvino-ir", "checkpoint"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

MODEL_FILES: Final[dict[Format, tuple[str, ...]]] = {
    "onnx": ("model.onnx",),
    "openvino-ir": ("model.xml", "model.bin"),
    "checkpoint": ("model.safetensors",),
}
"""The files of each format; the first is the one a runtime opens."""


class FileRecord(Record):
    """One file of the artifact."""

    name: str
    size: int = Field(ge=0)
    """Bytes."""
    sha256: Sha256


class Step(Record):
    """One thing that was done, with every parameter and the versions of the tools that did it."""

    operation: str
    parameters: dict[str, Any] = {}
    versions: dict[str, str] = {}


class Parity(Record):
    """How far an output is from the reference's on one real-sized input."""

    reference: str
    candidate: str
    input: str
    input_shape: tuple[int, ...]
    max_abs: float
    """Largest absolute difference of class probabilities."""
    relative_l2: float
    argmax_agreement: float
    """Share of voxels given the same class."""
    tolerance: dict[str, float] = {}
    """The bounds that were applied; empty where the figures are only recorded."""


class Mismatch(Record):
    """A layer whose declared precision did not run."""

    layer: str
    declared: str
    """As `Precision`."""
    executed: str | None
    """As `Precision`, or the runtime's own word for another type; None where the runtime names no kernel for the layer."""
    macs: float = Field(ge=0, le=1)
    """Share of the model's multiply-accumulates."""


class AuditSummary(Record):
    """In which precision a runtime executed a model, as shares of multiply-accumulates (see `runtimes.audit`)."""

    runtime: str
    declared_int8: float = Field(ge=0, le=1)
    executed_int8: float = Field(ge=0, le=1)
    executed: dict[str, float]
    """By precision; what was executed by no kernel that could be named is missing."""
    mismatched: float = Field(ge=0, le=1)
    """In layers that did not run in the precision declared for them."""
    mismatches: tuple[Mismatch, ...] = ()
    """Largest first."""


class SeenCase(Record):
    """A case that shaped a model (its weights or its ranges), so that figures on it can be told from test figures."""

    name: str
    sha256: Sha256
    """Of its voxels (see `cases.identity`), so that a renamed copy is still recognised."""


class SeenCases(Record):
    """seen.json beside a checkpoint: every case its weights were trained on."""

    cases: tuple[SeenCase, ...]


class Manifest(Record):
    """Written as manifest.json in the artifact's folder."""

    schema_version: Literal[1] = 1
    name: str
    spec: ModelSpec
    format: Format
    runtimes: tuple[RuntimeName, ...]
    """The runtimes this artifact was made for; the first is the default."""
    precision: Precision
    float_precision: Precision = "fp32"
    """Precision of what is not INT8 (or of everything, for a float artifact)."""
    storage: Storage
    input_shape: tuple[int, ...]
    """(N, C, D, H, W); -1 where the size is free."""
    recipe: tuple[Step, ...] = ()
    parity: tuple[Parity, ...] = ()
    audit: AuditSummary | None = None
    """Of the kernels that ran when a compressed artifact was examined on its first runtime; None where nothing could be audited."""
    trained_on: tuple[SeenCase, ...] = ()
    """As far as known: a checkpoint without seen.json tells nothing."""
    calibration: tuple[SeenCase, ...] = ()
    """Never to be evaluated on."""
    files: tuple[FileRecord, ...] = ()

    @property
    def model_size(self) -> int:
        """Bytes of all model files."""
        return sum(file.size for file in self.files)
