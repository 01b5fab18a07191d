"""Keras files of LATUP-Net, written here with h5py in the layouts of Keras: the legacy one of 2.15, the numbered one since 2.13."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn

from edge_latup.networks.latup_net import LatupNet

Arrays = list[tuple[str, list[tuple[str, np.ndarray]]]]
CLASSES = {nn.Conv3d: "conv3d", nn.InstanceNorm3d: "group_normalization", nn.Linear: "dense"}
WEIGHTS = {nn.Conv3d: ("kernel", "bias"), nn.InstanceNorm3d: ("gamma", "beta"), nn.Linear: ("kernel",)}


def network(seed: int = 3, **changes: Any) -> LatupNet:
    """LATUP-Net of width 8 with random values everywhere, biases and norms too."""
    torch.manual_seed(seed)
    made = LatupNet(**{"width": 8, **changes})
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def layers_of(made: LatupNet) -> Arrays:
    """(layer name, [(weight name, array)]) as Keras names, orders and lays them out."""
    found: Arrays = []
    counts: dict[str, int] = {}
    for module in made.modules():
        kind = next((known for known in CLASSES if isinstance(module, known)), None)
        if kind is None:
            continue
        base = CLASSES[kind]
        number = counts.get(base, 0)
        counts[base] = number + 1
        arrays = [np.moveaxis(p.detach().numpy(), (0, 1), (-1, -2)) if p.ndim > 1 else p.detach().numpy() for p in module.parameters()]
        found.append((f"{base}_{number}" if number else base, list(zip(WEIGHTS[kind], arrays, strict=True))))
    return found


def legacy(path: Path, layers: Arrays, *, inside: str = "") -> Path:
    """`model.save_weights("x.h5")`; with `inside="model_weights"`, `model.save("x.h5")`."""
    with h5py.File(path, "w") as file:
        root = file.create_group(inside) if inside else file
        root.attrs["layer_names"] = np.array([b"input_1", *(name.encode() for name, _ in layers)])
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        root.create_group("input_1").attrs["weight_names"] = np.array([], dtype="S1")
        for name, weights in layers:
            group = root.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/{weight}:0".encode() for weight, _ in weights])
            for weight, array in weights:
                group.create_dataset(f"{name}/{weight}:0", data=array)
    return path


def numbered(path: Path | io.BytesIO, layers: Arrays) -> Any:
    """`model.save_weights("x.weights.h5")` of Keras 2.15 and 3: numbered arrays under `vars`, an optimizer beside them."""
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        file.create_group("optimizer/vars").create_dataset("0", data=np.int64(7))
        file.create_group("layers/input_layer/vars")
        for name, weights in layers:
            group = file.create_group(f"layers/{name}/vars")
            for number, (_, array) in enumerate(weights):
                group.create_dataset(str(number), data=array)
    return path


def archive(path: Path, layers: Arrays, config: str = "{}") -> Path:
    """`model.save("x.keras")`."""
    weights = io.BytesIO()
    numbered(weights, layers)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("metadata.json", '{"keras_version": "3.8.0"}')
        made.writestr("config.json", config)
        made.writestr("model.weights.h5", weights.getvalue())
    return path


LAYOUTS: dict[str, Callable[[Path, Arrays], Any]] = {
    "legacy.h5": legacy,
    "whole.h5": lambda path, layers: legacy(path, layers, inside="model_weights"),
    "numbered.weights.h5": numbered,
    "whole.keras": archive,
}


def renamed(layers: Arrays, name: str) -> Arrays:
    """The layers with names of a person's own, whose alphabetical order is not the network's."""
    return [(f"{name}_{chr(ord('z') - number % 26)}{number // 26 * 'x'}" if re.match("conv", old) else old, weights)
            for number, (old, weights) in enumerate(layers)]  # fmt: skip
