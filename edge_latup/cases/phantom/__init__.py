"""Seeded synthetic brain-tumour cases, at any shape, for tests, demos, calibration and training.

They stand in for MRI where no patient data may be used. They are not patients: figures measured on them say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from edge_latup.cases.phantom.anatomy import BRATS_SHAPE, head_box, make_anatomy
from edge_latup.cases.phantom.fields import Field
from edge_latup.cases.phantom.render import render
from edge_latup.cases.phantom.tumour import empty_lesion, label_map, make_lesion, merge
from edge_latup.errors import InputError
from edge_latup.spec import MODALITIES, Modality

Kind = Literal["tumour", "no-tumour", "no-enhancing"]
SMALLEST_SIDE: Final = 16


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """Images float32 (x, y, z) by modality, and the label map uint8 in the BraTS 2023 convention."""

    images: dict[Modality, Field]
    label: np.ndarray
    kind: Kind


def kind_of(index: int) -> Kind:
    """The kind of the index-th case of a cohort: of every eight, one has no tumour and one no enhancing tumour."""
    return {6: "no-enhancing", 7: "no-tumour"}.get(index % 8, "tumour")  # type: ignore[return-value]


def _draw(box: tuple[int, int, int], kind: Kind, rng: np.random.Generator, scale: float) -> tuple[np.ndarray, dict[Modality, Field]]:
    anatomy = make_anatomy(box, rng, scale)
    lesion = empty_lesion(box)
    count = 0 if kind == "no-tumour" else int(rng.choice([1, 2, 3], p=[0.7, 0.22, 0.08]))
    for _ in range(count):
        lesion = merge(lesion, make_lesion(anatomy, rng, enhancing=kind == "tumour"))
    label = label_map(lesion)
    label[anatomy.head <= 0.5] = 0
    return label, {modality: render(anatomy, lesion, modality, rng) for modality in MODALITIES}


def _paste(inner: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    outer = np.zeros(shape, dtype=inner.dtype)
    starts = [(size - part) // 2 for size, part in zip(shape, inner.shape, strict=True)]
    outer[tuple(slice(start, start + part) for start, part in zip(starts, inner.shape, strict=True))] = inner
    return outer


def make_phantom(seed: int, index: int = 0, *, shape: tuple[int, int, int] = BRATS_SHAPE, kind: Kind | None = None) -> Phantom:
    """Draw case `index` of the cohort `seed`; the same arguments give the same voxels.

    Args:
        seed: the cohort.
        index: the case in it; decides the kind unless `kind` is given.
        shape: voxels (x, y, z), at least 16 a side; the head is scaled to fill it as a brain fills the BraTS grid.
        kind: "tumour", "no-tumour" or "no-enhancing".

    Raises:
        InputError: a side is under 16, or `seed` or `index` is negative.
    """
    if min(shape) < SMALLEST_SIDE:
        raise InputError(f"a phantom needs at least {SMALLEST_SIDE} voxels a side, got {shape}", f"ask for {SMALLEST_SIDE} or more")
    if min(seed, index) < 0:
        raise InputError(f"a phantom's seed and index are 0 or more, got {seed} and {index}", "count from 0")
    kind = kind or kind_of(index)
    rng = np.random.default_rng([seed, index])
    scale, box = head_box(shape)
    label, images = _draw(box, kind, rng, scale)
    pasted = {modality: _paste(image, shape) for modality, image in images.items()}
    return Phantom(images=pasted, label=_paste(label, shape), kind=kind)
