"""Test-time augmentation: the same crop shown in several ways, and the vote over what the network makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.spec import RegionHead, View

Array = NDArray[np.float32]
LEFT_RIGHT: Final = -3
AXIAL: Final = (-3, -2)
"""Axes of a (..., x, y, z) array in the spec's orientation: x runs between left and right, x and y span the axial plane."""
LEAST_PROBABILITY: Final = np.float32(1e-37)
EPSILON: Final = np.float32(6e-8)
"""Float32 holds no probability nearer to 1."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A view and its inverse, for arrays (..., x, y, z)."""

    apply: Callable[[Array], Array]
    invert: Callable[[Array], Array]


def _mirror(array: Array) -> Array:
    return np.flip(array, LEFT_RIGHT)


def _same(array: Array) -> Array:
    return array


def _flipping(*axes: int) -> Turn:
    def flip(array: Array) -> Array:
        return np.flip(array, axes)

    return Turn(apply=flip, invert=flip)


TURNS: Final[dict[View, Turn]] = {
    "identity": Turn(apply=_same, invert=_same),
    "mirror": Turn(apply=_mirror, invert=_mirror),
    "rotate": Turn(apply=lambda array: np.rot90(array, 1, AXIAL), invert=lambda array: np.rot90(array, -1, AXIAL)),
    "mirror_y": _flipping(-2),
    "mirror_z": _flipping(-1),
    "mirror_xy": _flipping(-3, -2),
    "mirror_xz": _flipping(-3, -1),
    "mirror_yz": _flipping(-2, -1),
    "mirror_xyz": _flipping(-3, -2, -1),
}


def as_logits(probabilities: Array, *, regions: bool) -> Array:
    """Scores (channels, D, H, W) whose sigmoid (of regions) or softmax (of classes) the probabilities are.

    Those of classes are the logits less what all classes of a voxel share, so that their weighted means have the logits' argmax.
    """
    held = np.clip(probabilities, LEAST_PROBABILITY, 1 - EPSILON if regions else None)
    return np.asarray(np.log(held) - np.log1p(-held) if regions else np.log(held), dtype=np.float32)


def as_probabilities(logits: Array, *, regions: bool) -> Array:
    """The inverse of `as_logits`."""
    if regions:
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)
    powers = np.exp(logits - logits.max(axis=0))
    shares: Array = powers / powers.sum(axis=0)
    return shares


def vote(choices: Sequence[NDArray[np.integer[Any]]], mean: Array) -> NDArray[np.intp]:
    """The class that most of `choices` give each voxel; among those with as many votes, the one of the largest mean probability.

    Args:
        choices: one class map (D, H, W) for each view.
        mean: mean probabilities over the views, float32 (classes, D, H, W).
    """
    if len(choices) == 1:
        return choices[0].astype(np.intp, copy=False)
    votes = np.stack([sum((choice == label).astype(np.uint8) for choice in choices) for label in range(len(mean))])
    leading = votes == votes.max(axis=0)
    winner: NDArray[np.intp] = np.where(leading, mean, -1).argmax(axis=0)
    return winner


def paint(outputs: Sequence[Array], head: RegionHead, threshold: float) -> NDArray[np.uint8]:
    """The canonical label of each voxel, uint8 (D, H, W), from probabilities of regions, by the head's rule.

    Args:
        outputs: probabilities float32 (regions, D, H, W) for each view. A voxel belongs to a region where most views put it above
            `threshold`; where as many do as do not, the mean probability decides.
        head: which region each channel is, and how they become labels.
        threshold: a probability.
    """
    mean = np.mean(outputs, axis=0, dtype=np.float32) if len(outputs) > 1 else outputs[0]
    votes = sum((output > threshold).astype(np.int8) for output in outputs)
    inside = np.where(2 * votes == len(outputs), mean > threshold, 2 * votes > len(outputs))
    labels = np.zeros(mean.shape[1:], dtype=np.uint8)
    allowed = np.ones(mean.shape[1:], dtype=np.bool_)
    for region, label in head.paint:
        if region in head.order:
            mask = inside[head.order.index(region)] & allowed
            labels[mask] = label
            allowed = mask if head.nested else allowed
    return labels
