"""Synthetic lesions painted into a real head, so that few labelled real cases teach more than their own tumours."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edge_latup.cases.phantom.anatomy import Anatomy
from edge_latup.cases.phantom.fields import Field, soft_step
from edge_latup.cases.phantom.render import add_lesion, pick_contrast
from edge_latup.cases.phantom.tumour import label_map, make_lesion
from edge_latup.cases.read import Case
from edge_latup.errors import CaseError

DEEPEST_MM = 60.0
"""Distance to the surface at the middle of an adult head; scales depth to the phantoms' 0-1."""
LEAST_DEPTH = 0.18
"""Depth, of the phantoms' 0-1, at which a lesion's centre may lie."""


def _relative(image: NDArray[np.float32], healthy: NDArray[np.bool_]) -> tuple[Field, float]:
    """The image in units of its healthy median, and that median."""
    unit = float(np.median(image[healthy]))
    return (image / unit).astype(np.float32), unit


def _anatomy(case: Case, healthy: NDArray[np.bool_], head: NDArray[np.bool_]) -> Anatomy:
    """Rough tissue maps of a real head: CSF from T2, white matter from contrast-enhanced T1, depth from the mask."""
    depth = ndimage.distance_transform_edt(head).astype(np.float32) / DEEPEST_MM
    t2, _ = _relative(case.images["t2"], healthy)
    t1, _ = _relative(case.images["t1ce"], healthy)
    csf = soft_step(t2 - 1.9, 0.2)
    white = soft_step(t1 - 1.0, 0.1) * (1 - csf)
    zero = np.zeros_like(csf)
    lines = tuple(np.arange(size, dtype=np.float32) for size in head.shape)
    return Anatomy(
        head=head.astype(np.float32), white=white, grey=(1 - csf) * (1 - white), csf=csf, vessels=zero, hyperintensities=zero,
        depth=np.where(healthy, depth, -1).astype(np.float32), coordinates=(lines[0], lines[1], lines[2]), scale=1.0,
    )  # fmt: skip


def graft(case: Case, seed: int, index: int) -> Case:
    """A copy of a labelled case with one more, synthetic, lesion; deterministic in (case, seed, index).

    The lesion's centre lies in tissue labelled healthy. Its label replaces what was there.

    Raises:
        CaseError: the head is too small to hold a lesion.
    """
    if case.label is None:
        return case
    rng = np.random.default_rng([seed, index])
    head = np.any(np.stack(list(case.images.values())) > 0, axis=0)
    healthy = head & (case.label == 0)
    anatomy = _anatomy(case, healthy, head) if healthy.any() else None
    if anatomy is None or not (anatomy.depth > LEAST_DEPTH).any():
        raise CaseError(f"the head of case {case.name} is too small to hold a grafted lesion", "leave out --grafts")
    lesion = make_lesion(anatomy, rng, enhancing=bool(rng.random() < 0.85))
    images = {}
    for modality, image in case.images.items():
        relative, unit = _relative(image, healthy)
        images[modality] = add_lesion(relative, lesion, pick_contrast(modality, rng), 1.0, rng) * unit * head
    painted = label_map(lesion) * head
    label = np.where(painted > 0, painted, case.label).astype(np.uint8)
    return dataclasses.replace(case, name=f"{case.name}+graft{index}", images=images, label=label)
