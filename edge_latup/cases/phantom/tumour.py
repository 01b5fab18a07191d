"""Tumours: an irregular core with a ragged enhancing rim and necrosis inside, and oedema that spreads along white matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_latup.cases.phantom.anatomy import Anatomy
from edge_latup.cases.phantom.fields import Field, smooth_noise, soft_step


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """Soft maps in [0, 1] of the three classes; they do not overlap."""

    necrosis: Field
    oedema: Field
    enhancing: Field


def empty_lesion(shape: tuple[int, ...]) -> Lesion:
    """No tumour."""
    zero = np.zeros(shape, dtype=np.float32)
    return Lesion(necrosis=zero, oedema=zero, enhancing=zero)


def _centre(anatomy: Anatomy, rng: np.random.Generator) -> tuple[float, float, float]:
    """A voxel in the head, not too near its surface, drawn uniformly."""
    inside = np.flatnonzero(anatomy.depth > 0.18)
    x, y, z = np.unravel_index(int(rng.choice(inside)), anatomy.depth.shape)
    return float(x), float(y), float(z)


def _distance(anatomy: Anatomy, centre: tuple[float, float, float], stretch: np.ndarray) -> Field:
    """Distance in voxels from `centre` under a random rotation and stretch."""
    grids = [np.arange(size, dtype=np.float32) - c for size, c in zip(anatomy.depth.shape, centre, strict=True)]
    lines = [g.reshape([-1 if a == axis else 1 for a in range(3)]) for axis, g in enumerate(grids)]
    total: Field = np.zeros(anatomy.depth.shape, dtype=np.float32)
    for row in stretch.astype(np.float32):
        total += (row[0] * lines[0] + row[1] * lines[1] + row[2] * lines[2]) ** 2
    return np.sqrt(total)


def _random_stretch(rng: np.random.Generator) -> np.ndarray:
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    stretched: np.ndarray = np.diag(rng.uniform(0.75, 1.3, 3)) @ rotation
    return stretched


def make_lesion(anatomy: Anatomy, rng: np.random.Generator, *, enhancing: bool) -> Lesion:
    """Draw one lesion of 8-26 adult millimetres core radius; without `enhancing` the core is all non-enhancing."""
    shape, scale = anatomy.depth.shape, anatomy.scale
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    radius = rng.uniform(8, 26) * scale
    distance = _distance(anatomy, _centre(anatomy, rng), _random_stretch(rng)) / radius
    coarse, fine = smooth_noise(size, max(0.8 * radius, 2), rng), smooth_noise(size, max(0.25 * radius, 1.5), rng)
    edge = 0.9 / radius

    warped = distance + 0.16 * coarse + 0.07 * fine
    solid = anatomy.head * (1 - 0.9 * anatomy.csf * (distance > 0.9))
    core = soft_step(1 - warped, edge) * solid
    inner_radius = rng.uniform(0.45, 0.9) if rng.random() < 0.8 else rng.uniform(0.0, 0.35)
    necrotic = soft_step(inner_radius - distance - 0.22 * fine - 0.12 * coarse, edge)
    # Islands and gaps: the rim of a glioblastoma is nodular and often open.
    open_rim = soft_step(smooth_noise(size, max(0.5 * radius, 2), rng) - rng.uniform(1.2, 2.6), 0.2)
    necrotic = np.maximum(necrotic, open_rim) if enhancing else np.ones_like(necrotic)

    spread = rng.uniform(1.05, 2.1) if rng.random() < 0.85 else 0.8
    fingers = distance + 0.30 * coarse + 0.10 * fine - 0.45 * (anatomy.white - 0.5)
    oedema = soft_step(spread - fingers, edge) * anatomy.head * (1 - anatomy.csf) * (1 - core)
    return Lesion(necrosis=core * necrotic, oedema=oedema, enhancing=core * (1 - necrotic))


def merge(first: Lesion, second: Lesion) -> Lesion:
    """Both lesions in one head; a core wins over the other's oedema."""
    enhancing = np.maximum(first.enhancing, second.enhancing)
    necrosis = np.minimum(np.maximum(first.necrosis, second.necrosis), 1 - enhancing)
    oedema = np.minimum(np.maximum(first.oedema, second.oedema), 1 - enhancing - necrosis)
    return Lesion(necrosis=necrosis, oedema=oedema, enhancing=enhancing)


def label_map(lesion: Lesion) -> np.ndarray:
    """uint8 labels in the BraTS 2023 convention: 0 background, 1 necrotic core, 2 oedema, 3 enhancing tumour."""
    healthy = 1 - lesion.necrosis - lesion.oedema - lesion.enhancing
    labels: np.ndarray = np.argmax(np.stack([healthy, lesion.necrosis, lesion.oedema, lesion.enhancing]), axis=0).astype(np.uint8)
    return labels
