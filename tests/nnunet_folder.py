"""A hand-made nnU-Net v2 trained folder with random weights, and a plain reference of its predictor in PyTorch and scipy."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from scipy import ndimage
from torch import nn

PATCH = (16, 24, 20)
"""Along the network's axes, z, y, x."""
CHANNELS = {"0": "T2-FLAIR", "1": "T1gd", "2": "T2w", "3": "T1"}
LABELS: dict[str, Any] = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}
REGIONS: dict[str, Any] = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
CLASS_ORDER = [1, 2, 3]
CANONICAL = {0: 0, 1: 2, 2: 1, 3: 3}
"""Canonical label of each of the data set's: nnU-Net's BraTS has oedema first."""
ARGUMENTS: dict[str, Any] = {
    "n_stages": 3, "features_per_stage": [6, 8, 10], "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]], "n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1], "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None,
    "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
}  # fmt: skip


def network(outputs: int, seed: int = 0) -> nn.Module:
    """The network of the plans, with deep supervision as it is trained."""
    torch.manual_seed(seed)
    looked_up = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    made = PlainConvUNet(input_channels=4, num_classes=outputs, **{**ARGUMENTS, **looked_up}, deep_supervision=True)
    for name, parameter in made.named_parameters():
        if "seg_layers" in name:
            nn.init.normal_(parameter, std=2) if "weight" in name else nn.init.zeros_(parameter)
    return made.eval()


def write_folder(folder: Path, *, regions: bool = False, **plan: Any) -> Path:
    """Dataset/Trainer__Plans__3d_fullres/fold_0 as nnU-Net v2 leaves it; `plan` overrides entries of the configuration."""
    trained = folder / "Dataset137_BraTS" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (trained / "fold_0").mkdir(parents=True)
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": list(PATCH),
        "spacing": [1.0, 1.0, 1.0], "normalization_schemes": ["ZScoreNormalization"] * 4, "use_mask_for_norm": [True] * 4,
        "architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet", "arch_kwargs": ARGUMENTS,
                         "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]},
        **plan,
    }  # fmt: skip
    plans = {
        "dataset_name": "Dataset137_BraTS", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2], "label_manager": "LabelManager", "configurations": {"3d_fullres": configuration},
    }  # fmt: skip
    dataset = {"channel_names": CHANNELS, "labels": REGIONS if regions else LABELS, "file_ending": ".nii.gz"}
    if regions:
        dataset["regions_class_order"] = CLASS_ORDER
    (trained / "plans.json").write_text(json.dumps(plans))
    (trained / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = {
        "network_weights": network(3 if regions else 4).state_dict(), "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None, "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch_start_timestamps": [1.0]},
        "_best_ema": np.float64(0.5), "current_epoch": 1, "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": (0, 2),
        "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset, "device": torch.device("cpu")},
    }  # fmt: skip
    torch.save(checkpoint, trained / "fold_0" / "checkpoint_final.pth")
    return trained


def reference(volume: np.ndarray, *, regions: bool = False, masked: bool = True) -> np.ndarray:
    """Canonical labels (x, y, z) of raw modalities float64 (C, x, y, z), step by step as nnU-Net's predictor does it, in float64."""
    data = volume.transpose(0, 3, 2, 1).copy()
    mask = ndimage.binary_fill_holes((data != 0).any(axis=0))
    box = tuple(slice(line.min(), line.max() + 1) for line in np.nonzero(mask))
    data, mask = data[(slice(None), *box)], mask[box]
    for channel in data:
        inside = mask if masked else np.ones_like(mask)
        channel[inside] = (channel[inside] - channel[inside].mean()) / channel[inside].std()
    logits = _logits(data, network(3 if regions else 4).double())
    found = np.zeros(mask.shape, int)
    if regions:
        for channel, label in zip(logits, CLASS_ORDER, strict=True):
            found[channel > 0] = label
    else:
        found = logits.argmax(axis=0)
    whole = np.zeros(volume.shape[:0:-1], int)
    whole[box] = found
    return np.vectorize(CANONICAL.get)(whole).transpose(2, 1, 0)


def _logits(data: np.ndarray, made: nn.Module) -> np.ndarray:
    """Windows half a patch apart at most and evenly spread, mirrored along the first and last axis, under a Gaussian."""
    short = [max(patch - length, 0) for patch, length in zip(PATCH, data.shape[1:], strict=True)]
    padded = np.pad(data, [(0, 0), *((lost // 2, lost - lost // 2) for lost in short)])
    point = np.zeros(PATCH)
    point[tuple(side // 2 for side in PATCH)] = 1
    weights = ndimage.gaussian_filter(point, [side / 8 for side in PATCH], mode="constant")
    weights[weights == 0] = weights[weights > 0].min()
    starts = []
    for length, patch in zip(padded.shape[1:], PATCH, strict=True):
        count = math.ceil((length - patch) / (patch / 2)) + 1
        starts.append([int(np.round((length - patch) / max(count - 1, 1) * step)) for step in range(count)])
    total, weight = 0.0, np.zeros(padded.shape[1:])
    for corner in itertools.product(*starts):
        here = tuple(slice(start, start + patch) for start, patch in zip(corner, PATCH, strict=True))
        window = torch.from_numpy(padded[(slice(None), *here)][None])
        with torch.inference_mode():
            made_of = sum(made(window.flip(axes))[0].flip(axes) for axes in ((), (2,), (4,), (2, 4))) / 4
        if isinstance(total, float):
            total = np.zeros((made_of.shape[1], *padded.shape[1:]))
        total[(slice(None), *here)] += made_of[0].numpy() * weights
        weight[here] += weights
    inner = tuple(slice(lost // 2, lost // 2 + length) for lost, length in zip(short, data.shape[1:], strict=True))
    return (total / weight)[(slice(None), *inner)]
