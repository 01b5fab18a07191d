"""Batch normalisation folded into the convolutions before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.quantize.surgery.graph import View, add_constant, attributes, drop_unread, position

if TYPE_CHECKING:
    import onnx

OUTPUT_AXIS: Final = {"Conv": 0, "ConvTranspose": 1}
"""Axis of the weight that counts output channels."""
EPSILON: Final = 1e-5
"""The ONNX standard's default."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """y = factor * x + shift, channel by channel."""

    factor: NDArray[np.float64]
    shift: NDArray[np.float64]


def _infers(node: onnx.NodeProto) -> bool:
    """Whether a BatchNormalization uses its stored statistics, one mean and variance a channel."""
    stated = attributes(node)
    only_result = not any(node.output[1:])
    return only_result and not stated.get("training_mode", 0) and bool(stated.get("spatial", 1)) and bool(stated.get("is_test", 1))


def _parameters(view: View, node: onnx.NodeProto) -> list[NDArray[np.float64]] | None:
    """Scale, bias, mean and variance in float64; None where one is not constant."""
    found = [view.weight(node, index) for index in (1, 2, 3, 4)]
    return None if any(value is None for value in found) else [value.astype(np.float64) for value in found if value is not None]


def _norm(view: View, node: onnx.NodeProto) -> Norm | None:
    """What a BatchNormalization in inference does; None where the graph does not tell, or it divides by nothing."""
    if node.op_type != "BatchNormalization" or not _infers(node) or (stored := _parameters(view, node)) is None:
        return None
    scale, bias, mean, variance = stored
    spread = variance + attributes(node).get("epsilon", EPSILON)
    if not (spread > 0).all():
        return None
    factor = scale / np.sqrt(spread)
    return Norm(factor=factor, shift=bias - mean * factor)


def stale_batch_norms(graph: onnx.GraphProto) -> list[str]:
    """Names of the normalisations of a network whose moving statistics were never updated; empty for every other network.

    Training begins with mean 0 and variance 1. Where every channel of every normalisation still stands there, exactly, while scales
    or biases have been learnt, the network was run with the statistics of each batch, and what the graph computes is not what was
    trained (published: taigw/brats17, whose test program sets is_training). Where nothing was learnt either (scale 1, bias 0), the
    nodes do nothing, such as those a converter left behind; a network that learnt no scales cannot be told from that.
    """
    view = View(graph)
    norms = [node for node in graph.node if node.op_type == "BatchNormalization" and _infers(node)]
    stored = [found for node in norms if (found := _parameters(view, node)) is not None]
    untouched = all((mean == 0).all() and (variance == 1).all() for _, _, mean, variance in stored)
    learnt = any((scale != 1).any() or (bias != 0).any() for scale, bias, _, _ in stored)
    return [node.name or node.output[0] for node in norms] if untouched and learnt and len(stored) == len(norms) else []


def fold_batch_norm(graph: onnx.GraphProto) -> int:
    """Batch normalisation in inference becomes part of the convolutions that alone make its input, through a Concat of them too.

    With stored statistics y = f x + s for each channel, f = scale / sqrt(variance + epsilon) and s = bias - mean f. A convolution is
    linear in its weights: x = w * u + b gives y = (f w) * u + (f b + s), whatever its padding, stride or groups. A Concat along the
    channels lays the channels of its parts side by side, so each part takes its own stretch of f and s. Products are made in float64.
    """
    changed, view = 0, View(graph)
    for node in list(graph.node):
        norm = _norm(view, node)
        branches = _branches(view, node.input[0]) if norm is not None else None
        if norm is None or branches is None or (folded := _fold(view, branches, norm)) is None:
            continue
        for conv, weight, bias in folded:
            names = [add_constant(graph, f"{conv.output[0]}.{kind}", values) for kind, values in (("weight", weight), ("bias", bias))]
            conv.input[:] = [conv.input[0], *names]
        maker = view.made_by[node.input[0]]
        del graph.node[position(graph, node)]
        maker.output[0] = node.output[0]
        changed, view = changed + 1, View(graph)
    if changed:
        drop_unread(graph)
    return changed


def _branches(view: View, name: str) -> list[onnx.NodeProto] | None:
    """The convolutions whose outputs, one after the other along the channels, are this tensor; None where others read or make it."""
    node = view.made_by.get(name)
    if node is None or view.only_reader(name) is None:
        return None
    if node.op_type in OUTPUT_AXIS:
        return [node] if _foldable(view, node) else None
    if node.op_type != "Concat":
        return None
    found: list[onnx.NodeProto] = []
    for part in node.input:
        if (inner := _branches(view, part)) is None:
            return None
        found += inner
    weight = view.weight(found[0], 1)
    return found if weight is not None and attributes(node)["axis"] in (1, 1 - weight.ndim) else None


def _foldable(view: View, node: onnx.NodeProto) -> bool:
    """Whether weight and bias are constant, and the output channels are one axis of the weight."""
    bias = len(node.input) < 3 or not node.input[2] or view.weight(node, 2) is not None
    return bias and view.weight(node, 1) is not None and (node.op_type == "Conv" or attributes(node).get("group", 1) == 1)


Folded = tuple["onnx.NodeProto", NDArray[np.float32], NDArray[np.float32]]


def _fold(view: View, branches: Sequence[onnx.NodeProto], norm: Norm) -> list[Folded] | None:
    """Each convolution with its new weight and bias; None where the channels do not add up or float32 cannot hold a number."""
    folded: list[Folded] = []
    first = 0
    for conv in branches:
        weight = view.weight(conv, 1)
        if weight is None:
            return None
        axis = OUTPUT_AXIS[conv.op_type]
        part = slice(first, first := first + weight.shape[axis])
        factor, shift = norm.factor[part], norm.shift[part]
        if len(factor) != weight.shape[axis]:
            return None
        bias = view.weight(conv, 2) if len(conv.input) > 2 and conv.input[2] else None
        with np.errstate(over="ignore"):
            scaled = (weight * factor.reshape([-1 if a == axis else 1 for a in range(weight.ndim)])).astype(np.float32)
            moved = (shift if bias is None else bias * factor + shift).astype(np.float32)
        folded.append((conv, scaled, moved))
    finite = all(np.isfinite(values).all() for _, *pair in folded for values in pair)
    return folded if first == len(norm.factor) and finite else None
