"""Small ONNX networks as other tools export them, with seeded random weights: 2-D, channels-last, slabs, several outputs, regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Collects nodes and constants of one graph; every step reads what the one before it made unless told otherwise."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last = "image"

    def add(self, operation: str, *more: str, source: str | None = None, name: str | None = None, **attributes: Any) -> str:
        """Append a node and return its output's name."""
        made = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, [source or self.last, *more], [made], **attributes))
        self.last = made
        return made

    def constant(self, values: np.ndarray) -> str:
        """A constant's name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, read: int, made: int, kernel: Sequence[int], pads: Sequence[int] | None = None, **more: Any) -> str:
        """A convolution with bias; zero padding keeps the size unless `pads` says otherwise."""
        weight = self.rng.normal(size=(made, read, *kernel)).astype(np.float32) / np.float32(np.sqrt(read * np.prod(kernel)))
        bias = self.rng.normal(0, 0.1, made).astype(np.float32)
        same = [side // 2 for side in kernel] * 2
        return self.add("Conv", self.constant(weight), self.constant(bias), pads=list(pads if pads is not None else same), **more)

    def turn(self, *perm: int) -> str:
        """A transposition."""
        return self.add("Transpose", perm=list(perm))

    def save(
        self, path: Path, taken: Sequence[int | str], outputs: dict[str, Sequence[int | str | None]], *, opset: int = 17,
        dtype: int = TensorProto.FLOAT,
    ) -> Path:  # fmt: skip
        """Write the model; `taken` is the shape of "image"."""
        graph = helper.make_graph(
            self.nodes, "foreign", [helper.make_tensor_value_info("image", dtype, taken)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()], self.constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def flat(path: Path, *, batch: int | str = "n", opset: int = 17) -> Path:
    """2-D, (N, 4, H, W) of free size, logits of 4 classes; halves its input once."""
    net = Builder(1)
    net.conv(4, 8, (3, 3))
    skip = net.add("Relu")
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.conv(8, 8, (3, 3))
    net.add("Relu")
    up = net.rng.normal(size=(8, 8, 2, 2)).astype(np.float32) / 4
    net.add("ConvTranspose", net.constant(up), kernel_shape=[2, 2], strides=[2, 2])
    net.add("Concat", skip, axis=1)
    net.conv(16, 4, (1, 1))
    net.add("Identity", name="logits")
    return net.save(path, (batch, 4, "h", "w"), {"logits": (batch, 4, "h", "w")}, opset=opset)


def channels_last(path: Path, size: Sequence[int] = (12, 16, 20), modalities: int = 3) -> Path:
    """3-D, NDHWC of fixed size, softmax inside; an anisotropic kernel, so that no two axes are alike. As Keras exports them."""
    net = Builder(2)
    net.turn(0, 4, 1, 2, 3)
    net.conv(modalities, 16, (1, 3, 5))
    net.add("Relu")
    net.conv(16, 16, (3, 1, 1))
    net.add("Relu")
    net.conv(16, 4, (1, 1, 1))
    net.turn(0, 2, 3, 4, 1)
    net.add("Softmax", axis=-1, name="probabilities")
    return net.save(path, (1, *size, modalities), {"probabilities": (1, *size, 4)})


def several(path: Path) -> Path:
    """3-D, NCDHW of fixed size 16: logits, a half-resolution auxiliary head, and a classification."""
    net = Builder(3)
    net.conv(4, 8, (3, 3, 3))
    features = net.add("Relu")
    net.conv(8, 4, (1, 1, 1))
    net.add("Identity", name="segmentation")
    net.add("AveragePool", source=features, kernel_shape=[2] * 3, strides=[2] * 3)
    net.conv(8, 4, (1, 1, 1))
    net.add("Identity", name="auxiliary")
    net.add("GlobalAveragePool", source=features)
    net.add("Flatten", name="tumour_type")
    outputs: dict[str, Sequence[int | str | None]] = {
        "auxiliary": (1, 4, 8, 8, 8), "segmentation": (1, 4, 16, 16, 16), "tumour_type": (1, 8),
    }  # fmt: skip
    return net.save(path, (1, 4, 16, 16, 16), outputs)


def slab(path: Path, plane: int = 24, classes: int = 2, seed: int = 4) -> Path:
    """NDHWC, 19 slices of `plane` x `plane` in and 11 out (four convolutions along the slices without padding), logits."""
    net = Builder(seed)
    net.turn(0, 4, 1, 2, 3)
    width = 4
    for _ in range(4):
        net.conv(width, 6, (3, 1, 1), pads=[0] * 6)
        net.conv(6, 6, (1, 3, 3))
        net.add("LeakyRelu", alpha=0.1)
        width = 6
    net.conv(6, classes, (1, 1, 1))
    net.turn(0, 2, 3, 4, 1)
    net.add("Identity", name="logits")
    return net.save(path, (1, 19, plane, plane, 4), {"logits": (1, 11, plane, plane, classes)})


def regions(path: Path, count: int = 3, *, inside: bool = False, seed: int = 5) -> Path:
    """NCDHW of free size, one channel a region: logits, or probabilities where the sigmoid is `inside`."""
    net = Builder(seed)
    net.conv(4, 8, (3, 3, 3))
    net.add("Relu")
    net.conv(8, count, (3, 1, 3))
    net.add("Sigmoid" if inside else "Identity", name="heads")
    return net.save(path, (1, 4, "d", "h", "w"), {"heads": (1, count, "d", "h", "w")})


def two_classes(path: Path, seed: int = 6) -> Path:
    """NCDHW of free size: the softmax of background and foreground."""
    net = Builder(seed)
    net.conv(4, 6, (3, 3, 3))
    net.add("Relu")
    net.conv(6, 2, (1, 1, 1))
    net.add("Softmax", axis=1, name="pair")
    return net.save(path, (1, 4, "d", "h", "w"), {"pair": (1, 2, "d", "h", "w")})


def falsely_free(path: Path) -> Path:
    """NCDHW whose sizes are called free, but 16 is written into a Reshape."""
    net = Builder(9)
    net.conv(4, 4, (3, 3, 3))
    net.add("Reshape", net.constant(np.array([1, 4, 16, 16, 16], np.int64)), name="heads")
    return net.save(path, (1, 4, "d", "h", "w"), {"heads": (1, 4, "d", "h", "w")})
