"""A small MONAI bundle as the model zoo lays them out, with random weights, and what MONAI itself makes of a case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

CHANNELS = {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}
REGIONS = {"0": "tumor core", "1": "whole tumor", "2": "enhancing tumor"}
CLASSES = {"0": "background", "1": "necrotic core", "2": "edema", "3": "enhancing tumor"}
SEGRESNET: dict[str, Any] = {
    "_target_": "SegResNet", "blocks_down": [1, 1], "blocks_up": [1], "init_filters": 8, "in_channels": 4,
    "out_channels": 3, "dropout_prob": 0.2,
}  # fmt: skip
UNET: dict[str, Any] = {
    "_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 4, "out_channels": 4, "channels": [4, 8], "strides": [2],
    "norm": "@norm",
}  # fmt: skip


def config(softmax: bool) -> dict[str, Any]:
    """configs/inference.json; the first needs expressions outside the network, as bundles of the zoo do."""
    return {
        "imports": ["$import glob"],
        "device": "$torch.device('cpu')",
        "norm": ["INSTANCE", {"affine": True}],
        "network_def": UNET if softmax else SEGRESNET,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": not softmax, "channel_wise": True},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer", "roi_size": [24, 16, 20], "sw_batch_size": 1, "overlap": 0.3 if softmax else 0.5,
            "mode": "constant" if softmax else "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax" if softmax else "sigmoid": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing"},
                {"_target_": "AsDiscreted", "keys": "pred", **({"argmax": True} if softmax else {"threshold": 0.5})},
            ],
        },
    }  # fmt: skip


def network(softmax: bool) -> Any:
    """The network by MONAI's own parser, with seeded weights that make every channel win somewhere."""
    torch.manual_seed(2)
    made = ConfigParser(config(softmax)).get_parsed_content("network_def")
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def write_bundle(folder: Path, *, softmax: bool = False, **changes: Any) -> Path:
    """metadata.json, inference.json and model.pt; `changes` overrides entries of inference.json."""
    bundle = folder / "brats_bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    told = {
        "name": "Tiny", "version": "0.1.0",
        "network_data_format": {"inputs": {"image": {"channel_def": CHANNELS}},
                                "outputs": {"pred": {"channel_def": CLASSES if softmax else REGIONS}}},
    }  # fmt: skip
    (bundle / "configs" / "metadata.json").write_text(json.dumps(told))
    (bundle / "configs" / "inference.json").write_text(json.dumps({**config(softmax), **changes}))
    torch.save(network(softmax).state_dict(), bundle / "models" / "model.pt")
    return bundle


def reference(volume: np.ndarray, *, softmax: bool) -> np.ndarray:
    """Canonical labels (x, y, z) of raw modalities (C, x, y, z) in the bundle's order, by MONAI's transforms and inferer."""
    from monai.transforms import Activations, NormalizeIntensity

    image = NormalizeIntensity(nonzero=not softmax, channel_wise=True)(torch.from_numpy(volume.astype(np.float32)))
    inferer = ConfigParser(config(softmax)).get_parsed_content("inferer")
    with torch.inference_mode():
        scores = inferer(torch.as_tensor(image)[None], network(softmax))[0]
    probabilities = np.asarray(Activations(softmax=softmax, sigmoid=not softmax)(scores))
    if softmax:
        return probabilities.argmax(axis=0)
    core, whole, enhancing = probabilities > 0.5
    return np.where(enhancing, 3, np.where(core, 1, np.where(whole, 2, 0)))
