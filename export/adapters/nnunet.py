"""nnU-Net v2 trained folders: plans, data set and weights; the network is rebuilt from the plans, without nnU-Net itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_latup.artifact import Artifact, refuse_existing, sha256_of
from edge_latup.errors import ArtifactError, MissingDependencyError, install_hint
from edge_latup.export.adapters.weights import fill, load_weights, tensors_of
from edge_latup.versions import versions_of

if TYPE_CHECKING:
    import torch
    from torch import nn

CHECKPOINTS: Final = ("checkpoint_final.pth", "checkpoint_best.pth")
NETWORKS: Final = ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
"""Classes that a plan may name; it could name any class of any module."""
PARTS: Final = (
    "Conv2d", "Conv3d", "InstanceNorm2d", "InstanceNorm3d", "BatchNorm2d", "BatchNorm3d", "Dropout2d", "Dropout3d",
    "LeakyReLU", "ReLU", "GELU", "SiLU",
)  # fmt: skip
"""Layers of torch.nn that a plan may name."""
NNUNET: Final = "copy the whole folder that nnU-Net v2 trained into"
KEEP: Final = (
    "{'network_weights': checkpoint['network_weights'], 'trainer_name': checkpoint['trainer_name'], "
    "'init_args': {'configuration': checkpoint['init_args']['configuration']}, "
    "'inference_allowed_mirroring_axes': tuple(checkpoint['inference_allowed_mirroring_axes'] or ())}"
)


@dataclass(frozen=True, kw_only=True)
class NnunetFolder:
    """A trained folder, read. mirroring: network axes along which nnU-Net mirrors at inference."""

    folder: Path
    checkpoint: Path
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    configuration_name: str
    configuration: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    trainer: str
    mirroring: tuple[int, ...]


def read_nnunet(path: Path) -> NnunetFolder:
    """Read a trained folder, or one fold_* in it.

    Raises:
        ArtifactError: a file is missing or damaged, several folds are there and none chosen, or the checkpoint is not safe to read.
    """
    folder, checkpoint = _checkpoint_of(path)
    plans, dataset = (_json(folder / name) for name in ("plans.json", "dataset.json"))
    found = load_weights(checkpoint, KEEP)
    with of_nnunet(checkpoint):
        name = str(found["init_args"]["configuration"])
        tensors = tensors_of(checkpoint, found["network_weights"])
        axes = found.get("inference_allowed_mirroring_axes") or ()
        return NnunetFolder(
            folder=folder, checkpoint=checkpoint, plans=plans, dataset=dataset, configuration_name=name,
            configuration=_configuration(plans, name, folder), tensors=tensors, trainer=str(found.get("trainer_name")),
            mirroring=tuple(int(axis) for axis in axes),
        )  # fmt: skip


@contextmanager
def of_nnunet(path: Path) -> Iterator[None]:
    """Turns what a foreign file lacks into a refusal.

    Raises:
        ArtifactError: an entry is missing, or is of another kind than nnU-Net writes.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ArtifactError(
            f"{path}: checkpoint, plans and data set do not fit each other as nnU-Net v2's do: {error!r}", NNUNET
        ) from error


def _checkpoint_of(path: Path) -> tuple[Path, Path]:
    """(the folder with the plans, the one checkpoint)."""
    folder = path if (path / "plans.json").is_file() else path.parent
    folds = sorted(folder.glob("fold_*")) if folder == path else [path]
    found = [fold / name for fold in folds for name in CHECKPOINTS if (fold / name).is_file()]
    chosen = [checkpoint for checkpoint in found if checkpoint.name == CHECKPOINTS[0]] or found
    if not chosen:
        raise ArtifactError(f"{path} has no fold_*/{CHECKPOINTS[0]}", "give the folder that nnU-Net trained into, with its folds")
    if len(chosen) > 1:
        folds_told = ", ".join(checkpoint.parent.name for checkpoint in chosen)
        raise ArtifactError(
            f"{path} has several folds ({folds_told}), whose mean nnU-Net takes; an artifact is one network",
            f"choose one: edge-latup import {chosen[0].parent}",
        )
    return folder, chosen[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "copy the whole folder that nnU-Net trained into") from error
    return found


def _configuration(plans: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """The configuration with what it inherits."""
    configurations, chain = plans["configurations"], [name]
    while "inherits_from" in configurations[chain[-1]]:
        chain.append(configurations[chain[-1]]["inherits_from"])
        if chain[-1] in chain[:-1]:
            raise ArtifactError(f"{folder / 'plans.json'}: configuration {name} inherits from itself", "copy the plans again")
    merged: dict[str, Any] = {}
    for link in reversed(chain):
        merged |= configurations[link]
    return merged


def rebuild(found: NnunetFolder, architecture: tuple[str, dict[str, Any]], inputs: int, outputs: int) -> nn.Module:
    """The network with its weights; deep supervision's heads keep their weights and are not run.

    Raises:
        ArtifactError: the network cannot be built, or the weights do not fit.
        MissingDependencyError: dynamic-network-architectures is not installed.
    """
    try:
        from dynamic_network_architectures.architectures import unet
    except ImportError:
        raise MissingDependencyError("rebuilding nnU-Net's networks needs dynamic-network-architectures", install_hint("nnunet")) from None
    name, arguments = architecture
    try:
        network = getattr(unet, name)(input_channels=inputs, num_classes=outputs, **{**arguments, "deep_supervision": False})
    except (TypeError, ValueError, AssertionError, IndexError, RuntimeError) as error:
        raise ArtifactError(
            f"{found.folder / 'plans.json'}: {name} cannot be built: {error}", "plan again with a current nnU-Net"
        ) from error
    hint = f"trainer {found.trainer} may build another network than the plans say: export it to ONNX in its own environment"
    return fill(network, found.tensors, found.checkpoint, hint)


def architecture_of(found: NnunetFolder) -> tuple[str, dict[str, Any]]:
    """(class name, constructor arguments), with the layers that the plans name looked up in a list of known ones.

    Raises:
        ArtifactError: the plans name a class that is not known.
    """
    told = found.configuration.get("architecture") or _older(found.configuration)
    name = str(told["network_class_name"]).rpartition(".")[2]
    if name not in NETWORKS:
        raise ArtifactError(
            f"{found.folder / 'plans.json'} builds a {told['network_class_name']}; known are {', '.join(NETWORKS)}",
            "export it to ONNX in its own environment, and import that",
        )
    arguments = dict(told["arch_kwargs"])
    for key in told["_kw_requires_import"]:
        arguments[key] = _layer(arguments.get(key), found.folder)
    return name, arguments


def _layer(name: str | None, folder: Path) -> type[nn.Module] | None:
    from torch import nn

    if name is None:
        return None
    module, _, last = name.rpartition(".")
    if last not in PARTS or not (module == "torch.nn" or module.startswith("torch.nn.modules")):
        raise ArtifactError(f"{folder / 'plans.json'} names {name}, which is no known layer", f"known: {', '.join(PARTS)}")
    kind: type[nn.Module] = getattr(nn, last)
    return kind


def _older(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The same from plans made before nnU-Net 2.4, which name the parts of a U-Net one by one."""
    name, dimensions = configuration["UNet_class_name"], len(configuration["patch_size"])
    stages = len(configuration["n_conv_per_stage_encoder"])
    widths = [min(configuration["UNet_base_num_features"] * 2**i, configuration["unet_max_num_features"]) for i in range(stages)]
    blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {
        "n_stages": stages, "features_per_stage": widths, "conv_op": f"torch.nn.Conv{dimensions}d",
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"], blocks: configuration["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"], "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{dimensions}d", "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None,
        "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    return {"network_class_name": name, "arch_kwargs": arguments, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}


def import_nnunet(path: Path, out: Path, *, spec: Path | None = None, overwrite: bool = False) -> Artifact:
    """Import a trained folder; its spec is worked out from the plans unless a spec.toml is given.

    Raises:
        ArtifactError, SpecError: it cannot be imported; the message says what stands in the way. Nothing is left behind.
        MissingDependencyError: dynamic-network-architectures is not installed.
    """
    from edge_latup.export.adapters.nnunet_spec import nnunet_spec
    from edge_latup.export.adapters.spec_text import choose
    from edge_latup.export.adapters.traced import import_module

    refuse_existing(out, overwrite)
    found = read_nnunet(path)
    with of_nnunet(found.folder):
        architecture = architecture_of(found)
        told = choose(spec, lambda: nnunet_spec(found))
        network = rebuild(found, architecture, len(told.model.modalities), told.model.channels)
    origin = {
        "source": "nnunet", "checkpoint": f"{found.checkpoint.parent.name}/{found.checkpoint.name}", "sha256": sha256_of(found.checkpoint),
        "plans_sha256": sha256_of(found.folder / "plans.json"), "trainer": found.trainer, "configuration": found.configuration_name,
        "made_with": versions_of("torch", "dynamic-network-architectures"),
    }  # fmt: skip
    return import_module(network, told, out, origin, overwrite=overwrite)
