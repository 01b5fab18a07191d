"""MONAI bundles: the network is rebuilt from a list of known classes, its weights are read as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import Artifact, refuse_existing, sha256_of
from edge_latup.errors import ArtifactError, MissingDependencyError, install_hint
from edge_latup.export.adapters.monai_config import Bundle, plain, read_bundle, target_of
from edge_latup.export.adapters.weights import fill, load_weights, tensors_of
from edge_latup.versions import versions_of

NETWORKS: Final = (
    "AttentionUnet", "BasicUNet", "BasicUNetPlusPlus", "DynUNet", "SegResNet", "SegResNetDS", "SegResNetDS2",
    "SwinUNETR", "UNETR", "UNet", "VNet",
)  # fmt: skip
"""Segmentation networks of monai.networks.nets that neither download weights nor take functions."""
SEVERAL: Final = ("BasicUNetPlusPlus", "SegResNetDS2")
"""Those that give a list or a tuple also when they predict."""
MODULES: Final = ("", "monai.networks.nets")
KEYS: Final = ("network_def", "network")
KEEP: Final = "checkpoint['model'] if 'model' in checkpoint else checkpoint"
ONNX: Final = "export the network to ONNX where you trust the bundle, and import that"


def network_of(bundle: Bundle) -> tuple[str, dict[str, Any]]:
    """(class, arguments) of the bundle's network.

    Raises:
        ArtifactError: none is defined, it is no known class, or an argument is code or another object.
    """
    key = next((key for key in KEYS if isinstance(bundle.config.get(key), Mapping)), None)
    if key is None:
        raise bundle.refuse(f"it defines no {' or '.join(KEYS)}", ONNX)
    told = bundle.config[key]
    target = str(told.get("_target_", ""))
    module, _, name = target.rpartition(".")
    if name not in NETWORKS or not (module in MODULES or module.startswith("monai.networks.nets.")):
        raise bundle.refuse(f"{key} is {target or 'no component'}; known are {', '.join(NETWORKS)} of monai.networks.nets", ONNX)
    arguments = plain(bundle, {name: value for name, value in told.items() if name != "_target_"}, key)
    _refuse_objects(bundle, arguments, key)
    return name, arguments


def _refuse_objects(bundle: Bundle, value: Any, where: str) -> None:
    """Arguments are plain values: a component would be built, and `_mode_` and its like change how."""
    if isinstance(value, Mapping):
        if hidden := [key for key in value if str(key).startswith("_")]:
            raise bundle.refuse(f"{where} holds {hidden[0]}: {value[hidden[0]]}", "write plain values there, or " + ONNX)
        for key, inner in value.items():
            _refuse_objects(bundle, inner, f"{where}::{key}")
    if isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_objects(bundle, inner, f"{where}::{index}")


def rebuild(bundle: Bundle) -> tuple[Any, Path]:
    """The network with its weights, and where they were read.

    Raises:
        ArtifactError: it cannot be built, has no weights that are safe to read, or they do not fit.
        MissingDependencyError: MONAI is not installed.
    """
    try:
        from monai.bundle.config_parser import ConfigParser
    except ImportError:
        raise MissingDependencyError("rebuilding a bundle's network needs MONAI", install_hint("monai")) from None
    name, arguments = network_of(bundle)
    try:
        network = ConfigParser({"network": {"_target_": f"monai.networks.nets.{name}", **arguments}}).get_parsed_content("network")
    except Exception as error:  # whatever the network's constructor and its libraries raise
        raise bundle.refuse(f"{name} cannot be built: {error}", "correct its arguments, or " + ONNX) from error
    weights = bundle.folder / "models" / "model.pt"
    if not weights.is_file():
        other = bundle.folder / "models" / "model.ts"
        hint = f"edge-latup import {other} --spec spec.toml" if other.is_file() else "copy the whole bundle, or download its weights"
        raise ArtifactError(f"{bundle.folder} has no models/model.pt", hint)
    return fill(network, tensors_of(weights, load_weights(weights, KEEP)), weights, ONNX), weights


def import_bundle(path: Path, out: Path, *, spec: Path | None = None, overwrite: bool = False) -> Artifact:
    """Import a bundle; its spec is worked out from the configuration unless a spec.toml is given.

    Raises:
        ArtifactError, SpecError: it cannot be imported; the message names what stands in the way. Nothing is left behind.
        MissingDependencyError: MONAI is not installed.
    """
    from edge_latup.export.adapters.monai_spec import bundle_spec
    from edge_latup.export.adapters.outputs import Chosen
    from edge_latup.export.adapters.spec_text import choose
    from edge_latup.export.adapters.traced import import_module

    refuse_existing(out, overwrite)
    bundle = read_bundle(path)
    name, _ = network_of(bundle)
    told = choose(spec, lambda: bundle_spec(bundle))
    network, weights = rebuild(bundle)
    if name in SEVERAL:
        network = Chosen.of(network, told)
    origin = {
        "source": "monai", "bundle": path.name, "version": str(bundle.metadata.get("version", "")), "weights": f"models/{weights.name}",
        "sha256": sha256_of(weights), "made_with": versions_of("torch", "monai"),
    }  # fmt: skip
    return import_module(network, told, out, origin, overwrite=overwrite)


def summary(bundle: Bundle) -> dict[str, Any]:
    """What the bundle says, as plain values for JSON."""
    name, arguments = network_of(bundle)
    steps = bundle.config.get("preprocessing", {})
    transforms = steps.get("transforms", []) if isinstance(steps, Mapping) else []
    return {
        "source": "monai",
        "bundle": str(bundle.folder),
        "config": bundle.config_path.name,
        "version": str(bundle.metadata.get("version", "")),
        "network": name,
        "arguments": arguments,
        "preprocessing": [target_of(step) for step in transforms],
        "inferer": target_of(bundle.config.get("inferer")),
    }
