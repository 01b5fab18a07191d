"""LATUP-Net's weighted Dice loss."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

CLASS_WEIGHTS: Final = (4.19, 1.64, 7.59)
"""Necrotic core, oedema, enhancing tumour: sums of the region weights 1.64, 2.55, 3.40 (networks of P1, eq. 1-4)."""
EPSILON: Final = 1e-5


def weighted_dice_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Weighted squared-denominator Dice loss, background left out; sums run over the batch and all voxels.

    Args:
        probabilities: float32 (N, 4, D, H, W), after softmax.
        labels: int64 (N, D, H, W), canonical classes 0-3.

    Returns:
        Scalar: 7.59 * ET + 4.19 * NCR + 1.64 * ED, each 1 - (2 sum(y p) + eps) / (sum(y^2) + sum(p^2) + eps).
    """
    total = probabilities.new_zeros(())
    for channel, weight in enumerate(CLASS_WEIGHTS, start=1):
        p, y = probabilities[:, channel], (labels == channel).to(probabilities.dtype)
        overlap, size = (p * y).sum(), (p * p).sum() + y.sum()
        total = total + weight * (1 - (2 * overlap + EPSILON) / (size + EPSILON))
    return total


def training_loss(logits: Tensor, labels: Tensor, cross_entropy_weight: float) -> Tensor:
    """Weighted Dice plus an optional cross-entropy term, which keeps the gradient alive on patches that lack a class."""
    logits = logits.float()
    loss = weighted_dice_loss(torch.softmax(logits, dim=1), labels)
    if cross_entropy_weight:
        loss = loss + cross_entropy_weight * F.cross_entropy(logits, labels)
    return loss
