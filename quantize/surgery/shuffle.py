"""A transposed convolution of kernel 2 and stride 2, and what is the same: a 1^n convolution whose channels become voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.quantize.surgery.graph import View, add_constant, all_are, attributes, drop_unread, is_plain, replace

if TYPE_CHECKING:
    import onnx

Weight = NDArray[np.float32]
PLANE: Final = 2
"""Spatial axes of what ONNX's own DepthToSpace takes."""


def _order(axes: int, *, channels_first: bool) -> list[int]:
    """The transposition that brings each axis of a block behind the axis it refines.

    From (N, C, 2, .., D, ..) where `channels_first`, else from (N, 2, .., C, D, ..); to (N, C, D, 2, H, 2, ..).
    """
    channel, block = (1, 2) if channels_first else (axes + 1, 1)
    return [0, channel, *(place for axis in range(axes) for place in (axes + 2 + axis, block + axis))]


def transposed_to_shuffle(graph: onnx.GraphProto) -> int:
    """ConvTranspose of kernel 2, stride 2 and no padding becomes a 1^n convolution to 2^n times the channels, and a shuffle.

    Windows do not overlap: y[o, 2d + i, 2h + j, ..] = sum_c w[c, o, i, j, ..] x[c, d, h, ..] + b[o]. For a fixed (o, i, j, ..) that is
    a 1^n convolution of x; its result is stored as channel (o, i, j, ..) and then moved to its voxel, by DepthToSpace in 2-D (mode CRD),
    by Reshape, Transpose, Reshape in 3-D, where the sizes must be known.
    """
    changed, view = 0, View(graph)
    for node in list(graph.node):
        weight = view.weight(node, 1) if node.op_type == "ConvTranspose" else None
        if weight is None or not _is_apart(view, node, weight):
            continue
        sizes = view.shape(node.input[0])
        if weight.ndim - 2 == PLANE:
            replace(graph, [node], _plane(graph, node, weight))
        elif sizes is not None and len(sizes) == weight.ndim and None not in sizes[2:]:
            replace(graph, [node], _volume(graph, node, weight, [size for size in sizes[2:] if size is not None]))
        else:
            continue
        changed, view = changed + 1, View(graph)
    if changed:
        drop_unread(graph)
    return changed


def _is_apart(view: View, node: onnx.NodeProto, weight: Weight) -> bool:
    """Whether the windows of a transposed convolution tile its output."""
    stated = attributes(node)
    plain = is_plain(node) and all_are(stated, ["pads", "output_padding"], 0) and "output_shape" not in stated
    bias = len(node.input) < 3 or not node.input[2] or view.weight(node, 2) is not None
    return plain and bias and set(weight.shape[2:]) == {2} and set(stated.get("strides", [1])) == {2}


def _pointwise(graph: onnx.GraphProto, node: onnx.NodeProto, weight: Weight) -> onnx.NodeProto:
    """The 1^n convolution to channels (o, i, j, ..)."""
    from onnx import helper

    axes = weight.ndim - 2
    rows = np.moveaxis(weight, 0, -1).reshape(-1, weight.shape[0], *[1] * axes)
    inputs = [node.input[0], add_constant(graph, f"{node.output[0]}.weight", rows)]
    bias = View(graph).weight(node, 2)
    if bias is not None:
        inputs.append(add_constant(graph, f"{node.output[0]}.bias", np.repeat(bias, 2**axes)))
    return helper.make_node("Conv", inputs, [f"{node.output[0]}.channels"], name=node.name, kernel_shape=[1] * axes)


def _plane(graph: onnx.GraphProto, node: onnx.NodeProto, weight: Weight) -> list[onnx.NodeProto]:
    from onnx import helper

    conv, result = _pointwise(graph, node, weight), node.output[0]
    return [conv, helper.make_node("DepthToSpace", list(conv.output), [result], name=f"{result}.shuffle", blocksize=2, mode="CRD")]


def _volume(graph: onnx.GraphProto, node: onnx.NodeProto, weight: Weight, sizes: Sequence[int]) -> list[onnx.NodeProto]:
    from onnx import helper

    conv, axes, result = _pointwise(graph, node, weight), weight.ndim - 2, node.output[0]
    channels = weight.shape[1]
    split = add_constant(graph, f"{result}.split", np.array([0, channels, *[2] * axes, *sizes], np.int64))
    merged = add_constant(graph, f"{result}.merged", np.array([0, channels, *(2 * size for size in sizes)], np.int64))
    return [
        conv,
        helper.make_node("Reshape", [*conv.output, split], [f"{result}.blocks"], name=f"{result}.split"),
        helper.make_node("Transpose", [f"{result}.blocks"], [f"{result}.ordered"], name=f"{result}.order",
                         perm=_order(axes, channels_first=True)),
        helper.make_node("Reshape", [f"{result}.ordered", merged], [result], name=f"{result}.merge"),
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """Nodes that move channels to voxels, and the tensor they take.

    channels_first: whether its channels count the result's channel first, then the place in the block.
    given: its sizes without the batch, (channels, D, H, ..), as the nodes take them to be; None where they take any.
    """

    nodes: list[onnx.NodeProto]
    source: str
    channels_first: bool
    given: tuple[int, ...] | None = None


def shuffle_to_transposed(graph: onnx.GraphProto) -> int:
    """A 1^n convolution and the shuffle of its channels to 2^n blocks of voxels become one ConvTranspose of kernel 2 and stride 2.

    `transposed_to_shuffle` read backwards: w[c, o, i, j, ..] = v[(o, i, j, ..), c]. The bias must be the same for all voxels of a block.
    """
    changed, view = 0, View(graph)
    for node in list(graph.node):
        shuffle = _shuffle(view, node)
        conv = view.made_by.get(shuffle.source) if shuffle is not None else None
        if shuffle is None or conv is None or view.only_reader(shuffle.source) is None:
            continue
        fused = _transposed(graph, view, conv, shuffle)
        if fused is None:
            continue
        replace(graph, [conv, *shuffle.nodes], [fused])
        changed, view = changed + 1, View(graph)
    if changed:
        drop_unread(graph)
    return changed


def _shuffle(view: View, node: onnx.NodeProto) -> Shuffle | None:
    """The shuffle that ends with this node, where it is one."""
    stated = attributes(node)
    if node.op_type == "DepthToSpace" and stated["blocksize"] == 2:
        return Shuffle(nodes=[node], source=node.input[0], channels_first=stated.get("mode", b"DCR") == b"CRD")
    order = _before(view, node, "Transpose") if node.op_type == "Reshape" else None
    split = _before(view, order, "Reshape") if order is not None else None
    if order is None or split is None:
        return None
    blocks, merged = (view.constant(reshape.input[1]) for reshape in (split, node))
    if blocks is None or merged is None or len(blocks) != 2 * len(merged) - 2:
        return None
    for channels_first in (True, False):
        if _is_shuffle(blocks.tolist(), attributes(order)["perm"], merged.tolist(), channels_first=channels_first):
            given = (int(np.prod(blocks[1 : len(merged)])), *blocks[len(merged) :].tolist())
            return Shuffle(nodes=[split, order, node], source=split.input[0], channels_first=channels_first, given=given)
    return None


def _before(view: View, node: onnx.NodeProto, operation: str) -> onnx.NodeProto | None:
    """The node that makes a node's first input for it alone, if it is of this operation."""
    found = view.made_by.get(node.input[0])
    return found if found is not None and found.op_type == operation and view.only_reader(node.input[0]) is not None else None


def _is_shuffle(blocks: list[int], order: list[int], merged: list[int], *, channels_first: bool) -> bool:
    """Whether the three steps split the channels into blocks of 2, and put each next to the axis it refines."""
    axes = len(merged) - 2
    expected = _order(axes, channels_first=channels_first)
    channel, block = expected[1], expected[3]
    doubled = [2 * size for size in blocks[axes + 2 :]]
    twos = blocks[block : block + axes] == [2] * axes
    return twos and order == expected and min(blocks[1:]) > 0 and blocks[0] == merged[0] and merged[1:] == [blocks[channel], *doubled]


def _transposed(graph: onnx.GraphProto, view: View, conv: onnx.NodeProto, shuffle: Shuffle) -> onnx.NodeProto | None:
    """The transposed convolution in the place of a 1^n convolution and a shuffle; None where it would not be the same."""
    from onnx import helper

    weight = view.weight(conv, 1) if conv.op_type == "Conv" else None
    sizes = view.shape(shuffle.source)
    known = shuffle.given is None or (sizes is not None and sizes[1:] == shuffle.given)
    if weight is None or not known or not _is_pointwise(conv, weight):
        return None
    axes, result = weight.ndim - 2, shuffle.nodes[-1].output[0]
    rows = _by_channel(weight.reshape(weight.shape[:2]), axes, shuffle)
    inputs = [conv.input[0], ""]
    if len(conv.input) > 2 and conv.input[2]:
        bias = view.weight(conv, 2)
        if bias is None or (_by_channel(bias, axes, shuffle) != (first := _by_channel(bias, axes, shuffle)[:, :1])).any():
            return None
        inputs.append(add_constant(graph, f"{result}.bias", first[:, 0]))
    kernel = np.moveaxis(rows, -1, 0).reshape(weight.shape[1], -1, *[2] * axes)
    inputs[1] = add_constant(graph, f"{result}.weight", kernel)
    return helper.make_node("ConvTranspose", inputs, [result], name=conv.name, kernel_shape=[2] * axes, strides=[2] * axes)


def _is_pointwise(conv: onnx.NodeProto, weight: Weight) -> bool:
    stated = attributes(conv)
    plain = is_plain(conv) and all_are(stated, ["pads"], 0) and all_are(stated, ["strides"], 1)
    return plain and set(weight.shape[2:]) == {1} and weight.shape[0] % 2 ** (weight.ndim - 2) == 0


def _by_channel(values: Weight, axes: int, shuffle: Shuffle) -> Weight:
    """(channels * 2^n, ...) as (channels, 2^n, ...), whichever of the two the stored order counts first."""
    block = 2**axes
    if shuffle.channels_first:
        return values.reshape(-1, block, *values.shape[1:])
    return np.swapaxes(values.reshape(block, -1, *values.shape[1:]), 0, 1)
