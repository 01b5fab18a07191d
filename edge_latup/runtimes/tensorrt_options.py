"""How a TensorRT engine is built: options with their cost, the request a build process gets, and the record that stays beside an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field

from edge_latup.errors import InputError
from edge_latup.manifest import AuditSummary, Precision, Sha256
from edge_latup.records import Record

HardwareLevel = Literal["none", "ampere-plus", "same-compute-capability"]
OLDEST: Final = (10, 3)
"""The first TensorRT this runtime is for: that of JetPack 6."""
STRONG_ONLY: Final = 11
"""From this major version on every network is strongly typed, and the flag that asked for it means nothing."""
HARDWARE_LEVELS: Final[dict[HardwareLevel, str]] = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}
"""Option -> member of `tensorrt.HardwareCompatibilityLevel`; the second is not in TensorRT 10.3."""
COSTS: Final[dict[str, str]] = {
    "version-compatible": "runs on later TensorRT versions; can be slower; the plan carries host code, so only a verified file is loaded",
    "ampere-plus": "runs on every GPU from Ampere on; shared memory is capped at 48 KiB and some fusions are off, so it is slower",
    "same-compute-capability": "runs on every GPU of this compute capability; fewer tactics than for this very GPU; not in TensorRT 10.3",
    "tf32": "lets FP32 layers multiply with 10 bits of mantissa on Ampere and newer; faster, and no FP32 reference any more",
    "optimisation-level": "0 to 5, default 3; higher searches longer for faster kernels",
}
"""What an option buys and costs. Sources: docs.nvidia.com/deeplearning/tensorrt: Engine Compatibility, Working with TF32, Builder
Optimization Level; NvInfer.h, HardwareCompatibilityLevel. How much slower was not measured here."""


class EngineOptions(Record):
    """What changes the engine; part of its cache key."""

    version_compatible: bool = False
    hardware: HardwareLevel = "none"
    tf32: bool = False
    """Off, so that an FP32 engine computes FP32."""
    optimisation_level: int = Field(3, ge=0, le=5)
    workspace_mib: int | None = Field(None, ge=1)
    """Most scratch memory of a layer; None: from the memory that is free."""


KEYS: Final = {
    "version-compatible": "version_compatible", "hardware": "hardware", "tf32": "tf32", "optimisation-level": "optimisation_level",
    "workspace-mib": "workspace_mib",
}  # fmt: skip
"""Runtime option -> field."""


def engine_options(given: Mapping[str, str]) -> EngineOptions:
    """The options of an engine from a session's runtime options.

    Raises:
        InputError: there is no such option, or it cannot have that value.
    """
    if unknown := sorted(given.keys() - KEYS.keys()):
        raise InputError(f"TensorRT has no option {unknown[0]!r}", f"its options: {', '.join(KEYS)}")
    try:
        return EngineOptions.model_validate({KEYS[name]: value for name, value in given.items()})
    except ValueError as error:
        told = ", ".join(f"{name}={value}" for name, value in given.items())
        raise InputError(f"an option of TensorRT cannot have this value: {told}", "hardware: none, ampere-plus or same-compute-capability;"
                         " optimisation-level: 0 to 5; workspace-mib: a number; the others: true or false") from error  # fmt: skip


class BuildRequest(Record):
    """What the build process reads."""

    model: str
    """Path of the ONNX file, absolute."""
    plan: str
    """Path to write the engine to."""
    timing_cache: str
    """Path of measured tactics, read where it exists and written."""
    input_shape: tuple[int, ...]
    """(N, C, D, H, W), every size fixed: the one profile of the engine."""
    options: EngineOptions


class BuildReport(Record):
    """What the build process writes beside the plan."""

    tensorrt: str
    workspace_bytes: int
    free_bytes: int
    """Measured right before the build."""
    skipped_tactics: int
    """Kernels that wanted more memory than there was; the build goes on with others."""
    warnings: tuple[str, ...] = ()


class SelfTest(Record):
    """Does the engine give the same answer to the same question? No labels are needed for that."""

    rows: int
    """Answers to one input: identical rows of a batch, and repetitions."""
    max_abs: float
    """Largest difference between two of them, of class probabilities."""
    tolerance: float
    permuted: bool
    """Whether rows were also asked in another order; only where the batch has more than one."""


class EngineRecord(Record):
    """`KEY.json` in the engine folder: an engine is there when this file is."""

    schema_version: Literal[1] = 1
    artifact: Sha256
    gpu: str
    compute_capability: str
    driver: str
    tensorrt: str
    input_shape: tuple[int, ...]
    options: EngineOptions
    precision: Precision
    float_precision: Precision
    engine_file: str
    engine_bytes: int
    engine_sha256: Sha256
    """Verified before the engine is deserialised, because a plan can hold code."""
    build: BuildReport
    audit: AuditSummary
    self_test: SelfTest
    notes: tuple[str, ...] = ()
    """What must be known: skipped tactics, layers in another precision than declared."""
