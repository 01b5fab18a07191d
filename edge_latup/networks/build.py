"""From a network spec to a module, and checkpoints on disk: a folder with safetensors weights and the model spec, no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Final, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from edge_latup.errors import SpecError
from edge_latup.manifest import SeenCase, SeenCases
from edge_latup.network_specs import AttentionResnetUnetSpec, ResUnetSpec
from edge_latup.networks.attention_resnet_unet import AttentionResnetUnet
from edge_latup.networks.base import SegmentationNetwork
from edge_latup.networks.latup_net import LatupNet
from edge_latup.networks.res_unet import ResUnet
from edge_latup.records import read_record, replacing, write_record
from edge_latup.spec import AnyNetwork, ModelSpec, NetworkSpec

WEIGHTS_NAME: Final = "model.safetensors"
SPEC_NAME: Final = "spec.json"
SEEN_NAME: Final = "seen.json"
CHECKPOINT_HINT: Final = f"give a folder with {WEIGHTS_NAME} and {SPEC_NAME}; pickled checkpoints (.pt, .pth) are not loaded"


STEPS_TAKEN: Final = "num_batches_tracked"
"""An integer that PyTorch counts in every batch norm and nothing here reads: not part of a checkpoint."""


@overload
def build(spec: NetworkSpec) -> LatupNet: ...
@overload
def build(spec: AttentionResnetUnetSpec | ResUnetSpec) -> SegmentationNetwork: ...
def build(spec: AnyNetwork) -> SegmentationNetwork:
    """A freshly initialised network."""
    if isinstance(spec, NetworkSpec):
        return LatupNet(spec.in_channels, spec.out_channels, spec.width, attention=spec.attention, upsample=spec.upsample)
    arguments = spec.model_dump(exclude={"family"})
    return AttentionResnetUnet(**arguments) if isinstance(spec, AttentionResnetUnetSpec) else ResUnet(**arguments)


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and running statistics by name."""
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(STEPS_TAKEN)}


def save_checkpoint(folder: Path, network: nn.Module, spec: ModelSpec) -> None:
    """Write model.safetensors (float32) and spec.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().contiguous().clone() for name, tensor in _tensors(network).items()}
    with replacing(folder / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary)
    write_record(spec, folder / SPEC_NAME)


def read_checkpoint_spec(folder: Path) -> ModelSpec:
    """The spec of a checkpoint folder, without its weights.

    Raises:
        SpecError: it is missing or damaged.
    """
    if not (folder / SPEC_NAME).is_file():
        why = f"it has no {SPEC_NAME}" if folder.exists() else "it does not exist"
        raise SpecError(f"{folder} is not a checkpoint: {why}", CHECKPOINT_HINT)
    return read_record(ModelSpec, folder / SPEC_NAME)


def load_checkpoint(folder: Path) -> tuple[SegmentationNetwork, ModelSpec]:
    """Load a checkpoint folder as an eval-mode float32 network and its spec.

    Raises:
        SpecError: a file is missing or damaged, the spec names no network, or the tensors are not that network's.
    """
    spec = read_checkpoint_spec(folder)
    return load_network(folder / WEIGHTS_NAME, spec), spec


def seen_cases(folder: Path) -> tuple[SeenCase, ...]:
    """The cases a checkpoint was trained on; empty where it does not tell.

    Raises:
        SpecError: seen.json is damaged.
    """
    path = folder / SEEN_NAME
    return read_record(SeenCases, path).cases if path.is_file() else ()


def load_network(weights: Path, spec: ModelSpec) -> SegmentationNetwork:
    """The network `spec` declares with weights from a safetensors file, eval mode. Networks are recognised by tensor shapes.

    Raises:
        SpecError: the file is missing or damaged, the spec names no network, or the tensors are not that network's.
    """
    if spec.network is None:
        raise SpecError(f"model spec {spec.name} of {weights} declares no network", 'add "network": {"family": "latup-net"}')
    tensors = {name: tensor for name, tensor in _read_tensors(weights).items() if not name.endswith(STEPS_TAKEN)}
    network = build(spec.network)
    _check_shapes(network, tensors, weights)
    network.load_state_dict(tensors, strict=False)  # strict but for the counters: `_check_shapes` compared every name
    return network.eval()


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise SpecError(f"{path} does not exist", CHECKPOINT_HINT)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise SpecError(f"{path} is not a readable safetensors file ({error})", f"copy it again, or {CHECKPOINT_HINT}") from error


def _check_shapes(network: nn.Module, tensors: dict[str, torch.Tensor], weights: Path) -> None:
    if integers := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
        raise SpecError(
            f"{weights} holds {tensors[integers[0]].dtype} values in {integers[0]}", "give the checkpoint as it was trained, in floats"
        )
    expected = {name: tuple(tensor.shape) for name, tensor in _tensors(network).items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected == found:
        return
    wrong = [f"{name} is {found[name]}, expected {shape}" for name, shape in expected.items() if name in found and found[name] != shape]
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    details = [*wrong[:3], *(f"{name} is missing" for name in sorted(missing)[:3]), *(f"{name} is not known" for name in sorted(extra)[:3])]
    raise SpecError(
        f"{weights} does not hold the network its spec declares: {'; '.join(details)}",
        "check width, in_channels and attention in spec.json; a network that only carries the name LATUP-Net is refused",
    )
