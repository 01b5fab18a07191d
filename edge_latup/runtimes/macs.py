"""Multiply-accumulates of single operations, counted alike whichever graph they are read from. Biases are not counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

OPENVINO_CONVOLUTIONS: Final = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData")


def convolution_macs(shape: Sequence[int], weights: Sequence[int]) -> int:
    """Of a convolution with weights of a shape.

    `shape`: (N, C, sizes) of its output; of its input where it is a transposed one, which costs its weights per voxel it reads.
    A 2-D network's slices lie along N.
    """
    return math.prod((shape[0], *shape[2:])) * math.prod(weights)


def dense_macs(output: Sequence[int], inner: int) -> int:
    """Of a matrix product whose output has a shape and whose operands share an axis of `inner` elements."""
    return math.prod(output) * inner


def openvino_macs(operation: str, node: Any) -> int:
    """Of one node of an OpenVINO graph with known shapes; 0 for what neither convolves nor multiplies matrices."""
    output = tuple(int(size) for size in node.output(0).get_shape()) if operation in ("MatMul", *OPENVINO_CONVOLUTIONS) else ()
    if operation == "MatMul":
        return dense_macs(output, int(node.input_value(0).get_shape()[-2 if node.get_attributes()["transpose_a"] else -1]))
    if operation not in OPENVINO_CONVOLUTIONS:
        return 0
    read, weights = (tuple(int(size) for size in node.input_value(index).get_shape()) for index in (0, 1))
    return convolution_macs(read if operation.endswith("BackpropData") else output, weights)
