"""Test-time augmentation: the same crop shown in several ways, and the vote over what the network makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.spec import View

Array = NDArray[np.float32]
LEFT_RIGHT: Final = -3
AXIAL: Final = (-3, -2)
"""Axes of a (..., x, y, z) array in the spec's orientation: x runs between left and right, x and y span the axial plane."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A view and its inverse, for arrays (..., x, y, z)."""

    apply: Callable[[Array], Array]
    invert: Callable[[Array], Array]


def _mirror(array: Array) -> Array:
    return np.flip(array, LEFT_RIGHT)


def _same(array: Array) -> Array:
    return array


TURNS: Final[dict[View, Turn]] = {
    "identity": Turn(apply=_same, invert=_same),
    "mirror": Turn(apply=_mirror, invert=_mirror),
    "rotate": Turn(apply=lambda array: np.rot90(array, 1, AXIAL), invert=lambda array: np.rot90(array, -1, AXIAL)),
}


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
