"""Ranges of tensors inside a 2-D network whose input is a volume, and of those with as many axes as the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from small_graphs import drawn, model_of, run

from edge_latup.quantize.ranges import Looker, look


def slices_graph(opset: int) -> onnx.ModelProto:
    """A volume (1, 2, 4, 6, 3) squeezed and turned into three planes (3, 2, 4, 6), scaled channel by channel, and turned back."""
    nodes = [
        helper.make_node("Squeeze", ["x", "first"], ["volume"]),
        helper.make_node("Transpose", ["volume"], ["planes"], perm=[3, 0, 1, 2]),
        helper.make_node("Mul", ["planes", "factors"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["turned"], perm=[1, 2, 3, 0]),
        helper.make_node("Unsqueeze", ["turned", "first"], ["y"]),
    ]
    factors = np.array([2, -3], np.float32).reshape(1, 2, 1, 1)
    return model_of(nodes, {"first": np.array([0]), "factors": factors}, (1, 2, 4, 6, 3), opset=opset)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("opset", [17, 18, 20])
def test_each_channel_of_planes_and_of_volumes_has_its_range(tmp_path: Path, opset: int, runtime: Looker) -> None:
    model, images = slices_graph(opset), [drawn(seed, 1, 2, 4, 6, 3) for seed in range(2)]
    onnx.save(model, tmp_path / "model.onnx")
    found = look(tmp_path / "model.onnx", ["x", "planes", "scaled", "y"], images, runtime=runtime).ranges
    for index, image in enumerate(images):
        scaled = run(model, image)[0]
        for name, values in (("x", image), ("planes", image), ("scaled", scaled), ("y", scaled)):
            expected = [values.min(axis=(0, 2, 3, 4)), values.max(axis=(0, 2, 3, 4))]
            np.testing.assert_allclose(found[name][index], expected, rtol=1e-6)
