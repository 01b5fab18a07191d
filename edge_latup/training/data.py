"""Training cases in memory and the patches drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.identity import case_digest
from edge_latup.cases.layout import CaseFiles, find_cases
from edge_latup.cases.read import Case, read_case
from edge_latup.errors import CaseError
from edge_latup.manifest import SeenCase
from edge_latup.segmentation.prepare import (
    CropBox,
    brain_box,
    crop_input,
    head_of,
    normalise_after_crop,
    onto_network_grid,
    turned,
    whole_volumes,
)
from edge_latup.segmentation.standardise import landmarks_of, mean_reference
from edge_latup.spec import LABELS, HistogramReference, Modality, ModelSpec, Size, SlidingWindow
from edge_latup.training.graft import graft

VOXELS_KEPT = 4000
READERS: Final = 2
"""Threads that read cases; each holds a whole case meanwhile."""


@dataclass(frozen=True, kw_only=True)
class TrainingCase:
    """One case's network input: image float16 (channels, D, H, W) in [0, 1], label uint8, some voxels (n, 3) of each class."""

    name: str
    image: NDArray[np.float16]
    label: NDArray[np.uint8]
    voxels: tuple[NDArray[np.intp], ...]
    weight: float
    seen: SeenCase
    whole: bool = False
    """Whether it is shown whole instead of in patches."""


def _training_cases(case: Case, spec: ModelSpec, weight: float, *, head_share: float, seen: SeenCase | None = None) -> list[TrainingCase]:
    """The case as it is deployed, and where `head_share` asks for it, its whole head too; they divide `weight`."""
    if not head_share or isinstance(spec.spatial, SlidingWindow):
        return [_training_case(case, spec, weight, _input(case, spec), seen)]
    deployed = _training_case(case, spec, weight * (1 - head_share), _input(case, spec), seen)
    head = _training_case(case, spec, weight * head_share, _head_input(case, spec), deployed.seen)
    return [deployed, replace(head, whole=True)]


def _training_case(
    case: Case, spec: ModelSpec, weight: float, source: tuple[NDArray[np.float32], CropBox], seen: SeenCase | None
) -> TrainingCase:  # fmt: skip
    if case.label is None:
        raise CaseError(f"case {case.name} has no label, training needs one", "add NAME-seg.nii.gz or leave the case out")
    image, box = source
    label = box.cut(onto_network_grid(case.label, case, spec)).astype(np.uint8)
    rng = np.random.default_rng(0)
    voxels = [np.argwhere(label == value) for value in LABELS if value]
    kept = tuple(v[rng.permutation(len(v))[:VOXELS_KEPT]] for v in voxels if len(v))
    return TrainingCase(
        name=case.name, image=image.astype(np.float16), label=label, voxels=kept, weight=weight, seen=seen or seen_case(case)
    )  # fmt: skip


def _input(case: Case, spec: ModelSpec) -> tuple[NDArray[np.float32], CropBox]:
    """What patches are drawn from: the crop that is deployed, or where windows slide, the box of the head."""
    return _head_input(case, spec) if isinstance(spec.spatial, SlidingWindow) else crop_input(case, spec)


def _head_input(case: Case, spec: ModelSpec) -> tuple[NDArray[np.float32], CropBox]:
    """The box of the head, normalised as the policy brain-crop does."""
    volumes = whole_volumes(case, spec)
    box = brain_box(head_of(case, spec, volumes), spec.divisor)
    image = np.stack([box.cut(volume) for volume in volumes]).astype(np.float32, copy=False)
    return normalise_after_crop(image, spec.normalisation), box


def learnt_reference(folders: Sequence[Path], spec: ModelSpec) -> HistogramReference:
    """The histogram reference of a spec, made of labelled or unlabelled cases: the mean of their landmarks after the normalisation.

    Raises:
        CaseError: there is no case, or one cannot be read.
    """
    plain = spec.model_copy(update={"histogram": None, "resize": None})
    found: dict[Modality, list[NDArray[np.float64]]] = {modality: [] for modality in spec.modalities}
    for files in (files for folder in folders for files in find_cases(folder)):
        case = read_case(files, spec.modalities, with_label=False)
        for modality, raw, image in zip(spec.modalities, turned(case, plain), whole_volumes(case, plain), strict=True):
            found[modality].append(landmarks_of(image, raw != 0))
    if not found[spec.modalities[0]]:
        raise CaseError("no case to learn the histogram reference from", "name at least one folder with --cases or --real-cases")
    return mean_reference(list(found.items()))


def seen_case(case: Case) -> SeenCase:
    """The identity of a case as it was read."""
    return SeenCase(name=case.name, sha256=case_digest(case))


def load_cases(
    synthetic: Sequence[Path], real: Sequence[Path], spec: ModelSpec, *, grafts: int, real_share: float, seed: int,
    progress: Callable[[str], None], head_share: float = 0.0,
) -> list[TrainingCase]:  # fmt: skip
    """Read every case of the folders; real ones get `grafts` copies with a synthetic lesion and together `real_share` of the patches.

    `head_share` of what is drawn are whole heads, as the policy brain-crop shows them, instead of patches of the deployed crop.

    Raises:
        CaseError: a case cannot be read or has no label.
    """
    made = [case for folder in synthetic for case in find_cases(folder)]
    taken = [case for folder in real for case in find_cases(folder)]
    share = real_share if made and taken else 1.0
    cases: list[TrainingCase] = []

    def synthetic_case(files: CaseFiles) -> list[TrainingCase]:
        weight = (1 - share if taken else 1.0) / len(made)
        return _training_cases(read_case(files, spec.modalities), spec, weight, head_share=head_share)

    # Decompression and most of numpy let other threads run.
    with ThreadPoolExecutor(READERS) as pool:
        for files, read in zip(made, pool.map(synthetic_case, made), strict=True):
            cases.extend(read)
            progress(files.name)
    for files in taken:
        progress(files.name)
        weight = share / len(taken) / (1 + grafts)
        for case, seen in _with_grafts(files, spec, grafts, seed):
            cases.extend(_training_cases(case, spec, weight, head_share=head_share, seen=seen))
    if not cases:
        raise CaseError("no training case given", "name at least one folder with --cases or --real-cases")
    return cases


def _with_grafts(files: CaseFiles, spec: ModelSpec, grafts: int, seed: int) -> Iterator[tuple[Case, SeenCase]]:
    case = read_case(files, spec.modalities)
    seen = seen_case(case)
    yield case, seen
    for index in range(grafts):
        yield graft(case, seed, index), seen


def draw_patch(
    cases: Sequence[TrainingCase], size: Size, rng: np.random.Generator, foreground_share: float = 0.8
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:  # fmt: skip
    """One patch: image float32 (channels, *size), label uint8 (size); `foreground_share` of them are centred near a tumour voxel.

    Of a case that is shown whole it is all of it, whatever `size` is.
    """
    weights = np.array([case.weight for case in cases])
    case = cases[int(rng.choice(len(cases), p=weights / weights.sum()))]
    if case.whole:
        return case.image.astype(np.float32), case.label
    shape = case.label.shape
    if case.voxels and rng.random() < foreground_share:
        group = case.voxels[int(rng.integers(len(case.voxels)))]
        centre = group[int(rng.integers(len(group)))] + rng.integers([-s // 4 for s in size], [s // 4 + 1 for s in size])
    else:
        centre = np.array([rng.integers(length) for length in shape])
    starts = [int(np.clip(c - s // 2, 0, max(length - s, 0))) for c, s, length in zip(centre, size, shape, strict=True)]
    where = tuple(slice(start, start + s) for start, s in zip(starts, size, strict=True))
    return case.image[(slice(None), *where)].astype(np.float32), case.label[where]
