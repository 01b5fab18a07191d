"""Which INT8 layers a documented fusion applies to, on graphs written by hand and on the file that is shipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from command import Command
from onnx import helper
from small_graphs import drawn, model_of
from tiny_models import Compress

from edge_latup.quantize.tensorrt_fusion import fusions, fusions_of

SCALE, ZERO = np.float32(0.1), np.int8(0)


def chain(operation: str, behind: list[str], *, quantized_weight: bool = True, zero: int = 0) -> Any:
    """X -> Q -> DQ -> a 3-D convolution -> the operations named, in order."""
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]), helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"])]
    weight = "w"
    if quantized_weight:
        nodes.append(helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0))
    nodes.append(helper.make_node(operation, ["xd", weight], ["c"], name="layer"))
    name = "c"
    for step, kind in enumerate(behind):
        extra = {"QuantizeLinear": ["s", "z"], "DequantizeLinear": ["s", "z"]}.get(kind, [])
        nodes.append(helper.make_node(kind, [name, *extra], [f"n{step}"]))
        name = f"n{step}"
    nodes.append(helper.make_node("Identity", [name], ["y"]))
    constants = {"s": SCALE, "z": np.int8(zero), "w" if not quantized_weight else "wq": drawn(0, 4, 4, 1, 1, 1)}
    if quantized_weight:
        constants["wq"] = np.ones((4, 4, 1, 1, 1), np.int8)
        constants |= {
            "ws": np.full(4 if operation == "Conv" else 1, 0.1, np.float32),
            "wz": np.zeros(4 if operation == "Conv" else 1, np.int8),
        }
    return model_of(nodes, constants, (1, 4, 4, 4, 4))


@pytest.mark.parametrize(
    ("operation", "behind", "pattern", "output", "why_not"),
    [
        ("Conv", ["Relu", "QuantizeLinear", "DequantizeLinear"], "DQ + Conv + Relu + Q", "int8", ""),
        ("Conv", ["QuantizeLinear", "DequantizeLinear"], "DQ + Conv + Q", "int8", ""),
        ("Conv", ["Sigmoid"], "DQ + Conv", "float", ""),
        ("ConvTranspose", ["Relu", "QuantizeLinear", "DequantizeLinear"], "DQ + ConvTranspose + Relu + Q", "int8", ""),
        ("ConvTranspose", ["Relu"], "DQ + ConvTranspose + Relu", "float", "transposed-output"),
    ],
)
def test_what_is_fused_and_what_comes_out(operation: str, behind: list[str], pattern: str, output: str, why_not: str) -> None:
    (found,) = fusions(chain(operation, behind))
    assert (found.layer, found.pattern, found.output, found.why_not) == ("layer", pattern, output, why_not)
    assert found.applies == (not why_not)
    assert found.source


def test_a_layer_with_a_float_weight_is_no_int8_layer() -> None:
    assert fusions(chain("Conv", [], quantized_weight=False)) == []


def test_every_int8_layer_of_the_shipped_file_is_told_of_and_fused(compressed: Compress, cli: Command) -> None:
    made = compressed("int8", "tensorrt")
    found = fusions_of(made.model_path)
    assert len(found) == made.manifest.recipe[-1].parameters["int8_layers"] > 0
    assert all(own.applies for own in found)
    names = {node.name for node in onnx.load(made.model_path).graph.node}
    assert {own.layer for own in found} <= names
    done = cli("inspect", made.folder, "--rules", "tensorrt")
    assert all(own.layer in done.out for own in found)
    assert "only its inspector tells" in done.out
