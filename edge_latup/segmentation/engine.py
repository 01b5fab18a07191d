"""Segment one case in memory: prepare, infer by the spec's spatial policy, post-process, back onto the case's own grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.read import Case
from edge_latup.errors import ArtifactError, InputError
from edge_latup.runtimes.base import Batch
from edge_latup.segmentation.blend import Slab, SlabBlender
from edge_latup.segmentation.postprocess import post_process
from edge_latup.segmentation.prepare import (
    CropBox,
    Image,
    brain_box,
    centre_box,
    check_spacing,
    framed,
    head_of,
    normalise_after_crop,
    off_network_grid,
    turned,
    whole_volumes,
)  # fmt: skip
from edge_latup.segmentation.views import TURNS, as_logits, as_probabilities, paint, vote
from edge_latup.segmentation.windows import importance, window_boxes, with_head
from edge_latup.spec import REGION_THRESHOLD, BrainCrop, ModelSpec, Size, SlidingWindow


@dataclass
class Clock:
    """Seconds of each stage, summed over the times it was entered."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside towards `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


class Predictor(Protocol):
    """What segmentation asks of an opened artifact."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, D, H, W); -1 where the size is free."""
        ...

    def infer(self, batch: Batch) -> Batch:
        """Probabilities float32 (N, channels, D, H, W) of float32 (N, C, D, H, W)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """A case made ready for the network.

    channels: raw intensities float32 (x, y, z) of each modality: the one crop, or views of the whole volume that windows are cut from.
    boxes: where the network looks, in the order it looks.
    windows: how many boxes there were before those without head were left out.
    shape: of the whole volume in the spec's orientation, or of the part of it that windows are cut from.
    frame: where that part lies; None where it is the whole volume.
    """

    channels: Sequence[Image]
    boxes: Sequence[CropBox]
    windows: int
    shape: Size
    frame: CropBox | None = None

    @property
    def input_size(self) -> Size:
        """Spatial size of every network input."""
        return self.boxes[0].size if self.boxes else self.shape


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A canonical label map uint8 on the case's grid, the seconds each stage took, and how many of the windows were run."""

    label: NDArray[np.uint8]
    seconds: dict[str, float]
    windows: int = 1
    windows_run: int = 1


def prepare(case: Case, spec: ModelSpec) -> Task:
    """Orient, normalise what must see the whole volume, and find where the network is to look.

    Raises:
        InputError: the policy does not suit a network whose output is smaller than its input, or the case has another voxel size.
    """
    if conflict := spec.margin_conflict():
        raise InputError(conflict, "use --policy sliding-window with a --window that leaves room inside the margin, and other --tta")
    check_spacing(case, spec)
    raw, frame = framed(turned(case, spec), spec)
    channels = whole_volumes(case, spec, raw)
    x, y, z = channels[0].shape
    policy, shape = spec.spatial, (x, y, z)
    if isinstance(policy, SlidingWindow):
        boxes = window_boxes(shape, policy, spec.output_margin)
        kept = with_head(boxes, head_of(case, spec, channels, raw), spec.output_margin) if policy.skip_air else boxes
        return Task(channels=channels, boxes=kept, windows=len(boxes), shape=shape, frame=frame)
    if isinstance(policy, BrainCrop):
        box = brain_box(head_of(case, spec, channels, raw), spec.divisor, square="rotate" in spec.views)
    else:
        box = centre_box(shape, policy.size)
    # The crop alone is kept: the volume around it is memory that inference needs.
    return Task(channels=[box.cut(channel) for channel in channels], boxes=[box], windows=1, shape=shape)


def infer(session: Predictor, spec: ModelSpec, task: Task, clock: Clock | None = None) -> NDArray[np.uint8]:
    """Canonical labels uint8 of the task's volume, in the spec's orientation, before post-processing of components.

    Raises:
        ArtifactError: the model's output holds NaN, or has another number of classes than the spec.
        InputError: the session takes another size than the spec's policy gives.
    """
    clock = clock or Clock()
    _check_size(session, spec, task.input_size)
    if isinstance(spec.spatial, SlidingWindow):
        labels = _slide(session, spec, task, clock)
        return labels if task.frame is None else task.frame.paste(labels)
    box = task.boxes[0].within(spec.output_margin)
    outputs = _outputs(session, spec, task.channels, clock)
    with clock.stage("blend"):
        return box.paste(_label_values(spec, outputs))


def segment(session: Predictor, spec: ModelSpec, case: Case) -> Segmentation:
    """Run `spec`'s spatial policy, views and post-processing on a case.

    Raises:
        ArtifactError, InputError: see `infer`.
        MissingDependencyError: the spec's post-processing needs a package that is not installed.
    """
    clock = Clock()
    with clock.stage("normalise"):
        task = prepare(case, spec)
    values = infer(session, spec, task, clock)
    label = finish(values, case, spec, clock)
    return Segmentation(label=label, seconds=clock.seconds, windows=task.windows, windows_run=len(task.boxes))


def finish(values: NDArray[np.uint8], case: Case, spec: ModelSpec, clock: Clock) -> NDArray[np.uint8]:
    """Bring labels in the spec's orientation back onto the case's grid, and post-process them there."""
    with clock.stage("post-process"):
        kept = post_process(off_network_grid(values, case, spec), spec.post_process)
        return np.ascontiguousarray(case.grid.restore(kept, spec.orientation))


def _check_size(session: Predictor, spec: ModelSpec, size: Size) -> None:
    have, want = session.input_shape, (1, len(spec.modalities), *size)
    if len(have) != len(want) or any(own not in (-1, wanted) for own, wanted in zip(have, want, strict=True)):
        raise InputError(
            f"the model takes {have}, the spec's {spec.spatial.kind} gives {want}",
            "export for that size: edge-latup export CHECKPOINT --size ...",
        )


def _probabilities(session: Predictor, spec: ModelSpec, batch: Image) -> Image:
    """Class probabilities float32 (classes, D, H, W) of one normalised crop (channels, D, H, W)."""
    found: Image = session.infer(batch[None])[0]
    if len(found) != spec.channels:
        raise ArtifactError(
            f"the model gives {len(found)} classes, its spec declares {spec.channels} {spec.channel_kind}", "correct the spec"
        )
    expected = tuple(side - 2 * lost for side, lost in zip(batch.shape[1:], spec.output_margin, strict=True))
    if found.shape[1:] != expected:
        raise ArtifactError(
            f"the model gives {found.shape[1:]} for {batch.shape[1:]}, its spec declares {expected}", "correct output_margin"
        )
    # A sum is NaN or infinite as soon as one term is, and needs no array of its own.
    if not np.isfinite(found.sum(dtype=np.float64)):
        raise ArtifactError("the model's output holds NaN or infinity: no label map can be made of it", "use another artifact or precision")
    return found


def _outputs(session: Predictor, spec: ModelSpec, channels: Sequence[Image], clock: Clock) -> list[Image]:
    """Probabilities (classes, D, H, W) of each view of a raw crop, turned back, or their mean; of logits where those are averaged."""
    with clock.stage("normalise"):
        batch = np.empty((len(channels), *channels[0].shape), dtype=np.float32)
        for channel, normalised in zip(channels, batch, strict=True):
            normalised[...] = normalise_after_crop(channel[None], spec.normalisation)[0]
    found: list[Image] = []
    for view in spec.views:
        turn = TURNS[view]
        with clock.stage("infer"):
            made = turn.invert(_probabilities(session, spec, np.ascontiguousarray(turn.apply(batch))))
        if spec.averaging == "logits":
            made = as_logits(made, regions=spec.regions is not None)
        if spec.views_by == "mean" and found:
            found[0] = found[0] + made
        else:
            found.append(made)
    if spec.views_by == "mean":
        found[0] /= np.float32(len(spec.views))
    return found


def _label_values(spec: ModelSpec, outputs: Sequence[Image], covered: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """The canonical label of each voxel: the views' vote, then the threshold; background where nothing looked."""
    if spec.averaging == "logits":
        outputs = [as_probabilities(output, regions=spec.regions is not None) for output in outputs]
    labels = (
        _class_values(spec, outputs)
        if spec.regions is None
        else paint(outputs, spec.regions, spec.post_process.threshold or REGION_THRESHOLD)
    )
    if covered is not None:
        labels[~covered] = 0
    return labels


def most_probable(output: Image) -> NDArray[np.unsignedinteger[Any]]:
    """`output.argmax(axis=0)` of (classes, D, H, W); plane by plane and class by class, in a fraction of numpy's time for that axis."""
    winner = np.zeros(output.shape[1:], dtype=np.min_scalar_type(len(output)))
    for plane, won in zip(output.swapaxes(0, 1), winner, strict=True):
        best = plane[0]
        for index in range(1, len(plane)):
            won[plane[index] > best] = index  # of equals the first stays
            best = np.maximum(best, plane[index])
    return winner


def _class_values(spec: ModelSpec, outputs: Sequence[Image]) -> NDArray[np.uint8]:
    mean: Image = outputs[0] if len(outputs) == 1 else np.asarray(np.mean(outputs, axis=0, dtype=np.float32))
    winner = vote([most_probable(output) for output in outputs], mean)
    labels: NDArray[np.uint8] = np.array(spec.labels, dtype=np.uint8)[winner]
    if spec.post_process.threshold is not None:
        labels[np.take_along_axis(mean, winner[None], axis=0)[0] < spec.post_process.threshold] = 0
    return labels


def _slide(session: Predictor, spec: ModelSpec, task: Task, clock: Clock) -> NDArray[np.uint8]:
    """Labels of the weighted mean over windows, slab by slab: probabilities of the whole volume are never held."""
    policy = spec.spatial
    if not isinstance(policy, SlidingWindow):
        raise TypeError(f"{policy.kind} has no windows")
    labels = np.zeros(task.shape, dtype=np.uint8)
    weights = importance(spec.output_size, policy.blending)
    blenders = [SlabBlender(task.shape, weights, spec.channels) for _ in range(1 if spec.views_by == "mean" else len(spec.views))]
    for box in task.boxes:
        outputs = _outputs(session, spec, [box.cut(channel) for channel in task.channels], clock)
        with clock.stage("blend"):
            predicted = box.within(spec.output_margin)
            _label_slabs(spec, [list(blender.add(predicted, output)) for blender, output in zip(blenders, outputs, strict=True)], labels)
    with clock.stage("blend"):
        _label_slabs(spec, [list(blender.finish()) for blender in blenders], labels)
    return labels


def _label_slabs(spec: ModelSpec, slabs: Sequence[Sequence[Slab]], labels: NDArray[np.uint8]) -> None:
    """Decide the slabs that the views' blenders let go of, in place; all of them let go of the same planes."""
    for views in zip(*slabs, strict=True):
        first = views[0]
        labels[first.first : first.last] = _label_values(spec, [view.mean for view in views], first.covered)


def labels_of(spec: ModelSpec, output: Image) -> NDArray[np.uint8]:
    """Canonical labels (D, H, W) of one output of a session (classes, D, H, W), before small components are removed."""
    if spec.averaging == "logits":
        output = as_logits(output, regions=spec.regions is not None)
    return _label_values(spec, [output])
