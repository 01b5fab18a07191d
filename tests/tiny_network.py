"""A network of width 8 for 16^3 inputs, and its checkpoint on disk: everything of LATUP-Net but the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from edge_latup.manifest import SeenCase, SeenCases
from edge_latup.networks.build import SEEN_NAME, build, save_checkpoint
from edge_latup.networks.latup_net import LatupNet
from edge_latup.records import write_record
from edge_latup.spec import MODALITIES, CentreCrop, ModelSpec, NetworkSpec

SIDE: Final = 16
SEEN: Final = (SeenCase(name="case-1", sha256="a" * 64),)


def tiny_spec(side: int = SIDE, **changes: Any) -> ModelSpec:
    """A spec with crop `side`; `changes` are constructor arguments of its network, of width 8 unless given."""
    network = NetworkSpec(**{"width": 8, **changes})
    modalities = MODALITIES[: network.in_channels]
    return ModelSpec(name="tiny", network=network, modalities=modalities, spatial=CentreCrop(size=(side, side, side)))


def random_network(spec: ModelSpec | None = None, seed: int = 0) -> LatupNet:
    """The spec's network in eval mode. Biases and norms are random too: an exporter drops zeros and shares what is equal."""
    torch.manual_seed(seed)
    declared = (spec or tiny_spec()).network
    assert declared is not None
    network = build(declared)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(-0.5, 0.5)
    return network.eval()


def write_checkpoint(folder: Path, spec: ModelSpec | None = None, seed: int = 0) -> Path:
    """A checkpoint folder with random weights that says it was trained on one case."""
    spec = spec or tiny_spec()
    save_checkpoint(folder, random_network(spec, seed), spec)
    write_record(SeenCases(cases=SEEN), folder / SEEN_NAME)
    return folder
