"""From nnU-Net's plans and data set to a model spec: what it normalises, where its windows lie, how it decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge_latup.errors import ArtifactError, SpecError
from edge_latup.export.adapters.names import labels_of, modalities_of, regions_of
from edge_latup.export.adapters.nnunet import NnunetFolder
from edge_latup.export.adapters.spec_text import made_spec
from edge_latup.export.foreign_spec import ForeignSpec
from edge_latup.spec import RegionHead

READERS: Final = {"SimpleITKIO": "LPS", "NibabelIO": "LPS", "NibabelIOWithReorient": "RAS"}
"""Orientation of what each reader gives. The first two take files as they are stored: BraTS stores LPS."""
NORMALISATIONS: Final = {
    ("ZScoreNormalization", True): "z_score_mask",
    ("ZScoreNormalization", False): "z_score_volume",
    ("NoNormalization", True): "none",
    ("NoNormalization", False): "none",
}
MIRRORS: Final = {
    "x": "mirror",
    "y": "mirror_y",
    "z": "mirror_z",
    "xy": "mirror_xy",
    "xz": "mirror_xz",
    "yz": "mirror_yz",
    "xyz": "mirror_xyz",
}
PAINTED: Final = dict(RegionHead(order=("WT",)).paint)
"""The canonical label that each region leaves where no inner one lies."""
ONNX: Final = "export the network to ONNX in its own environment, and import that with a spec of your own"


def nnunet_spec(found: NnunetFolder) -> ForeignSpec:
    """The spec that makes this package compute what nnU-Net's predictor computes, on cases of the plans' voxel size.

    Raises:
        ArtifactError: the plans ask for what no spec says: 2-D, cascades, resampling of another kind, CT.
        SpecError: a channel, label or region has a name that is not known; a spec of one's own is the way out.
    """
    where, plan = str(found.folder / "plans.json"), found.configuration
    _refuse_unknown(where, found)
    axes = "".join("zyx"[axis] for axis in found.plans["transpose_forward"])
    sides, spacing = (dict(zip(axes, plan[key], strict=True)) for key in ("patch_size", "spacing"))
    names = _channels(found.dataset)
    size = [int(sides[axis]) for axis in "xyz"]
    model: dict[str, Any] = {
        "name": found.folder.parent.name or found.folder.name,
        "modalities": list(modalities_of(names, str(found.folder / "dataset.json"))),
        "orientation": READERS[_reader(found)],
        "normalisation": _normalisation(where, plan),
        "divisor": _divisor(found, size),
        "views": _views(axes, found.mirroring), "views_by": "mean", "averaging": "logits",
        "spacing": [float(spacing[axis]) for axis in "xyz"],
        **_head(found),
        "spatial": {
            "kind": "sliding-window", "size": size, "overlap": 0.5, "blending": "gaussian_nnunet", "steps": "even", "inside": "nonzero",
            "skip_air": False,
        },
    }  # fmt: skip
    how = {"layout": "NCDHW", "axes": axes, "activation": "sigmoid" if "regions" in model else "softmax"}
    return made_spec(found.folder / "plans.json", model, how)


def _refuse_unknown(where: str, found: NnunetFolder) -> None:
    plan = found.configuration
    if len(plan["patch_size"]) != 3:
        raise ArtifactError(f"{where}: configuration {found.configuration_name} is 2-D", f"give a 3-D configuration, or {ONNX}")
    if plan.get("previous_stage"):
        raise ArtifactError(f"{where}: {found.configuration_name} is the second stage of a cascade", f"give 3d_fullres, or {ONNX}")
    if plan.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise ArtifactError(f"{where}: cases are prepared by {plan['preprocessor_name']}, which is not known", ONNX)
    if _reader(found) not in READERS:
        raise ArtifactError(f"{where}: cases are read by {_reader(found)}; known are {', '.join(READERS)}", ONNX)


def _reader(found: NnunetFolder) -> str:
    return str(found.dataset.get("overwrite_image_reader_writer") or found.plans.get("image_reader_writer", "SimpleITKIO"))


def _channels(dataset: Mapping[str, Any]) -> list[str]:
    told = dataset.get("channel_names") or dataset.get("modality") or {}
    return [str(told[key]) for key in sorted(told, key=int)]


def _normalisation(where: str, plan: Mapping[str, Any]) -> str:
    pairs = set(zip(plan["normalization_schemes"], plan["use_mask_for_norm"], strict=True))
    if len(pairs) == 1 and (pair := pairs.pop()) in NORMALISATIONS:
        return NORMALISATIONS[pair]
    told = ", ".join(plan["normalization_schemes"])
    known = "ZScoreNormalization and NoNormalization, the same for every channel"
    raise ArtifactError(f"{where}: channels are normalised by {told} (mask: {plan['use_mask_for_norm']}); known are {known}", ONNX)


def _divisor(found: NnunetFolder, size: Sequence[int]) -> int:
    """What the strides divide by along every axis, as far as the patch is a multiple of it."""
    told = found.configuration.get("architecture", {}).get("arch_kwargs", {}).get("strides") or found.configuration["pool_op_kernel_sizes"]
    steps = [[step] * 3 if isinstance(step, int) else step for step in told]
    return math.gcd(math.lcm(*(math.prod(step[axis] for step in steps) for axis in range(3))), *size)


def _views(axes: str, mirroring: Sequence[int]) -> list[str]:
    """The case as it is, and mirrored along every combination of the axes."""
    letters = sorted(axes[axis] for axis in mirroring)
    chosen = [MIRRORS["".join(some)] for count in range(1, len(letters) + 1) for some in itertools.combinations(letters, count)]
    return ["identity", *chosen]


def _head(found: NnunetFolder) -> dict[str, Any]:
    """Labels of the channels of a softmax, or regions of those of a sigmoid, painted in the channels' order."""
    where = str(found.folder / "dataset.json")
    told = {name: value for name, value in found.dataset["labels"].items() if name != "ignore"}
    if not any(isinstance(value, list) and len(value) > 1 for value in told.values()):
        ordered = sorted(told, key=lambda name: int(told[name][0] if isinstance(told[name], list) else told[name]))
        return {"labels": list(labels_of(ordered, where))}
    sets = {name: set(value) if isinstance(value, list) else {value} for name, value in told.items() if value not in (0, [0])}
    regions = regions_of(list(sets), where)
    by_region = dict(zip(regions, sets.values(), strict=True))
    for outer, inner in (("WT", "TC"), ("TC", "ET"), ("WT", "ET")):
        if outer in by_region and inner in by_region and not by_region[outer] > by_region[inner]:
            raise SpecError(f"{where}: {outer} {by_region[outer]} does not enclose {inner} {by_region[inner]}", ONNX)
    return {"regions": {"order": list(regions), "paint": [[region, PAINTED[region]] for region in regions]}}


def summary(found: NnunetFolder) -> dict[str, Any]:
    """What the folder holds, as plain values for JSON."""
    return {
        "source": "nnunet",
        "folder": str(found.folder),
        "checkpoint": str(found.checkpoint),
        "trainer": found.trainer,
        "configuration": found.configuration_name,
        "network": found.configuration.get("architecture", {}).get("network_class_name", found.configuration.get("UNet_class_name")),
        "parameters": sum(value.numel() for name, value in found.tensors.items() if not name.startswith("decoder.encoder.")),
        "channels": _channels(found.dataset),
        "labels": found.dataset["labels"],
        "normalisation": list(found.configuration["normalization_schemes"]),
        "mirroring": list(found.mirroring),
    }
