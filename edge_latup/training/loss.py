"""LATUP-Net's weighted Dice loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from edge_latup.spec import REGIONS, Region

CLASS_WEIGHTS: Final = (4.19, 1.64, 7.59)
"""Necrotic core, oedema, enhancing tumour: sums of the region weights 1.64, 2.55, 3.40 (networks of P1, eq. 1-4)."""
EPSILON: Final = 1e-5


def weighted_dice_loss(probabilities: Tensor, labels: Tensor, smoothing: float = EPSILON) -> Tensor:
    """Weighted squared-denominator Dice loss, background left out; sums run over the batch and all voxels.

    Args:
        probabilities: float32 (N, 4, D, H, W), after softmax.
        labels: int64 (N, D, H, W), canonical classes 0-3.
        smoothing: eps, in voxels.

    Returns:
        Scalar: 7.59 * ET + 4.19 * NCR + 1.64 * ED, each 1 - (2 sum(y p) + eps) / (sum(y^2) + sum(p^2) + eps).
    """
    total = probabilities.new_zeros(())
    for channel, weight in enumerate(CLASS_WEIGHTS, start=1):
        p, y = probabilities[:, channel], (labels == channel).to(probabilities.dtype)
        overlap, size = (p * y).sum(), (p * p).sum() + y.sum()
        total = total + weight * (1 - (2 * overlap + smoothing) / (size + smoothing))
    return total


def training_loss(logits: Tensor, labels: Tensor, cross_entropy_weight: float, smoothing: float = EPSILON) -> Tensor:
    """Weighted Dice plus an optional cross-entropy term, which keeps the gradient alive on patches that lack a class."""
    logits = logits.float()
    loss = weighted_dice_loss(torch.softmax(logits, dim=1), labels, smoothing)
    if cross_entropy_weight:
        loss = loss + cross_entropy_weight * F.cross_entropy(logits, labels)
    return loss


def region_loss(
    logits: Tensor, labels: Tensor, order: Sequence[Region], cross_entropy_weight: float, smoothing: float = EPSILON
) -> Tensor:  # fmt: skip
    """Dice of each region, which may overlap, plus binary cross-entropy with as much weight beside it as `training_loss` gives it.

    Args:
        logits: (N, regions, D, H, W), before the sigmoid.
        labels: int64 (N, D, H, W), canonical classes 0-3.
        order: the region of each channel.
        cross_entropy_weight: of cross-entropy beside the class weights of the Dice loss, which add up to 13.42.
        smoothing: as in `weighted_dice_loss`.
    """
    logits = logits.float()
    truth = torch.stack([torch.isin(labels, labels.new_tensor(REGIONS[region])) for region in order], dim=1).to(logits.dtype)
    p, axes = torch.sigmoid(logits), (0, 2, 3, 4)
    overlap, size = (p * truth).sum(axes), (p * p).sum(axes) + truth.sum(axes)
    loss = (1 - (2 * overlap + smoothing) / (size + smoothing)).sum()
    if cross_entropy_weight:
        share = cross_entropy_weight * len(order) / sum(CLASS_WEIGHTS)
        loss = loss + share * F.binary_cross_entropy_with_logits(logits, truth)
    return loss
