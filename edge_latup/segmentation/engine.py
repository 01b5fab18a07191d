"""Segment one case: prepare, infer, paste back, on the case's own grid."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.read import Case
from edge_latup.errors import InputError
from edge_latup.runtimes.base import Session
from edge_latup.segmentation.prepare import CropBox, Image, centre_box, normalise_after_crop, normalise_before_crop, oriented
from edge_latup.spec import CentreCrop, ModelSpec, Size, SlidingWindow


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A canonical label map uint8 on the case's grid, and the seconds each stage took."""

    label: NDArray[np.uint8]
    seconds: dict[str, float]


def segment(session: Session, spec: ModelSpec, case: Case) -> Segmentation:
    """Run `spec`'s spatial policy on a case.

    Raises:
        InputError: the session takes another size than the spec's crop or window.
    """
    _check_size(session, spec)
    began = time.perf_counter()
    volume = normalise_before_crop(oriented(case, spec), spec.normalisation)
    prepared = time.perf_counter()
    channels = _crop(session, spec, volume) if isinstance(spec.spatial, CentreCrop) else _slide(session, spec, volume, spec.spatial)
    inferred = time.perf_counter()
    values = np.array(spec.labels, dtype=np.uint8)[channels]
    label = np.ascontiguousarray(case.grid.restore(values, spec.orientation)).astype(np.uint8)
    seconds = {"normalise": prepared - began, "infer": inferred - prepared, "paste": time.perf_counter() - inferred}
    return Segmentation(label=label, seconds=seconds)


def _check_size(session: Session, spec: ModelSpec) -> None:
    want = (1, len(spec.modalities), *spec.spatial.size)
    if any(have not in (-1, size) for have, size in zip(session.input_shape, want, strict=True)):
        raise InputError(
            f"the model takes {session.input_shape}, the spec's {spec.spatial.kind} gives {want}",
            "export for that size: edge-latup export CHECKPOINT --size ...",
        )


def _crop(session: Session, spec: ModelSpec, volume: Image) -> NDArray[np.intp]:
    box = centre_box(volume.shape, spec.spatial.size)
    batch = normalise_after_crop(box.cut(volume).astype(np.float32), spec.normalisation)[None]
    channels: NDArray[np.intp] = box.paste(session.infer(batch)[0].argmax(axis=0)).astype(np.intp)
    return channels


def window_starts(length: int, size: int, overlap: float) -> list[int]:
    """Window starts along one axis: a stride of size * (1 - overlap), the last window aligned with the end.

    An axis shorter than the window has one, centred, whose start is negative.
    """
    if length <= size:
        return [(length - size) // 2]
    stride = max(1, math.floor(size * (1 - overlap)))
    return [*range(0, length - size, stride), length - size]


def window_boxes(shape: Size, policy: SlidingWindow) -> list[CropBox]:
    """All windows over a volume, in raster order."""
    axes = [window_starts(length, size, policy.overlap) for length, size in zip(shape, policy.size, strict=True)]
    return [CropBox(start=(x, y, z), size=policy.size, shape=shape) for x, y, z in itertools.product(*axes)]


def _slide(session: Session, spec: ModelSpec, volume: Image, policy: SlidingWindow) -> NDArray[np.intp]:
    """Mean of the probabilities of all windows over a voxel, then the best class."""
    shape = (int(volume.shape[1]), int(volume.shape[2]), int(volume.shape[3]))
    total = np.zeros((len(spec.labels), *shape), dtype=np.float32)
    for box in window_boxes(shape, policy):
        batch = normalise_after_crop(box.cut(volume).astype(np.float32), spec.normalisation)[None]
        box.add(session.infer(batch)[0], total)
    # The mean's denominator is the same for all classes of a voxel, so the sum decides.
    best: NDArray[np.intp] = total.argmax(axis=0)
    return best
