"""Every network of the index at a size that tests can afford: tiny widths, 32 voxels a side, weights and running statistics at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from edge_latup.networks.base import SegmentationNetwork
from edge_latup.networks.build import build, save_checkpoint
from edge_latup.spec import ModelSpec

SIDE: Final = 32
_WINDOWS: Final = {"spatial": {"kind": "sliding-window", "size": (SIDE, SIDE, SIDE), "overlap": 0.25}}
_SLICES: Final = {"spatial": {"kind": "sliding-window", "size": (SIDE, SIDE, 8), "overlap": 0.0}, "divisor": 8}
_RESNET: Final = {
    **_WINDOWS, "modalities": ("t1", "t1ce", "t2", "flair"), "divisor": 8, "normalisation": "z_score_nonzero", "resize": (32, 32, 32),
    "post_process": {"min_component_voxels": 5},
}  # fmt: skip
_FLAT: Final = {**_SLICES, "normalisation": "z_score_nonzero", "regions": {"order": ("WT",)}}
_WIDTHS: Final = (8, 16, 24, 32)
NETWORKS: Final[dict[str, dict[str, Any]]] = {
    "attention-resnet-unet R1": {**_RESNET, "network": {"family": "attention-resnet-unet", "out_channels": 4, "widths": (4, 8, 12)}},
    "attention-resnet-unet R2": {
        **_RESNET, "labels": (1, 3, 2), "post_process": {"threshold": 0.5}, "views": ("identity", "mirror", "rotate"),
        "network": {"family": "attention-resnet-unet", "widths": (6, 12, 18), "bottleneck": 24, "branch_divisor": 3},
    },
    "res-unet": {**_FLAT, "network": {"family": "res-unet", "widths": _WIDTHS}},
    "res-unet gate": {**_FLAT, "network": {"family": "res-unet", "widths": _WIDTHS, "attention": "gate"}},
    "res-unet se": {**_FLAT, "network": {"family": "res-unet", "widths": _WIDTHS, "attention": "se"}},
    "res-unet cbam": {
        **_SLICES, "normalisation": "per_volume_postcrop",
        "network": {"family": "res-unet", "widths": _WIDTHS, "attention": "cbam", "out_channels": 4, "activation": "softmax"},
    },
    "res-unet transposed": {**_FLAT, "network": {"family": "res-unet", "widths": _WIDTHS, "upsample": "transposed"}},
}  # fmt: skip
"""Fields of the model spec of each, `name` left out."""


def tiny_spec_of(name: str) -> ModelSpec:
    """The model spec of one of `NETWORKS`."""
    return ModelSpec.model_validate({"name": name, **NETWORKS[name]})


def random_network_of(spec: ModelSpec) -> SegmentationNetwork:
    """The network of a spec in eval mode; biases, norms and running statistics at random too: exporters drop zeros and ones."""
    assert spec.network is not None
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = build(spec.network)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim == 1:
                    parameter.uniform_(-0.3, 0.3).add_(0.5 * (parameter > 0))
            for name, buffer in network.named_buffers():
                if name.endswith("running_mean"):
                    buffer.uniform_(-0.5, 0.5)
                elif name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
        _sharpen(network.eval(), torch.randn(spec.input_shape))
    return network


def _sharpen(network: SegmentationNetwork, x: torch.Tensor) -> None:
    """Scale the output layer so that every channel wins somewhere: a test on one class would prove little."""
    output: Any = network.output
    with torch.no_grad():
        scores = network.logits(x).transpose(0, 1).flatten(1)
        mean, deviation = scores.mean(1), scores.std(1)
        output.weight *= (3 / deviation).reshape([-1] + [1] * (output.weight.ndim - 1))
        output.bias.sub_(mean).mul_(3 / deviation)


def write_checkpoint_of(name: str, folder: Path) -> Path:
    """A checkpoint folder of one of `NETWORKS`."""
    spec = tiny_spec_of(name)
    save_checkpoint(folder, random_network_of(spec), spec)
    return folder
