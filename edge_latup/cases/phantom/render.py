"""From tissue maps to the four MR contrasts, with bias field, texture, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_latup.cases.phantom.anatomy import Anatomy
from edge_latup.cases.phantom.fields import Field, smooth_noise
from edge_latup.cases.phantom.tumour import Lesion
from edge_latup.spec import Modality


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Mean signal of each tissue relative to white matter, as (lowest, highest) drawn per case."""

    grey: tuple[float, float]
    csf: tuple[float, float]
    vessels: tuple[float, float]
    hyperintensities: tuple[float, float]
    necrosis: tuple[float, float]
    oedema: tuple[float, float]
    enhancing: tuple[float, float]


CONTRASTS: Final[dict[Modality, Contrast]] = {
    "flair": Contrast(grey=(1.1, 1.4), csf=(0.15, 0.4), vessels=(0.4, 0.9), hyperintensities=(1.5, 2.3),
                      necrosis=(0.7, 2.4), oedema=(1.45, 2.4), enhancing=(1.2, 2.0)),
    "t1ce": Contrast(grey=(0.75, 0.92), csf=(0.25, 0.5), vessels=(1.5, 3.5), hyperintensities=(0.8, 1.0),
                     necrosis=(0.6, 0.95), oedema=(0.75, 1.0), enhancing=(1.3, 2.4)),
    "t2": Contrast(grey=(1.1, 1.5), csf=(2.6, 4.2), vessels=(0.4, 0.9), hyperintensities=(1.3, 1.8),
                   necrosis=(1.5, 2.6), oedema=(1.4, 2.2), enhancing=(1.1, 1.8)),
    "t1": Contrast(grey=(0.75, 0.92), csf=(0.3, 0.55), vessels=(0.8, 1.3), hyperintensities=(0.8, 1.0),
                   necrosis=(0.65, 0.95), oedema=(0.75, 1.0), enhancing=(0.8, 1.1)),
}  # fmt: skip
"""Ranges set around the tissue means of two real BraTS cases, widened so that no single threshold separates the classes."""


def _texture(shape: tuple[int, int, int], scale: float, rng: np.random.Generator) -> Field:
    """Multiplicative heterogeneity inside a lesion, about +-15 % at two scales."""
    field: Field = 1 + 0.12 * smooth_noise(shape, 8 * scale, rng) + 0.09 * smooth_noise(shape, 3 * scale, rng)
    return np.clip(field, 0.4, 1.8)


def _blur(image: Field, axis: int, passes: int) -> Field:
    """Binomial blur along one axis: acquisitions with thick slices, resampled to 1 mm."""
    for _ in range(passes):
        padded = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
        length = image.shape[axis]
        before, after = padded.take(range(length), axis), padded.take(range(2, length + 2), axis)
        image = (0.25 * before + 0.5 * image + 0.25 * after).astype(np.float32)
    return image


def pick_contrast(modality: Modality, rng: np.random.Generator) -> dict[str, float]:
    """Draw one signal per tissue, relative to white matter."""
    contrast = CONTRASTS[modality]
    return {name: float(rng.uniform(*getattr(contrast, name))) for name in Contrast.__dataclass_fields__}


def add_lesion(healthy: Field, lesion: Lesion, pick: dict[str, float], scale: float, rng: np.random.Generator) -> Field:
    """Paint a lesion over healthy tissue (float32, white matter near 1), blending at its soft edges."""
    size = (int(healthy.shape[0]), int(healthy.shape[1]), int(healthy.shape[2]))
    # Oedema shines through the tissue it swells, so part of the healthy pattern stays visible in it.
    oedema = pick["oedema"] * (0.7 + 0.3 * np.minimum(healthy, 1.5))
    ill = pick["necrosis"] * lesion.necrosis + pick["enhancing"] * lesion.enhancing + oedema * lesion.oedema
    well = healthy * (1 - lesion.necrosis - lesion.oedema - lesion.enhancing)
    return (well + ill * _texture(size, scale, rng)).astype(np.float32)


def render(anatomy: Anatomy, lesion: Lesion, modality: Modality, rng: np.random.Generator) -> Field:
    """One modality as float32 >= 0, zero outside the head, white matter near 1."""
    pick = pick_contrast(modality, rng)
    size = (int(anatomy.head.shape[0]), int(anatomy.head.shape[1]), int(anatomy.head.shape[2]))
    healthy = anatomy.white + pick["grey"] * anatomy.grey + pick["csf"] * anatomy.csf
    healthy *= 1 + 0.04 * smooth_noise(size, 5 * anatomy.scale, rng)
    for name, soft in (("hyperintensities", anatomy.hyperintensities), ("vessels", anatomy.vessels)):
        healthy = healthy * (1 - soft) + pick[name] * soft
    image = add_lesion(healthy, lesion, pick, anatomy.scale, rng)
    image *= np.exp(0.09 * smooth_noise(size, 70 * anatomy.scale, rng))
    image = _blur(image, int(rng.integers(3)), int(rng.integers(0, 3)))
    sigma = rng.uniform(0.015, 0.05)
    real = image + sigma * rng.standard_normal(size, dtype=np.float32)
    noisy: Field = np.hypot(real, sigma * rng.standard_normal(size, dtype=np.float32))
    noisy *= anatomy.head > 0.5
    return noisy.astype(np.float32)
