"""Small graphs whose operations are measured for `class_rates`: convolutions one at a time, and one block with everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge_latup.runtimes.openvino import import_openvino
from edge_latup.targets.rates import quantized
from edge_latup.targets.roofline import OperationKind

Shape = tuple[int, int, int, int]
CONVOLUTIONS: Final[tuple[Shape, ...]] = (
    (4, 32, 3, 64), (32, 32, 1, 64), (32, 4, 1, 64), (32, 32, 2, 64), (64, 64, 2, 32), (128, 128, 2, 16),
    (16, 16, 3, 64), (32, 32, 3, 64), (32, 32, 3, 32), (64, 32, 3, 64), (64, 64, 3, 32), (64, 64, 3, 16), (128, 128, 3, 32),
    (128, 128, 3, 16), (256, 256, 3, 16), (32, 32, 5, 48), (64, 64, 5, 16),
)  # fmt: skip
"""(input channels, output channels, kernel side, volume side): U-Net shapes in powers of two, from full to an eighth of the resolution."""
TRANSPOSED: Final[tuple[Shape, ...]] = ((64, 32, 2, 32), (128, 64, 2, 16), (64, 32, 3, 32), (128, 64, 3, 16))
"""The same of transposed convolutions of stride 2; the side is that of what they read."""
BLOCKS: Final[tuple[tuple[int, int], ...]] = ((64, 16), (32, 32), (32, 64), (32, 96))
"""(channels, side) of the block of norms and moves: from what a core's cache holds to what none does."""
IN_A_BLOCK: Final[tuple[OperationKind, ...]] = (
    "norm", "pooling", "resampling", "reduction", "elementwise", "concatenation", "softmax",
)  # fmt: skip
SLOPE: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Watched:
    """One operation of a probe: the name of its node, and its shape as in `roofline.Operation`."""

    name: str
    kind: OperationKind
    kernel: int
    channels: tuple[int, int]
    voxels: int
    macs: int = 0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A graph, the shape of its input, and the operations in it that are measured."""

    model: Any
    image: tuple[int, ...]
    watched: tuple[Watched, ...]


def _weights(*shape: int) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _leaky(ops: Any, value: Any) -> Any:
    return ops.prelu(value, ops.constant(np.array([SLOPE], np.float32)))


def _pointwise(ops: Any, value: Any, inputs: int, outputs: int, *, int8: bool) -> Any:
    weights = ops.constant(_weights(outputs, inputs, 1, 1, 1))
    if int8:
        value, weights = quantized(ops, value, 0.0), quantized(ops, weights, -1.0)
    return ops.convolution(value, weights, [1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 1, 1])


def convolution_probe(shape: Shape, *, int8: bool, transposed: bool = False) -> Probe:
    """One convolution with bias-free weights and LeakyReLU; with `int8` what it reads and its weights are quantized."""
    ov = import_openvino()
    import openvino.opset13 as ops

    inputs, outputs, kernel, side = shape
    image = ops.parameter([1, inputs, side, side, side], dtype=np.float32, name="image")
    first: Any = ops.relu(image)
    second: Any = ops.constant(_weights(*((inputs, outputs) if transposed else (outputs, inputs)), *[kernel] * 3))
    if int8:
        first, second = quantized(ops, first, 0.0), quantized(ops, second, -1.0)
    if transposed:
        # Kernel 3 of stride 2 gives twice the side with one voxel of padding before and none after, as does kernel 2 with none at all.
        before, after = [kernel - 2] * 3, [0] * 3
        found = ops.convolution_backprop_data(first, second, [2, 2, 2], pads_begin=before, pads_end=after, dilations=[1, 1, 1])
    else:
        before, after = [(kernel - 1) // 2] * 3, [kernel // 2] * 3
        found = ops.convolution(first, second, [1, 1, 1], before, after, [1, 1, 1])
    found.set_friendly_name("watched")
    watched = Watched(
        name="watched", kind="transposed convolution" if transposed else "convolution", kernel=kernel, channels=(inputs, outputs),
        voxels=side**3, macs=inputs * outputs * kernel**3 * side**3,
    )  # fmt: skip
    return Probe(model=ov.Model([_leaky(ops, found)], [image], "probe"), image=(1, inputs, side, side, side), watched=(watched,))


def block_probe(channels: int, side: int, *, int8: bool) -> Probe:
    """A block in which a convolution's output is pooled, up-sampled, normalised, gated, concatenated, and ends in a softmax."""
    ov = import_openvino()
    import openvino.opset13 as ops
    from openvino.opset1 import max_pool

    image = ops.parameter([1, channels, side, side, side], dtype=np.float32, name="image")
    body = _leaky(ops, _pointwise(ops, image, channels, channels, int8=int8))
    axes = ops.constant(np.array([2, 3, 4], np.int64))
    norm = _named(ops.mvn(body, axes, True, 1e-3, "inside_sqrt"), "norm")
    pooled = _named(max_pool(body, [2] * 3, [0] * 3, [0] * 3, [2] * 3), "pooling")
    # Away from its neighbours, so that up-sampling is not folded with pooling.
    small = _leaky(ops, _pointwise(ops, pooled, channels, channels, int8=int8))
    larger = _named(_nearest(ops, small, side), "resampling")
    mean = _named(ops.reduce_mean(body, axes, keep_dims=True), "reduction")
    gated = _named(ops.multiply(body, ops.sigmoid(mean)), "elementwise")
    parts = [quantized(ops, part, 0.0) if int8 else part for part in (norm, body)]
    joined = _named(ops.concat(parts, 1), "concatenation")
    ends = [_pointwise(ops, part, width, 4, int8=int8) for part, width in ((joined, 2 * channels), (gated, channels), (larger, channels))]
    scores = ops.add(ops.add(ends[0], ends[1]), ends[2])
    outputs = _named(ops.softmax(scores, 1), "softmax")
    model = ov.Model([outputs], [image], "block")
    watched = tuple(Watched(name=kind, kind=kind, kernel=1, channels=(channels, channels), voxels=side**3) for kind in IN_A_BLOCK)
    return Probe(model=model, image=(1, channels, side, side, side), watched=watched)


def _nearest(ops: Any, value: Any, side: int) -> Any:
    sizes, axes = ops.constant(np.array([side] * 3, np.int64)), ops.constant(np.array([2, 3, 4], np.int64))
    return ops.interpolate(
        value, sizes, "nearest", "sizes", coordinate_transformation_mode="asymmetric", nearest_mode="floor", axes=axes
    )  # fmt: skip


def _named(node: Any, name: str) -> Any:
    node.set_friendly_name(name)
    return node
