"""Nearest up-sampling and the convolution behind it as one transposed convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_latup.quantize.surgery.graph import View, add_constant, all_are, attributes, drop_unread, is_plain, replace

if TYPE_CHECKING:
    import onnx


def doubled_kernel(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The transposed 3^n kernel that does in one step what nearest x2 and a 2^n kernel, zero-padded at the end, do in two.

    Along one axis the up-sampled signal is u[2k] = u[2k + 1] = x[k], and y[i] = a u[i] + b u[i + 1]. So y[2k] = (a + b) x[k] and
    y[2k + 1] = a x[k] + b x[k + 1]: a transposed convolution of stride 2 and padding 1 with the taps (b, a + b, a). The padded
    zero after the last voxel is what a transposed convolution takes to be there too. Axes are independent.

    Args:
        weight: Conv kernel float32 (out, in, 2, 2, ...).

    Returns:
        ConvTranspose kernel float32 (in, out, 3, 3, ...). Sums are made in float64.
    """
    taps = np.swapaxes(weight.astype(np.float64), 0, 1)
    for axis in range(2, weight.ndim):
        first, second = np.split(taps, 2, axis)
        taps = np.concatenate([second, first + second, first], axis)
    return taps.astype(np.float32)


def _is_doubling(view: View, node: onnx.NodeProto) -> bool:
    """Whether a Resize repeats every voxel once along each spatial axis."""
    if node.op_type != "Resize" or len(node.input) < 3:
        return False
    how = attributes(node)
    scales = view.constant(node.input[2])
    nearest = how.get("mode", b"nearest") == b"nearest" and how.get("nearest_mode") == b"floor" and "axes" not in how
    same = how.get("coordinate_transformation_mode") == b"asymmetric"
    return nearest and same and scales is not None and scales[:2].tolist() == [1, 1] and set(scales[2:].tolist()) == {2}


def _is_end_padded_pair(node: onnx.NodeProto, weight: NDArray[np.float32] | None) -> bool:
    """Whether a node is a 2^n convolution of stride 1 whose one padded voxel lies at the end of every axis."""
    if node.op_type != "Conv" or weight is None or set(weight.shape[2:]) != {2}:
        return False
    how, axes = attributes(node), weight.ndim - 2
    return is_plain(node) and all_are(how, ["strides"], 1) and list(how.get("pads", [])) == [0] * axes + [1] * axes


def fuse_upsampling(graph: onnx.GraphProto) -> int:
    """Nearest x2 and the end-padded 2^n convolution that alone reads it become one transposed convolution (`doubled_kernel`).

    In 3-D, 64 multiplications become 27 for every voxel before the up-sampling, and the up-sampled tensor is never made.
    """
    changed, view = 0, View(graph)
    for conv in list(graph.node):
        resize = view.made_by.get(conv.input[0]) if conv.input else None
        if resize is None or view.only_reader(resize.output[0]) is None or not _is_doubling(view, resize):
            continue
        weight = view.weight(conv, 1)
        if weight is None or not _is_end_padded_pair(conv, weight):
            continue
        replace(graph, [resize, conv], [_fused(graph, resize, conv, weight)])
        changed, view = changed + 1, View(graph)
    if changed:
        drop_unread(graph)
    return changed


def _fused(graph: onnx.GraphProto, resize: onnx.NodeProto, conv: onnx.NodeProto, weight: NDArray[np.float32]) -> onnx.NodeProto:
    from onnx import helper

    axes = weight.ndim - 2
    kernel = add_constant(graph, f"{conv.input[1]}.doubled", doubled_kernel(weight))
    return helper.make_node(
        "ConvTranspose", [resize.input[0], kernel, *conv.input[2:]], list(conv.output), name=conv.name,
        kernel_shape=[3] * axes, strides=[2] * axes, pads=[1] * 2 * axes, output_padding=[1] * axes,
    )  # fmt: skip
