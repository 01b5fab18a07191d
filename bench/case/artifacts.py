"""The artifacts a comparison takes where none are named: those of the newest demo run, made where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact
from edge_latup.bench.demo import CALIBRATION_CASES, CALIBRATION_SEED, compress, make_phantoms, time_stamp
from edge_latup.bench.run import Entry
from edge_latup.export.torch_onnx import export_onnx, export_reference

REFERENCE: Final = "pytorch"
NEEDED: Final = (REFERENCE, "fp32", "int8")
COMPARED: Final = ("fp32", "bf16", "int8", "int8-bf16")
"""In the order of rows; those in BF16 are left out where this CPU does not compute in it."""


@dataclass(frozen=True, kw_only=True)
class DemoArtifacts:
    """The reference and the forms of it that are compared."""

    reference: Artifact
    entries: tuple[Entry, ...]


def newest_artifacts(demo: Path) -> Path | None:
    """Folder of the artifacts of the newest demo run that got as far as int8; None where there is none."""
    found = sorted(demo.glob("*/artifacts"), reverse=True)
    return next((folder for folder in found if all((folder / name / MANIFEST_NAME).is_file() for name in NEEDED)), None)


def make_artifacts(demo: Path, checkpoint: Path, progress: Callable[[str], None]) -> Path:
    """Export and compress a checkpoint as `edge-latup demo` does, into a run folder of its own under `demo`.

    Raises:
        EdgeLatupError: any step's own error.
    """
    calibration, folder = demo / "phantoms-calibration", demo / time_stamp() / "artifacts"
    make_phantoms(calibration, CALIBRATION_SEED, CALIBRATION_CASES, progress)
    progress("exporting to ONNX and proving parity with PyTorch")
    export_reference(checkpoint, folder / REFERENCE)
    compress(export_onnx(checkpoint, folder / "fp32"), folder, calibration, progress)
    return folder


def open_artifacts(folder: Path) -> DemoArtifacts:
    """Open what lies in the artifacts folder of a demo run.

    Raises:
        ArtifactError: one of them is altered.
    """
    present = [folder / name for name in COMPARED if (folder / name / MANIFEST_NAME).is_file()]
    entries = tuple(Entry(artifact=open_artifact(path), runtime="openvino") for path in present)
    return DemoArtifacts(reference=open_artifact(folder / REFERENCE), entries=entries)
