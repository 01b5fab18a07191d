"""A PyTorch module on the import road: traced to ONNX at the spec's size, and proven against itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_latup.artifact import Artifact, refuse_existing
from edge_latup.errors import ArtifactError
from edge_latup.export.foreign import Origin, import_foreign
from edge_latup.export.foreign_run import to_foreign
from edge_latup.export.foreign_spec import ForeignSpec
from edge_latup.export.torch_onnx import write_graph

Array = NDArray[np.float32]
Writer = Callable[[Any, Array, Path], None]
"""Writes a module, traced with an example input, as an ONNX file."""


def write_by_export(network: Any, example: Array, path: Path) -> None:
    """By torch.export, at the example's size."""
    import torch

    write_graph(network, torch.from_numpy(example), path, output=getattr(network, "name", None))


def import_module(
    network: Any, spec: ForeignSpec, out: Path, told: Mapping[str, Any], *, overwrite: bool = False, write: Writer = write_by_export
) -> Artifact:  # fmt: skip
    """Make an artifact of a module whose one output is what the spec describes.

    Raises:
        ArtifactError: it cannot be traced or run at the spec's size, or gives something else than the spec says.
    """
    refuse_existing(out, overwrite)
    example = to_foreign(np.zeros(spec.model.input_shape, dtype=np.float32), spec.imports[0])
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "network.onnx"
        try:
            write(network, example, path)
        except Exception as error:  # the exporters raise whatever the network's code does
            raise ArtifactError(
                f"{spec.path.name}: the network cannot be traced at {example.shape}: {_first_line(error)}",
                spec.change("size", "what the network takes"),
            ) from error
        origin = Origin(told=told, reference=lambda batch: run(network, batch))
        return import_foreign([path], spec, out, overwrite=overwrite, origin=origin)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def run(network: Any, batch: Array) -> Array:
    """What the module itself computes, float32."""
    import torch

    with torch.inference_mode():
        found: Array = network(torch.from_numpy(batch)).numpy()
    return found
