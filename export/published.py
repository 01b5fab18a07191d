"""Published figures of the networks, and what must be said beside them."""

from __future__ import annotations

from typing import Final

from edge_latup.export.layers import Cost
from edge_latup.export.network_index import known_networks

LATUP_PARAMETERS: Final = 3_069_060
LATUP_PUBLISHED_GFLOP: Final = 15.79
"""Alwadee et al. 2025, Table 5."""
CROP_VOXELS: Final = 128**3


def remarks(cost: Cost) -> list[str]:
    """What the literature says of this network, and where it is wrong; empty for a network without published figures.

    Networks are recognised by their parameter count, not by their name.
    """
    if cost.parameters != LATUP_PARAMETERS:
        return [line for known in known_networks() if known.parameters == cost.parameters for line in known.remarks()]
    voxels = cost.input_shape[2] * cost.input_shape[3] * cost.input_shape[4]
    at_128 = cost.convolution_macs * CROP_VOXELS / voxels
    gflop = 2 * at_128 / 1e9
    return [
        f"published: LATUP-Net, {LATUP_PARAMETERS:,} parameters (doi 10.1016/j.compbiomed.2024.109353): this network has as many",
        f"published: {LATUP_PUBLISHED_GFLOP} GFLOPs, which is low by a factor of 100: the convolutions cost {gflop:,.2f} GFLOP "
        f"for a 128x128x128 crop, {gflop / LATUP_PUBLISHED_GFLOP:.1f} times the printed figure",
    ]
