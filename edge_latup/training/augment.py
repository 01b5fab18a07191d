"""Augmentation of one patch: mirror flips and, per modality, gain, offset, gamma, low resolution and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]


def flip(image: Image, label: Labels, rng: np.random.Generator) -> tuple[Image, Labels]:
    """Mirror each spatial axis with probability one half."""
    axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
    return np.flip(image, tuple(axis + 1 for axis in axes)), np.flip(label, axes)


def _low_resolution(channel: Image, rng: np.random.Generator) -> Image:
    """Repeat every second or third plane along one axis, as thick slices do."""
    axis, step = int(rng.integers(3)), int(rng.integers(2, 4))
    length = channel.shape[axis]
    return np.take(np.repeat(np.take(channel, range(0, length, step), axis), step, axis), range(length), axis)


def vary_intensity(channel: Image, rng: np.random.Generator, amount: float = 1.0) -> Image:
    """One modality seen by another scanner: float32 in [0, 1] in and out; exact zeros (air) stay zero."""
    air = channel == 0
    out = np.power(channel, np.exp(amount * rng.uniform(-0.35, 0.35)))
    out = out * np.exp(amount * rng.uniform(-0.5, 0.4)) + amount * rng.uniform(-0.04, 0.04)
    if rng.random() < 0.15:
        out = _low_resolution(out, rng)
    if rng.random() < 0.4:
        out = out + rng.uniform(0.0, 0.04) * rng.standard_normal(channel.shape, dtype=np.float32)
    out = np.clip(out, 0, 1).astype(np.float32)
    out[air] = 0
    return out


def vary_score(channel: Image, rng: np.random.Generator, amount: float = 1.0) -> Image:
    """The same for z-scores, which have no bounds: they are varied between their own smallest and largest; exact zeros stay zero."""
    low, span = float(channel.min()), float(np.ptp(channel))
    if not span:
        return channel
    air = channel == 0
    unit = (channel - low) / span
    unit[air] = 0
    out: Image = vary_intensity(unit, rng, amount) * span + low
    out[air] = 0
    return out


def augment(
    image: Image, label: Labels, rng: np.random.Generator, amount: float = 1.0, *, scores: bool = False
) -> tuple[Image, Labels]:  # fmt: skip
    """Augment one patch: image float32 (channels, D, H, W) in [0, 1], or z-`scores`, label uint8 (D, H, W)."""
    image, label = flip(image, label, rng)
    vary = vary_score if scores else vary_intensity
    return np.stack([vary(channel, rng, amount) for channel in image]), np.ascontiguousarray(label)
