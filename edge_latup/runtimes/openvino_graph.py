"""What readers of OpenVINO's graphs share."""

from __future__ import annotations

from typing import Any, Final

WITHOUT_BIASES: Final = "/WithoutBiases"
"""What OpenVINO adds to the name of a layer whose bias became an addition of its own."""


def sources(node: Any) -> list[Any]:
    """The nodes that a node reads."""
    return [node.input_value(index).get_node() for index in range(node.get_input_size())]


def dequantizes(node: Any) -> bool:
    """Whether a node is the arithmetic (integer -> float, minus zero point, times scale) of a dequantization, such as ONNX's."""
    while node.get_type_name() in ("Subtract", "Multiply"):
        node = node.input_value(0).get_node()
        if node.get_type_name() == "Convert":
            return bool(node.input_value(0).get_element_type().is_integral())
    return False
