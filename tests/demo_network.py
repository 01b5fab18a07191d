"""The demo network for cases smaller than patients."""

from __future__ import annotations

from pathlib import Path

from edge_latup.bench.demo import demo_checkpoint
from edge_latup.networks.build import load_checkpoint, save_checkpoint
from edge_latup.spec import PostProcess


def write_keeping_all(folder: Path) -> Path:
    """The demo network with a spec that leaves label maps as they are, and `folder`.

    Its own spec removes tumours of fewer than 500 voxels, and a phantom of 32 voxels a side holds no larger one.
    """
    network, spec = load_checkpoint(demo_checkpoint())
    save_checkpoint(folder, network, spec.model_copy(update={"post_process": PostProcess()}))
    return folder
