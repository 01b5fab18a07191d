"""Keras weights of LATUP-Net as a checkpoint: layers matched by shape and order, kernels turned from channels-last."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import ValidationError

from edge_latup.artifact import Artifact, refuse_existing, sha256_of
from edge_latup.errors import ArtifactError, SpecError
from edge_latup.export.adapters.hdf5 import KerasLayer, KerasWeights, Kind, read_keras
from edge_latup.manifest import Step
from edge_latup.records import summary_of
from edge_latup.spec import MODALITIES, ModelSpec, NetworkSpec
from edge_latup.versions import versions_of

if TYPE_CHECKING:
    from edge_latup.networks.latup_net import LatupNet

KINDS: Final[tuple[Kind, ...]] = ("convolution", "norm", "dense")
LATUP: Final = "LATUP-Net has 18 convolutions, 5 norms, and 12 dense layers or none; other networks: export to ONNX and import that"


def import_keras(path: Path, out: Path, *, spec: Path | None = None, checkpoint: Path | None = None, overwrite: bool = False) -> Artifact:
    """Import Keras weights of LATUP-Net: a checkpoint is made of them, and exported with proven parity.

    Args:
        path: .h5, .weights.h5 or .keras.
        out: artifact folder to make.
        spec: spec.toml with what differs from the published protocol (no [import] table).
        checkpoint: keep the checkpoint folder here.
        overwrite: replace an existing artifact.

    Raises:
        ArtifactError: the file does not hold LATUP-Net; the message names layer and shapes. Nothing is left behind.
        SpecError: the spec does not suit the network.
    """
    from edge_latup.export.torch_onnx import export_onnx
    from edge_latup.networks.build import save_checkpoint

    refuse_existing(out, overwrite)
    if checkpoint is not None and checkpoint.exists():
        raise ArtifactError(f"{checkpoint} exists already", "choose another folder for the checkpoint")
    network, declared = latup_of(read_keras(path))
    told = latup_spec(path, declared, spec)
    origin = Step(
        operation="import", parameters={"source": "keras", "file": path.name, "sha256": sha256_of(path)}, versions=versions_of("h5py")
    )
    with tempfile.TemporaryDirectory() as scratch:
        save_checkpoint(Path(scratch), network, told)
        artifact = export_onnx(Path(scratch), out, origin=origin, overwrite=overwrite)
    if checkpoint is not None:
        save_checkpoint(checkpoint, network, told)
    return artifact


def latup_of(weights: KerasWeights) -> tuple[LatupNet, NetworkSpec]:
    """LATUP-Net with the weights of a Keras file; its width and channels are read off the shapes.

    Raises:
        ArtifactError: the layers are not those of LATUP-Net, or several fit one place.
    """
    import torch

    from edge_latup.networks.build import build

    declared = _declared(weights)
    network = build(declared)
    state = network.state_dict()
    for kind in KINDS:
        places = _places(network, kind)
        for place, layer in zip(places, _matched(weights, kind, list(places.values())), strict=True):
            for name, array in zip(_names(place, kind), _turned(layer), strict=True):
                state[name] = torch.from_numpy(np.ascontiguousarray(array))
    network.load_state_dict(state)
    return network.eval(), declared


def _declared(weights: KerasWeights) -> NetworkSpec:
    counts = {kind: sum(layer.kind == kind for layer in weights.layers) for kind in KINDS}
    if counts["convolution"] != 18 or counts["norm"] != 5 or counts["dense"] not in (0, 12):
        raise ArtifactError(f"{weights.path} has {', '.join(f'{count} {kind} layers' for kind, count in counts.items())}", LATUP)
    kernels = [layer.tensors[0].shape for layer in weights.layers if layer.kind == "convolution"]
    entrance = min(kernels, key=lambda shape: shape[3])
    outlet = min((shape for shape in kernels if shape[:3] == (1, 1, 1)), key=lambda shape: shape[4], default=entrance)
    try:
        return NetworkSpec(in_channels=entrance[3], out_channels=outlet[4], width=entrance[4], attention=counts["dense"] > 0)
    except ValidationError as error:
        raise ArtifactError(f"{weights.path}: first kernel {entrance}, last {outlet}: {summary_of(error)}", LATUP) from error


def _places(network: LatupNet, kind: Kind) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Modules of one kind in the order the network runs them, with the shapes Keras stores for each."""
    from torch import nn

    types: dict[Kind, type[nn.Module]] = {"convolution": nn.Conv3d, "norm": nn.InstanceNorm3d, "dense": nn.Linear}
    return {
        name: tuple(_keras_shape(tuple(parameter.shape)) for parameter in module.parameters())
        for name, module in network.named_modules()
        if isinstance(module, types[kind])
    }


def _keras_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(O, I, D, H, W) is (D, H, W, I, O) in Keras; (O, I) is (I, O)."""
    return (*shape[2:], shape[1], shape[0]) if len(shape) > 1 else shape


def _matched(weights: KerasWeights, kind: Kind, wanted: Sequence[tuple[tuple[int, ...], ...]]) -> list[KerasLayer]:
    """The layer for each place: those of one shape in the file's order."""
    layers = [layer for layer in weights.layers if layer.kind == kind]
    if len(layers) != len(wanted):
        raise ArtifactError(f"{weights.path} has {len(layers)} {kind} layers, this LATUP-Net {len(wanted)}", LATUP)
    by_shape: dict[Any, list[KerasLayer]] = {}
    for layer in layers:
        by_shape.setdefault(_shapes(layer), []).append(layer)
    for shapes, alike in by_shape.items():
        if len(alike) != wanted.count(shapes):
            places = wanted.count(shapes)
            told = "; ".join(str(layer) for layer in alike[:3])
            raise ArtifactError(f"{weights.path} has {len(alike)} {kind} layers of shape {shapes} ({told}), LATUP-Net {places}", LATUP)
        _refuse_unordered(weights, alike)
    taken = {shapes: iter(alike) for shapes, alike in by_shape.items()}
    return [next(taken[shapes]) for shapes in wanted]


def _shapes(layer: KerasLayer) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in layer.tensors)


def _refuse_unordered(weights: KerasWeights, alike: Sequence[KerasLayer]) -> None:
    """Layers of one shape can be told apart by the order the file lists them in, or by the counters of their names."""
    stems = {re.sub(r"_\d+(?=/|$)", "", layer.name) for layer in alike}
    if not weights.listed and len(stems) > 1:
        told = "; ".join(str(layer) for layer in alike)
        raise ArtifactError(
            f"{weights.path}: the order of layers of one shape is not known ({told})",
            "save them with model.save_weights('model.h5'), whose format lists the layers in order",
        )


def _names(place: str, kind: Kind) -> tuple[str, ...]:
    return (f"{place}.weight",) if kind == "dense" else (f"{place}.weight", f"{place}.bias")


def _turned(layer: KerasLayer) -> Iterable[np.ndarray[Any, np.dtype[np.float32]]]:
    """Tensors in PyTorch's order: DHWIO to OIDHW, (in, out) to (out, in)."""
    first, *rest = layer.tensors
    if layer.kind == "convolution":
        return (first.transpose(4, 3, 0, 1, 2), *rest)
    return (first.T, *rest)


def latup_spec(path: Path, network: NetworkSpec, changes: Path | None = None) -> ModelSpec:
    """The published protocol for this network, with what a spec.toml changes.

    Raises:
        SpecError: the file is not TOML or does not suit the network.
    """
    from edge_latup.export.foreign_spec import read_toml

    fields: dict[str, Any] = {"name": path.name.partition(".")[0], "network": network.model_dump()}
    fields["modalities"] = MODALITIES[: network.in_channels]
    if network.out_channels == 2:
        fields["labels"] = (0, 2)
    given = {} if changes is None else read_toml(changes)[1]
    try:
        return ModelSpec.model_validate(fields | given)
    except ValidationError as error:
        raise SpecError(f"{changes or path} does not suit the network {network}: {summary_of(error)}", "correct the spec") from error
