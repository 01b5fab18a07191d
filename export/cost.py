"""What a network costs, layer by layer, computed from its graph without running it."""

from __future__ import annotations

from pathlib import Path

from edge_latup.artifact import MANIFEST_NAME, open_artifact
from edge_latup.errors import InputError
from edge_latup.export.graph_cost import cost_of_graph
from edge_latup.export.layers import Cost
from edge_latup.export.module_cost import cost_of_network
from edge_latup.spec import ModelSpec, Size


def cost_of(folder: Path, size: Size | None = None) -> Cost:
    """Cost of an artifact of any format, or of a checkpoint folder.

    Args:
        folder: artifact or checkpoint.
        size: spatial size; default the model's own.

    Raises:
        InputError: `size` is not a multiple of the model's divisor, or the artifact has a fixed size other than it.
        ArtifactError, SpecError: the folder is neither an artifact nor a checkpoint, or is damaged.
    """
    if not (folder / MANIFEST_NAME).is_file():
        from edge_latup.networks.build import load_checkpoint

        network, spec = load_checkpoint(folder)
        return cost_of_network(network, f"{spec.name} (PyTorch modules)", _input_shape(spec, size))
    artifact = open_artifact(folder)
    manifest = artifact.manifest
    source, shape = f"{manifest.name} ({manifest.format})", _input_shape(manifest.spec, size)
    if manifest.format == "checkpoint":
        from edge_latup.networks.build import load_network

        return cost_of_network(load_network(artifact.model_path, manifest.spec), source, shape)
    return cost_of_graph(artifact.model_path, source, shape)


def cost_of_known(name: str, size: Size | None = None) -> Cost:
    """Cost of a network of the index, untrained, at the input its published figures are for.

    Args:
        name: of the network.
        size: spatial size instead; a 2-D network sees its last axis slice by slice.

    Raises:
        InputError: no such network, or a size it does not take.
    """
    import torch

    from edge_latup.export.network_index import known_network
    from edge_latup.networks.build import build

    known = known_network(name)
    shape = known.cost_input if size is None else _input_shape(known.spec, size)
    with torch.device("meta"):
        network = build(known.network)
    return cost_of_network(network, f"{known.title} (PyTorch modules)", shape)


def _input_shape(spec: ModelSpec, size: Size | None) -> tuple[int, ...]:
    sizes = size or spec.spatial.size
    if bad := [side for side in sizes if side <= 0 or side % spec.divisor]:
        raise InputError(f"size {sizes}: {bad[0]} is not a multiple of {spec.divisor}", f"choose multiples of {spec.divisor}, such as 128")
    return (1, len(spec.modalities), *sizes)
