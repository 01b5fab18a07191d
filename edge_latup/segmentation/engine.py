"""Segment one case: prepare, infer, paste back, on the case's own grid."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.read import Case
from edge_latup.errors import ArtifactError, InputError
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
        ArtifactError: the model's output holds NaN, or has another number of classes than the spec.
        InputError: the session takes another size than the spec's crop or window.
    """
    _check_size(session, spec)
    began = time.perf_counter()
    volume = normalise_before_crop(oriented(case, spec), spec.normalisation)
    prepared = time.perf_counter()
    values = _crop(session, spec, volume) if isinstance(spec.spatial, CentreCrop) else _slide(session, spec, volume, spec.spatial)
    inferred = time.perf_counter()
    label = np.ascontiguousarray(case.grid.restore(values, spec.orientation))
    seconds = {"normalise": prepared - began, "infer": inferred - prepared, "paste": time.perf_counter() - inferred}
    return Segmentation(label=label, seconds=seconds)


def _check_size(session: Session, spec: ModelSpec) -> None:
    have, want = session.input_shape, spec.input_shape
    if len(have) != len(want) or any(size not in (-1, wanted) for size, wanted in zip(have, want, strict=True)):
        raise InputError(
            f"the model takes {have}, the spec's {spec.spatial.kind} gives {want}",
            "export for that size: edge-latup export CHECKPOINT --size ...",
        )


def _probabilities(session: Session, spec: ModelSpec, volume: Image, box: CropBox) -> Image:
    """Class probabilities float32 (classes, *box.size) of one crop."""
    batch = normalise_after_crop(box.cut(volume).astype(np.float32), spec.normalisation)[None]
    found: Image = session.infer(batch)[0]
    if len(found) != len(spec.labels):
        raise ArtifactError(f"the model gives {len(found)} classes, its spec declares {len(spec.labels)} labels", "correct the spec")
    if not np.isfinite(found).all():
        raise ArtifactError("the model's output holds NaN or infinity: no label map can be made of it", "use another artifact or precision")
    return found


def _label_values(spec: ModelSpec, classes: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The canonical label of each voxel's class."""
    values: NDArray[np.uint8] = np.array(spec.labels, dtype=np.uint8)[classes]
    return values


def _crop(session: Session, spec: ModelSpec, volume: Image) -> NDArray[np.uint8]:
    """Labels of the centre crop; background outside it, whichever class the background is."""
    box = centre_box(volume.shape, spec.spatial.size)
    return box.paste(_label_values(spec, _probabilities(session, spec, volume, box).argmax(axis=0)))


def window_starts(length: int, size: int, overlap: float) -> list[int]:
    """Window starts along one axis: a stride of size * (1 - overlap), the last window aligned with the end.

    An axis shorter than the window has one, centred, whose start is negative.
    """
    if length <= size:
        return [(length - size) // 2]
    stride = max(1, size - math.floor(size * overlap + 1e-9))  # 0.29 of 200 is 58, whatever binary fractions make of it
    return [*range(0, length - size, stride), length - size]


def window_boxes(shape: Size, policy: SlidingWindow) -> list[CropBox]:
    """All windows over a volume, in raster order."""
    axes = [window_starts(length, size, policy.overlap) for length, size in zip(shape, policy.size, strict=True)]
    return [CropBox(start=(x, y, z), size=policy.size, shape=shape) for x, y, z in itertools.product(*axes)]


def _slide(session: Session, spec: ModelSpec, volume: Image, policy: SlidingWindow) -> NDArray[np.uint8]:
    """The label whose mean probability, over all windows that hold the voxel, is the largest."""
    shape = (int(volume.shape[1]), int(volume.shape[2]), int(volume.shape[3]))
    total = np.zeros((len(spec.labels), *shape), dtype=np.float32)
    for box in window_boxes(shape, policy):
        box.add(_probabilities(session, spec, volume, box), total)
    # The mean's denominator is the same for all classes of a voxel, so the sum decides.
    return _label_values(spec, total.argmax(axis=0))
