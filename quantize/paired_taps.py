"""Two taps of a kernel side by side in the channels: an INT8 convolution of few channels that fills AMX tiles.

A row of an AMX tile holds 64 bytes: 32 channels in BF16, 64 in INT8. Over 32 channels INT8 leaves half of it empty and is no faster
than BF16. Beside each voxel's channels those of its neighbour are laid, and the kernel takes two taps in one step: 3 steps of
64 channels where there were 5 of 32; an odd kernel's last tap is a zero. Sums of integers are exact, but the tensor is quantized by
another kernel, after rounding to BF16 where that is the float precision: a value between two levels may get the other one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import openvino as ov

TILE_CHANNELS: Final = 64
"""INT8 channels that one row of an AMX tile holds (Intel SDM vol. 1, ch. 18: 16 rows of 64 bytes)."""
AXIS: Final = 2
"""The outermost spatial one, along which a channels-last tensor's neighbours are whole slabs."""
LEAST_TAPS: Final = 3
WORTH_TAPS: Final = 5
"""A tensor is laid out in pairs only for a kernel as long as this: for one of three taps the copies cost more than they save."""


def pair_taps(model: ov.Model) -> tuple[str, ...]:
    """Rewrite every convolution that gains by it, in place; the names of those that did.

    They read 8-bit values of at most half a tile's channels, with steps of one voxel. Tensors are quantized once more for them, since
    only there zero is what padding adds.
    """
    groups: dict[str, list[Any]] = {}
    for node in model.get_ordered_ops():
        if _pairs(node):
            groups.setdefault(node.input_value(0).get_node().get_friendly_name(), []).append(node)
    worth = [nodes for nodes in groups.values() if max(_taps(node) for node in nodes) >= WORTH_TAPS]
    for nodes in worth:
        paired = _paired_tensor(nodes[0].input_value(0).get_node())
        for node in nodes:
            _rewrite(node, paired)
    model.validate_nodes_and_infer_types()
    return tuple(node.get_friendly_name() for nodes in worth for node in nodes)


def _taps(node: Any) -> int:
    return int(node.input_value(1).get_partial_shape()[AXIS].get_length())


def _pairs(node: Any) -> bool:
    """Whether a node is a convolution of 8-bit weights with whole steps over few quantized channels."""
    if node.get_type_name() != "Convolution" or node.input_value(0).get_node().get_type_name() != "FakeQuantize":
        return False
    scaled = node.input_value(1).get_node()
    if scaled.get_type_name() != "Multiply" or scaled.input_value(0).get_node().get_type_name() != "Convert":
        return False
    attributes, weights = node.get_attributes(), node.input_value(1).get_shape()
    whole = all(step == 1 for step in (*attributes["strides"], *attributes["dilations"]))
    return whole and _taps(node) >= LEAST_TAPS and attributes["pads_begin"][0] > 0 and 2 * weights[1] <= TILE_CHANNELS


def _paired_tensor(quantizer: Any) -> Any:
    """(N, 2C, D + 1, ...) of a quantized (N, C, D, ...): at u the channels of slab u - 1, then those of slab u; zeros beyond the ends."""
    from openvino import opset13 as ops

    rank = quantizer.get_output_partial_shape(0).rank.get_length()
    one = np.eye(rank, dtype=np.int64)[AXIS]
    padded = ops.pad(quantizer.input_value(0), one, one, "constant", np.float32(0))
    limits = [quantizer.input_value(index) for index in range(1, 5)]
    values = ops.fake_quantize(padded, *limits, quantizer.get_attributes()["levels"])
    last = np.iinfo(np.int64).max
    ends = ((0, -1), (1, last))
    return ops.concat([ops.slice(values, [start], [stop], [1], [AXIS]) for start, stop in ends], 1)


def _rewrite(node: Any, paired: Any) -> None:
    from openvino import opset13 as ops

    attributes, scaled = node.get_attributes(), node.input_value(1).get_node()
    weights = scaled.input_value(0).get_node().input_value(0).get_node().get_data()
    begin, end, dilations = (list(attributes[name]) for name in ("pads_begin", "pads_end", "dilations"))
    before, steps = begin[0], (_taps(node) + 1) // 2
    # Output w reads slabs w - before + tap; taps 2j and 2j + 1 lie at w - before + 2j + 1 of the pairs.
    begin[0], end[0], dilations[0] = before - 1, end[0] + 2 * steps - 1 - _taps(node), 2
    weight = ops.multiply(ops.convert(ops.constant(paired_weights(weights)), "f32"), scaled.input_value(1))
    made = ops.convolution(paired, weight, attributes["strides"], begin, end, dilations)
    made.set_friendly_name(node.get_friendly_name())
    for port in list(node.output(0).get_target_inputs()):
        port.replace_source_output(made.output(0))


def paired_weights(weights: NDArray[Any]) -> NDArray[Any]:
    """(O, C, K, ...) as (O, 2C, ceil(K / 2), ...): even taps, then odd ones, of which the last may be a zero."""
    odd = weights.shape[AXIS] % 2
    filled = np.pad(weights, [(0, odd if axis == AXIS else 0) for axis in range(weights.ndim)])
    even = np.arange(0, filled.shape[AXIS], 2)
    paired: NDArray[Any] = np.concatenate([filled.take(even, AXIS), filled.take(even + 1, AXIS)], axis=1)
    return np.ascontiguousarray(paired)
