"""Running statistics of batch norms, measured for the weights that are kept."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from edge_latup.networks.base import SegmentationNetwork


def statistics_of(network: SegmentationNetwork) -> list[tuple[str, torch.Tensor]]:
    """Running means and variances by name."""
    return [(name, buffer) for name, buffer in network.named_buffers() if buffer.is_floating_point()]


def measure_norms(network: SegmentationNetwork, batches: Iterable[torch.Tensor]) -> None:
    """Running statistics anew, the mean over `batches`: those at hand belong to the weights of the last steps, not to their average."""
    norms = [module for module in network.modules() if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d))]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    network.train()
    with torch.no_grad():
        for batch in batches:
            network.logits(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
