"""What is written beside a label map: which model made it of which files, and how large the tumour is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from edge_latup.manifest import FileRecord, Precision, RuntimeName, Sha256
from edge_latup.records import Record
from edge_latup.spec import Modality, ModelSpec, Region, Spatial

NIFTI_ENDINGS: Final = (".nii.gz", ".nii", ".mha")


class GaveWay(Record):
    """What was asked for, where a memory budget chose smaller windows than that."""

    declared: Spatial
    memory_budget: int = Field(ge=1)
    """Bytes."""


class Settings(Record):
    """Everything that decides a label map besides the model and the images. Same settings, model and files: same bytes."""

    runtime: RuntimeName
    float_precision: Precision
    threads: int = Field(ge=1)
    """Sums are split by thread, so another number may give another last bit."""
    spec: ModelSpec
    """As applied: the artifact's own, with what was overridden."""
    gave_way: GaveWay | None = None
    """None where the declared policy was applied: the budget, if there was one, then decided nothing."""

    @property
    def asked_for(self) -> Settings:
        """The same before a memory budget changed the policy."""
        if self.gave_way is None:
            return self
        spec = self.spec.model_copy(update={"spatial": self.gave_way.declared})
        return self.model_copy(update={"spec": spec, "gave_way": None})


class SegmentationRecord(Record):
    """NAME.json beside NAME.nii.gz. It holds no time and no path, so that the same work gives the same bytes."""

    schema_version: Literal[1] = 1
    case: str
    label_map: FileRecord
    inputs: dict[Modality, FileRecord]
    """The files that were read; the channels of a 4-D file name the same one."""
    artifact: str
    artifact_sha256: Sha256
    settings: Settings
    input_shape: tuple[int, ...]
    """(N, C, D, H, W) of every network input."""
    windows: int = Field(ge=0)
    windows_run: int = Field(ge=0)
    """Without those that hold no voxel of the head."""
    volumes_ml: dict[Region, Annotated[float, Field(ge=0)]]
    versions: dict[str, str]


def sidecar_of(label_map: Path) -> Path:
    """NAME.json for NAME.nii.gz."""
    ending = next((ending for ending in NIFTI_ENDINGS if label_map.name.endswith(ending)), label_map.suffix)
    return label_map.with_name(f"{label_map.name.removesuffix(ending)}.json")
