"""What static quantization looks at: foreground-aware crops of cases that are never evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.identity import case_digest
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import Case, read_case
from edge_latup.errors import CaseError
from edge_latup.manifest import SeenCase
from edge_latup.segmentation.prepare import (
    CropBox,
    centre_box,
    check_spacing,
    framed,
    normalise_after_crop,
    onto_network_grid,
    turned,
    whole_volumes,
)
from edge_latup.spec import ModelSpec, Size

Image = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Network inputs float32 (1, C, D, H, W) and the cases they come from."""

    inputs: tuple[Image, ...]
    cases: tuple[SeenCase, ...]


def _foreground(case: Case, spec: ModelSpec, frame: CropBox | None) -> NDArray[np.bool_]:
    """Tumour on the network's grid, in the part of the volume that the policy sees; the head where no tumour is."""
    image = case.images[spec.modalities[0]]
    for mask in (case.label > 0 if case.label is not None else np.zeros(image.shape, dtype=bool), image > image.min()):
        seen = onto_network_grid(mask, case, spec)
        seen = seen if frame is None else frame.view(seen)
        if seen.any():
            break
    return seen


def _foreground_box(mask: NDArray[np.bool_], size: Size, rng: np.random.Generator) -> CropBox:
    """A crop that holds a random voxel of the mask, kept inside the volume."""
    x, y, z = mask.shape
    voxels = np.argwhere(mask)
    centre = voxels[int(rng.integers(len(voxels)))]
    starts = [int(np.clip(c - s // 2, min(0, n - s), max(0, n - s))) for c, s, n in zip(centre, size, mask.shape, strict=True)]
    return CropBox(start=(starts[0], starts[1], starts[2]), size=size, shape=(x, y, z))


def crops_of(case: Case, spec: ModelSpec, size: Size, count: int, rng: np.random.Generator) -> list[Image]:
    """`count` normalised crops of the volume as it is prepared for segmentation, each float32 (1, C, *size).

    The first is the centre, which the policy centre-crop deploys; the others are foreground-aware.

    Raises:
        InputError: its voxels have another size than the spec says.
    """
    check_spacing(case, spec)
    raw, frame = framed(turned(case, spec), spec)
    volume = np.stack(whole_volumes(case, spec, raw))
    mask = _foreground(case, spec, frame)
    x, y, z = mask.shape
    boxes = [centre_box((x, y, z), size), *(_foreground_box(mask, size, rng) for _ in range(count - 1))]
    return [normalise_after_crop(box.cut(volume).astype(np.float32), spec.normalisation)[None] for box in boxes]


def make_calibration(folders: Sequence[Path], spec: ModelSpec, *, crops_per_case: int = 1, seed: int = 0) -> Calibration:
    """Read the calibration cases and cut their crops; deterministic in its arguments.

    Raises:
        CaseError: no case, or one that cannot be read.
        InputError: one whose voxels have another size than the spec says.
    """
    rng = np.random.default_rng(seed)
    inputs: list[Image] = []
    cases: list[SeenCase] = []
    for files in (files for folder in folders for files in find_cases(folder)):
        case = read_case(files, spec.modalities)
        inputs.extend(crops_of(case, spec, spec.spatial.size, crops_per_case, rng))
        cases.append(SeenCase(name=case.name, sha256=case_digest(case)))
    if not cases:
        raise CaseError("static int8 needs calibration cases", "give a folder of cases that will not be evaluated on: --calibration DIR")
    return Calibration(inputs=tuple(inputs), cases=tuple(cases))
