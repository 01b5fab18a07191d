"""The golden case: a small phantom and what each artifact makes of it, so that a target can prove that it computes the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edge_latup.artifact import Artifact
from edge_latup.cases.cohort import write_phantom
from edge_latup.cases.layout import CaseFiles, files_in
from edge_latup.cases.phantom import make_phantom
from edge_latup.cases.read import read_case
from edge_latup.errors import VerificationError
from edge_latup.manifest import Precision, RuntimeName, Sha256
from edge_latup.records import Record, read_record, write_record
from edge_latup.runtimes.base import Batch
from edge_latup.segmentation.engine import Predictor, segment
from edge_latup.segmentation.prepare import crop_input
from edge_latup.spec import ModelSpec

FOLDER: Final = "golden"
RECORD: Final = "golden.json"
CASE: Final = "case"
SEED, INDEX = 2026, 2
"""A phantom with all three classes."""
SHAPE: Final = (128, 128, 112)
SAMPLES: Final = 4096
"""Voxels whose class probabilities are kept."""


class Tolerance(Record):
    """How far another machine may be from what is expected."""

    relative_l2: float = Field(gt=0)
    """Of the sampled probabilities."""
    same_class: float = Field(gt=0, le=1)
    """Share of the case's voxels that must get the same label."""


TOLERANCES: Final[dict[Precision, Tolerance]] = {
    "fp32": Tolerance(relative_l2=2e-3, same_class=0.999),
    "bf16": Tolerance(relative_l2=0.02, same_class=0.995),
    "fp16": Tolerance(relative_l2=0.02, same_class=0.995),
    "int8": Tolerance(relative_l2=0.045, same_class=0.995),
}
"""By the lowest precision in an artifact: other instruction sets sum in another order and round elsewhere.

INT8 of the demo network, expected with AVX-512-VNNI and computed with another instruction set, stays within half of its tolerance: on
x86 (tests/integration/test_golden_isas.py, slow) and on emulated aarch64, the farthest seen (tests/integration/test_aarch64_bundle.py).
"""


class Limits(Record):
    """What the maker of the bundle promised; None promises nothing."""

    latency_ms: float | None = Field(None, gt=0)
    """Median of one network input."""
    peak_bytes: int | None = Field(None, gt=0)
    """Of the whole process."""


class Expectation(Record):
    """What one artifact makes of the golden case."""

    artifact: str
    """Folder, relative to the bundle."""
    digest: Sha256
    runtime: RuntimeName
    """That computed the expectation."""
    numerics: Literal["executed", "reference"] = "executed"
    """"executed": the runtime that the target uses computed it. "reference": of a TensorRT artifact, whose graph ONNX Runtime computed
    node by node in float on the CPU, since its engine can only be built on the target."""
    tolerance: Tolerance
    limits: Limits = Limits()
    file: str
    """Beside golden.json: labels, and probabilities at some voxels."""


class Golden(Record):
    """golden.json: the case, and what is expected of each artifact, best first."""

    schema_version: int = Field(1, ge=1, le=1)
    case: str = CASE
    expectations: tuple[Expectation, ...] = Field(min_length=1)


class Expected:
    """Arrays of one expectation: labels uint8 (x, y, z), and float32 (n, channels) probabilities at n voxels of the input."""

    def __init__(self, labels: NDArray[np.uint8], voxels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
        self.labels, self.voxels, self.probabilities = labels, voxels, probabilities

    def write(self, path: Path) -> None:
        """Write a compressed .npz; the same arrays give the same bytes."""
        np.savez_compressed(path, labels=self.labels, voxels=self.voxels, probabilities=self.probabilities)

    @classmethod
    def read(cls, path: Path) -> Expected:
        """Read what `write` wrote.

        Raises:
            VerificationError: it is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["labels"], arrays["voxels"], arrays["probabilities"])
        except (OSError, ValueError, KeyError) as error:
            raise VerificationError(f"{path} is not an expectation: {error}", "install the bundle again") from error


def golden_input(files: CaseFiles, spec: ModelSpec) -> Batch:
    """(1, C, x, y, z): one network input of the golden case, normalised as the spec says."""
    image, _ = crop_input(read_case(files, spec.modalities, with_label=False), spec, spec.spatial.size)
    batch: Batch = np.ascontiguousarray(image[None])
    return batch


def sampled(output: Batch, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, channels): class probabilities at flat voxel numbers of a (1, channels, x, y, z) output."""
    flat = output[0].reshape(output.shape[1], -1)
    chosen: NDArray[np.float32] = np.ascontiguousarray(flat[:, voxels].T)
    return chosen


def computed(session: Predictor, files: CaseFiles, spec: ModelSpec, voxels: NDArray[np.int64] | None = None) -> Expected:
    """What an opened artifact, or its reference numerics, makes of the golden case; at seeded voxels unless they are given."""
    output = session.infer(golden_input(files, spec))
    if voxels is None:
        number = int(np.prod(output.shape[2:]))
        voxels = np.sort(np.random.default_rng(0).choice(number, min(SAMPLES, number), replace=False))
    label = segment(session, spec, read_case(files, spec.modalities, with_label=False)).label
    return Expected(label, voxels, sampled(output, voxels))


def write_golden_case(folder: Path) -> CaseFiles:
    """Write the phantom, without its label, into folder/case."""
    files = write_phantom(make_phantom(SEED, INDEX, shape=SHAPE), folder, CASE)
    if files.label is not None:
        files.label.unlink()
    return golden_files(folder)


def golden_files(folder: Path, case: str = CASE) -> CaseFiles:
    """The golden case's files.

    Raises:
        VerificationError: they are not there.
    """
    files = files_in(folder / case) if (folder / case).is_dir() else None
    if files is None:
        raise VerificationError(f"{folder / case} holds no case", "install the bundle again")
    return files


def tolerance_of(artifact: Artifact) -> Tolerance:
    """Of the lowest precision in an artifact."""
    manifest = artifact.manifest
    return TOLERANCES["int8" if manifest.precision == "int8" else manifest.float_precision]


def write_golden(folder: Path, expectations: Iterable[Expectation]) -> Golden:
    """Write golden.json."""
    golden = Golden(expectations=tuple(expectations))
    write_record(golden, folder / RECORD)
    return golden


def read_golden(folder: Path) -> Golden:
    """Read golden.json."""
    return read_record(Golden, folder / RECORD)
