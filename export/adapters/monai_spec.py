"""From a MONAI bundle's transforms and inferer to a model spec; every transform is understood or refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from edge_latup.export.adapters.monai_bundle import network_of
from edge_latup.export.adapters.monai_config import Bundle, plain, target_of
from edge_latup.export.adapters.names import labels_of, modalities_of, regions_of
from edge_latup.export.adapters.spec_text import made_spec
from edge_latup.export.foreign_spec import ForeignSpec
from edge_latup.segmentation.windows import window_starts
from edge_latup.spec import RegionHead

Changes = dict[str, Any]
OWN_SPEC: Final = "write a spec of your own and give it with --spec"
NOTHING: Final = (
    "LoadImaged", "LoadImage", "EnsureChannelFirstd", "EnsureChannelFirst", "EnsureTyped", "EnsureType", "ToTensord",
    "CastToTyped", "ConcatItemsd",
)  # fmt: skip
"""Transforms that only bring the images into memory."""
AFTER: Final = ("Activationsd", "AsDiscreted", "Invertd", "SaveImaged", "EnsureTyped", "Activations", "AsDiscrete", "SaveImage")
PAINTED: Final = dict(RegionHead(order=("WT",)).paint)


def bundle_spec(bundle: Bundle) -> ForeignSpec:
    """The spec that makes this package compute what the bundle's inference computes.

    Raises:
        ArtifactError: a transform, an inferer or an option of one has no counterpart; the message names it.
        SpecError: a channel has a name that is not known.
    """
    name, arguments = network_of(bundle)
    spatial = _inferer(bundle)
    model: Changes = {
        "name": str(bundle.metadata.get("name") or bundle.folder.name),
        "modalities": list(modalities_of(_channels(bundle, "inputs", "image"), "configs/metadata.json, inputs")),
        "normalisation": "none",
        "divisor": _divisor(name, arguments, spatial["size"]),
        "averaging": "logits",
        **_preprocessing(bundle),
        "spatial": spatial,
    }
    activation = _activation(bundle)
    outputs = _channels(bundle, "outputs", "pred")
    if activation == "softmax":
        model["labels"] = list(labels_of(outputs, "configs/metadata.json, outputs"))
    else:
        regions = regions_of(outputs, "configs/metadata.json, outputs")
        ordered = [region for region in PAINTED if region in regions]
        model["regions"] = {"order": list(regions), "paint": [[region, PAINTED[region]] for region in ordered]}
    return made_spec(bundle.config_path, model, {"layout": "NCDHW", "activation": activation})


def _channels(bundle: Bundle, side: str, key: str) -> list[str]:
    """Names of the channels in metadata.json, in order."""
    try:
        told = bundle.metadata["network_data_format"][side][key]["channel_def"]
        return [str(told[number]) for number in sorted(told, key=int)]
    except (KeyError, TypeError, ValueError) as error:
        raise bundle.refuse(f"metadata.json names no channels under network_data_format::{side}::{key}::channel_def", OWN_SPEC) from error


def _steps(bundle: Bundle, key: str) -> list[Mapping[str, Any]]:
    """The transforms of one stage, those that are switched off left out."""
    stage = bundle.config.get(key, {})
    listed = stage.get("transforms", stage) if isinstance(stage, Mapping) else stage
    if isinstance(listed, str):
        listed = plain(bundle, listed, key)
    if not isinstance(listed, list):
        raise bundle.refuse(f"{key} is no list of transforms", OWN_SPEC)
    steps = [plain(bundle, step, f"{key}::{index}") if isinstance(step, str) else step for index, step in enumerate(listed)]
    if other := [step for step in steps if not isinstance(step, Mapping)]:
        raise bundle.refuse(f"{key} holds {other[0]!r}, which is no transform", OWN_SPEC)
    return [step for step in steps if not _disabled(step)]


def _disabled(step: Mapping[str, Any]) -> bool:
    """As MONAI reads it."""
    told = step.get("_disabled_", False)
    return told.strip().lower() == "true" if isinstance(told, str) else bool(told)


def _preprocessing(bundle: Bundle) -> Changes:
    changes: Changes = {}
    for step in _steps(bundle, "preprocessing"):
        name = target_of(step)
        if name in NOTHING:
            continue
        known = UNDERSTOOD.get(name)
        found = known(plain(bundle, dict(step), f"preprocessing::{name}")) if known else None
        if found is None:
            told = {key: value for key, value in step.items() if key not in ("_target_", "keys")}
            raise bundle.refuse(f"preprocessing has {name} {told}, which no spec says; known are {', '.join(UNDERSTOOD)}", OWN_SPEC)
        changes |= found
    return changes


def _normalised(step: Mapping[str, Any]) -> Changes | None:
    if not step.get("channel_wise") or step.get("subtrahend") is not None or step.get("divisor") is not None:
        return None
    return {"normalisation": "z_score_nonzero" if step.get("nonzero") else "z_score_volume"}


def _oriented(step: Mapping[str, Any]) -> Changes | None:
    return {"orientation": str(step["axcodes"])} if step.get("axcodes") else None


def _spaced(step: Mapping[str, Any]) -> Changes | None:
    """Nothing here resamples: cases of this spacing are taken, others refused when they are segmented."""
    pixdim = step.get("pixdim")
    sides = [pixdim] * 3 if isinstance(pixdim, int | float) else pixdim
    return {"spacing": [float(side) for side in sides]} if isinstance(sides, list) and len(sides) == 3 else None


UNDERSTOOD: Final[dict[str, Callable[[Mapping[str, Any]], Changes | None]]] = {
    "NormalizeIntensityd": _normalised,
    "NormalizeIntensity": _normalised,
    "Orientationd": _oriented,
    "Orientation": _oriented,
    "Spacingd": _spaced,
    "Spacing": _spaced,
}


def _inferer(bundle: Bundle) -> Changes:
    """The sliding window of MONAI's inferer."""
    told = bundle.config.get("inferer")
    name = target_of(told)
    if not isinstance(told, Mapping) or name != "SlidingWindowInferer":
        raise bundle.refuse(f"its inferer is {name or 'missing'}; known is SlidingWindowInferer", OWN_SPEC)
    run_only = ("_target_", "sw_batch_size", "device", "sw_device", "progress", "cache_roi_weight_map", "cpu_thresh")
    options = plain(bundle, {key: value for key, value in told.items() if key not in run_only}, "inferer")
    size = options.pop("roi_size", None)
    overlap, mode = options.pop("overlap", 0.25), options.pop("mode", "constant")
    defaults = {"sigma_scale": 0.125, "padding_mode": "constant", "cval": 0.0}
    if other := {key: value for key, value in options.items() if key not in defaults or value != defaults[key]}:
        raise bundle.refuse(f"its inferer has {other}, which no spec says", OWN_SPEC)
    sides = [size] * 3 if isinstance(size, int) else size
    if (
        not isinstance(sides, list)
        or len(sides) != 3
        or min(sides) < 1
        or not isinstance(overlap, int | float)
        or mode not in ("constant", "gaussian")
    ):
        raise bundle.refuse(f"its inferer has roi_size {size}, overlap {overlap}, mode {mode}, which no spec says", OWN_SPEC)
    return {
        "kind": "sliding-window", "size": sides, "overlap": _overlap(bundle, sides, overlap), "blending": mode, "skip_air": False,
    }  # fmt: skip


def _overlap(bundle: Bundle, sides: Sequence[int], overlap: float) -> float:
    """The overlap of the same stride: MONAI rounds strides down, and a spec's overlap is rounded the other way."""
    strides = [max(int(side * (1 - overlap)), 1) for side in sides]
    for tried in (overlap, *(1 - stride / side for side, stride in zip(sides, strides, strict=True))):
        if all(window_starts(10 * side, side, tried)[1] == stride for side, stride in zip(sides, strides, strict=True)):
            return float(tried)
    raise bundle.refuse(
        f"its inferer's roi_size {list(sides)} and overlap {overlap} give strides {strides}, which no overlap says", OWN_SPEC
    )


def _activation(bundle: Bundle) -> str:
    """What follows the network: an activation, and nothing else that changes its values."""
    found = ""
    for step in _steps(bundle, "postprocessing"):
        name = target_of(step)
        if name not in AFTER:
            raise bundle.refuse(f"postprocessing has {name}, which no spec says; known are {', '.join(AFTER)}", OWN_SPEC)
        if name.startswith("Activations"):
            found = "sigmoid" if step.get("sigmoid") else "softmax" if step.get("softmax") else ""
        if name.startswith("AsDiscrete") and step.get("threshold") not in (None, 0.5, True):
            raise bundle.refuse(f"postprocessing has a threshold of {step['threshold']}", OWN_SPEC)
    if not found:
        raise bundle.refuse("postprocessing has no Activationsd with sigmoid or softmax", OWN_SPEC)
    return found


def _divisor(name: str, arguments: Mapping[str, Any], size: Sequence[int]) -> int:
    """What the network halves by, where its arguments tell, as far as the window is a multiple of it."""
    steps = arguments.get("strides") or [2] * (len(arguments.get("blocks_down", (1, 2, 2, 4))) - 1 if name.startswith("SegResNet") else 4)
    total = math.prod(max(step) if isinstance(step, list) else int(step) for step in steps)
    return math.gcd(32 if name in ("SwinUNETR",) else total, *size)
