"""What a Keras file holds, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_latup.errors import ArtifactError
from edge_latup.export.adapters.hdf5 import read_keras
from edge_latup.export.adapters.keras_latup import latup_of


def summary(path: Path) -> dict[str, Any]:
    """The layers, and the LATUP-Net they are, or why they are none, as plain values for JSON."""
    weights = read_keras(path)
    told: dict[str, Any] = {"file": str(path), "source": "keras", "layers": [str(layer) for layer in weights.layers]}
    try:
        return {**told, "network": latup_of(weights)[1].model_dump()}
    except ArtifactError as error:
        return {**told, "network": None, "reason": error.message}


def describe(path: Path) -> str:
    """The summary, and what an import would do, as TOML comments."""
    told = summary(path)
    network = f"LATUP-Net {told['network']}" if told["network"] else f"not LATUP-Net: {told['reason']}"
    lines = [f"{path.name}: Keras weights, {len(told['layers'])} layers", network, *told["layers"]]
    return "\n".join(f"# {line}" for line in lines) + "\n"
