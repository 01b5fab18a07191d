"""Smooth random fields and soft steps: the two tools phantoms are drawn with."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def spline_basis(samples: int, knots: int) -> Field:
    """Uniform cubic B-spline basis, float32 (samples, knots); rows sum to 1 (de Boor 1978). knots >= 4."""
    position = np.linspace(0.0, knots - 3 - 1e-6, samples)
    first = np.floor(position).astype(int)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((samples, knots), dtype=np.float32)
    rows = np.arange(samples)
    for offset in range(4):
        basis[rows, first + offset] = weights[:, offset]
    return basis


def smooth_noise(shape: tuple[int, int, int], scale: float, rng: np.random.Generator) -> Field:
    """Smooth zero-mean noise with features of about `scale` voxels: float32 of `shape`, standard deviation 1."""
    knots = [math.ceil(size / max(scale, 1.0)) + 3 for size in shape]
    field = rng.standard_normal(knots).astype(np.float32)
    for axis, size in enumerate(shape):
        basis = spline_basis(size, knots[axis])
        field = np.moveaxis(np.tensordot(basis, field, axes=(1, axis)), 0, axis)
    field -= field.mean()
    return np.ascontiguousarray(field / max(float(field.std()), 1e-6), dtype=np.float32)


def soft_step(x: Field, width: float) -> Field:
    """0 far below zero, 1 far above, a smooth edge of about `width` between: the partial-volume effect of a border."""
    step: Field = 0.5 + 0.5 * np.tanh(x * (1.0 / max(width, 1e-6)))
    return step.astype(np.float32)
