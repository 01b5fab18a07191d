"""A skull-stripped head as soft tissue maps: white and grey matter, CSF, vessels, and harmless bright spots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_latup.cases.phantom.fields import Field, smooth_noise, soft_step

BRATS_SHAPE = (240, 240, 155)
HEAD_SEMI_AXES_MM = (68.0, 86.0, 71.0)
"""Half extents of an adult brain in the BraTS grid (two real cases: 68 x 85 x 73 and 70 x 95 x 68)."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Soft maps in [0, 1], float32, all of one shape; `scale` is voxels per adult millimetre."""

    head: Field
    white: Field
    grey: Field
    csf: Field
    vessels: Field
    hyperintensities: Field
    depth: Field
    """About 1 in the middle of the head, 0 at its surface, negative outside."""
    coordinates: tuple[Field, Field, Field]
    """Broadcastable distances in voxels from the head's centre, per axis."""
    scale: float


def _ellipsoid(coordinates: tuple[Field, Field, Field], centre: tuple[float, float, float], axes: tuple[float, float, float]) -> Field:
    """Signed implicit function: 1 at the centre, 0 on the surface, negative outside."""
    radius = sum(((c - o) / a) ** 2 for c, o, a in zip(coordinates, centre, axes, strict=True))
    inside: Field = (1.0 - np.sqrt(radius)).astype(np.float32)
    return inside


def _pair(coordinates: tuple[Field, Field, Field], centre: tuple[float, float, float], axes: tuple[float, float, float]) -> Field:
    """The same ellipsoid on both sides of the midline (axis 0)."""
    mirrored = (-centre[0], centre[1], centre[2])
    return np.maximum(_ellipsoid(coordinates, centre, axes), _ellipsoid(coordinates, mirrored, axes))


def _coordinates(shape: tuple[int, int, int], scale: float, rng: np.random.Generator) -> tuple[Field, Field, Field]:
    axes = []
    for axis, size in enumerate(shape):
        line = np.arange(size, dtype=np.float32) - (size - 1) / 2 - rng.uniform(-4, 4) * scale
        axes.append(line.reshape([-1 if a == axis else 1 for a in range(3)]))
    return axes[0], axes[1], axes[2]


def _ventricles(coordinates: tuple[Field, Field, Field], scale: float, rng: np.random.Generator, wobble: Field) -> Field:
    """Lateral and third ventricles; their size varies threefold, as it does with age."""
    size = rng.uniform(0.7, 1.9) * scale
    lateral = _pair(coordinates, (11 * scale, -4 * scale, 8 * scale), (5 * size, 26 * scale, 8 * size))
    horns = _pair(coordinates, (22 * scale, 24 * scale, 0.0), (4 * size, 16 * scale, 6 * size))
    third = _ellipsoid(coordinates, (0.0, 0.0, -4 * scale), (2.2 * size, 14 * scale, 9 * scale))
    inside: Field = np.maximum(np.maximum(lateral, horns), third) + 0.18 * wobble
    return inside


def head_box(shape: tuple[int, int, int]) -> tuple[float, tuple[int, int, int]]:
    """(voxels per adult millimetre, the part of `shape` a head can reach): nothing is drawn on the air around it."""
    scale = min(size / full for size, full in zip(shape, BRATS_SHAPE, strict=True))
    x, y, z = (min(size, math.ceil(2.4 * axis * scale)) for size, axis in zip(shape, HEAD_SEMI_AXES_MM, strict=True))
    return scale, (x, y, z)


def make_anatomy(shape: tuple[int, int, int], rng: np.random.Generator, scale: float) -> Anatomy:
    """Draw one head in the middle of `shape`, at `scale` voxels per adult millimetre. Deterministic in its arguments."""
    coordinates = _coordinates(shape, scale, rng)
    axes = tuple(a * scale * rng.uniform(0.93, 1.06) for a in HEAD_SEMI_AXES_MM)
    large, medium = smooth_noise(shape, 40 * scale, rng), smooth_noise(shape, 14 * scale, rng)
    depth = _ellipsoid(coordinates, (0.0, 0.0, 0.0), (axes[0], axes[1], axes[2])) + 0.035 * large + 0.010 * medium
    edge = 0.9 / (70 * scale)
    head = soft_step(depth, edge)

    folds = np.abs(smooth_noise(shape, 6.5 * scale, rng) + 0.5 * medium)
    # A sulcus is where the fold noise crosses zero; it narrows with depth, and grey matter lines it.
    sulcus = soft_step(0.22 - folds - 0.9 * np.maximum(depth, 0), 0.08) * head
    fissure = soft_step(0.9 * scale + 0.8 * medium * scale - np.abs(coordinates[0]), 0.6 * scale) * soft_step(0.42 - depth, 0.08) * head
    ventricles = soft_step(_ventricles(coordinates, scale, rng, medium), 0.12) * soft_step(depth - 0.2, 0.05)
    rim = soft_step(0.025 - depth, 0.02) * head
    csf = np.clip(np.maximum.reduce([sulcus, fissure, ventricles, rim]), 0, 1)

    ribbon = np.maximum(soft_step(0.10 + 0.02 * large - depth, 0.02), soft_step(0.80 - folds - 1.7 * np.maximum(depth, 0), 0.12))
    nuclei = soft_step(_pair(coordinates, (17 * scale, -6 * scale, -2 * scale), (11 * scale, 17 * scale, 11 * scale)) + 0.1 * medium, 0.15)
    grey = np.clip(np.maximum(ribbon, 0.8 * nuclei), 0, 1) * (1 - csf)
    white = (1 - csf) * (1 - grey)

    return Anatomy(
        head=head,
        white=white,
        grey=grey,
        csf=csf,
        vessels=_vessels(shape, scale, rng, head, depth),
        hyperintensities=_hyperintensities(shape, scale, rng, white, ventricles),
        depth=depth,
        coordinates=coordinates,
        scale=scale,
    )


def _vessels(shape: tuple[int, int, int], scale: float, rng: np.random.Generator, head: Field, depth: Field) -> Field:
    """Thin bright curves (where two fields both cross zero) and a venous sinus: what a network mistakes for enhancement."""
    first, second = smooth_noise(shape, 16 * scale, rng), smooth_noise(shape, 16 * scale, rng)
    tubes = soft_step(0.16 - np.sqrt(first**2 + second**2), 0.05) * soft_step(0.35 - depth, 0.1)
    return (tubes * head).astype(np.float32)


def _hyperintensities(shape: tuple[int, int, int], scale: float, rng: np.random.Generator, white: Field, ventricles: Field) -> Field:
    """Small FLAIR-bright spots of ageing white matter: bright like oedema, and not tumour."""
    spots = soft_step(smooth_noise(shape, 6 * scale, rng) - rng.uniform(2.3, 3.6), 0.2)
    return (spots * white * (1 - ventricles)).astype(np.float32)
