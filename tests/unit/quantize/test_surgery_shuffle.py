"""A transposed convolution whose windows tile its output, and a 1^n convolution with a shuffle: the same, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import changed_by, drawn, left_alone, model_of, operations, run

from edge_latup.quantize.surgery.shuffle import shuffle_to_transposed, transposed_to_shuffle

SIZES = (3, 5, 4)


def transposed(axes: int = 3, inputs: int = 3, outputs: int = 2, bias: bool = True, seed: int = 0, **stated: Any) -> Any:
    """ConvTranspose of kernel 2 and stride 2, and a Relu; changes make it something else."""
    from onnx import helper

    known, kernel = stated.pop("known", True), stated.pop("kernel", 2)
    weight = drawn(seed, inputs, outputs // stated.get("group", 1), *[kernel] * axes)
    stated = {"strides": [2] * axes} | stated
    node = helper.make_node("ConvTranspose", ["x", "w", *(["b"] if bias else [])], ["t"], name="up", **stated)
    shape = [1, inputs, *(SIZES[:axes] if known else ["d", "h", "w"][:axes])]
    constants = {"w": weight} | ({"b": drawn(seed + 1, outputs)} if bias else {})
    return model_of([node, helper.make_node("Relu", ["t"], ["y"])], constants, shape)


EXPECTED = {2: ["Conv", "DepthToSpace", "Relu"], 3: ["Conv", "Reshape", "Transpose", "Reshape", "Relu"]}


@settings(max_examples=15)
@given(axes=st.sampled_from([2, 3]), inputs=st.integers(1, 5), outputs=st.integers(1, 5), bias=st.booleans(), seed=st.integers(0, 99))
def test_there_and_back(axes: int, inputs: int, outputs: int, bias: bool, seed: int) -> None:
    """The first step against PyTorch; the second gives the weights of the beginning."""
    import torch
    from onnx import numpy_helper
    from torch.nn import functional as F  # noqa: N812

    model, image = transposed(axes, inputs, outputs, bias, seed), drawn(seed + 2, 1, inputs, *SIZES[:axes])
    weight, *rest = [numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer]
    deconvolve = F.conv_transpose2d if axes == 2 else F.conv_transpose3d
    expected = deconvolve(torch.from_numpy(image), torch.from_numpy(weight), torch.from_numpy(rest[0]) if bias else None, stride=2).relu()
    assert changed_by(transposed_to_shuffle, model, image) == 1
    assert operations(model) == EXPECTED[axes]
    np.testing.assert_allclose(run(model, image)[0], expected.numpy(), atol=1e-5)
    assert model.graph.node[0].name == "up"

    import onnx

    model = onnx.shape_inference.infer_shapes(model)
    assert changed_by(shuffle_to_transposed, model, image) == 1
    assert operations(model) == ["ConvTranspose", "Relu"]
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[-1]), weight)


def test_in_the_plane_sizes_may_be_free() -> None:
    model = transposed(2, known=False)
    assert changed_by(transposed_to_shuffle, model, drawn(0, 1, 3, 4, 7)) == 1
    assert left_alone(transposed_to_shuffle, transposed(3, known=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": [1] * 3},
        {"strides": [2, 2, 1]},
        {"pads": [1] * 6},
        {"output_padding": [1] * 3},
        {"dilations": [2] * 3},
        {"output_shape": [5, 9, 7]},
        {"kernel": 3},
        {"group": 2, "inputs": 4},
        {"auto_pad": "SAME_UPPER"},
    ],
)
def test_other_transposed_convolutions_are_left_alone(changes: dict[str, Any]) -> None:
    assert left_alone(transposed_to_shuffle, transposed(**changes))


def test_a_computed_weight_is_left_alone() -> None:
    from onnx import helper

    nodes = [helper.make_node("Relu", ["w"], ["v"]), helper.make_node("ConvTranspose", ["x", "v"], ["y"], strides=[2, 2])]
    assert left_alone(transposed_to_shuffle, model_of(nodes, {"w": drawn(0, 3, 2, 2, 2)}, [1, 3, 4, 4]))


def shuffled(mode: str = "CRD", bias: Any = None, axes: int = 2, **changes: Any) -> Any:
    """A 1^n convolution of 3 channels to 2 * 2^n and a shuffle."""
    from onnx import helper

    block, sizes = 2**axes, SIZES[:axes]
    bias = np.repeat(drawn(3, 2), block) if bias is None else bias
    constants = {"w": drawn(0, 2 * block, 3, *[1] * axes), "b": bias}
    conv = helper.make_node("Conv", ["x", "w", "b"], ["c"], **changes.pop("conv", {}))
    outputs, more = changes.pop("outputs", ["y"]), changes.pop("more", [])
    if axes == 2:
        nodes = [helper.make_node("DepthToSpace", ["c"], ["y"], **({"blocksize": 2, "mode": mode} | changes))]
    else:
        constants["split"] = np.array(changes.get("split", [1, 2, 2, 2, 2, *sizes]))
        constants["merged"] = np.array(changes.get("merged", [1, 2, *(2 * size for size in sizes)]))
        order = changes.get("perm", [0, 1, 5, 2, 6, 3, 7, 4] if mode == "CRD" else [0, 4, 5, 1, 6, 2, 7, 3])
        nodes = [
            helper.make_node("Reshape", ["c", "split"], ["blocks"]), helper.make_node("Transpose", ["blocks"], ["ordered"], perm=order),
            helper.make_node("Reshape", ["ordered", "merged"], ["y"]),
        ]  # fmt: skip
    return model_of([conv, *nodes, *more], constants, [1, 3, *sizes], outputs)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_either_order_of_channels_becomes_a_transposed_convolution(axes: int, mode: str) -> None:
    bias = np.repeat(drawn(3, 2), 2**axes) if mode == "CRD" else np.tile(drawn(3, 2), 2**axes)
    model = shuffled(mode, bias, axes)
    assert changed_by(shuffle_to_transposed, model, drawn(5, 1, 3, *SIZES[:axes])) == 1
    assert operations(model) == ["ConvTranspose"]


def test_pixel_shuffle_is_what_pytorch_takes_it_to_be() -> None:
    import torch
    from torch.nn import functional as F  # noqa: N812

    model, image = shuffled(), drawn(5, 1, 3, 3, 5)
    weight, bias = torch.from_numpy(drawn(0, 8, 3, 1, 1)), torch.from_numpy(np.repeat(drawn(3, 2), 4))
    assert shuffle_to_transposed(model.graph) == 1
    expected = F.pixel_shuffle(F.conv2d(torch.from_numpy(image), weight, bias), 2)
    np.testing.assert_allclose(run(model, image)[0], expected.numpy(), atol=1e-5)


def _relu(source: str) -> Any:
    from onnx import helper

    return helper.make_node("Relu", [source], ["z"])


NOT_TRANSPOSED: dict[str, dict[str, Any]] = {
    "biases that differ in a block": {"bias": drawn(4, 8)},
    "another block": {"blocksize": 1},
    "the other order of equal biases": {"mode": "DCR"},
    "padding": {"conv": {"pads": [1] * 4}},
    "stride": {"conv": {"strides": [2, 2]}},
    "another reader": {"more": [_relu("c")], "outputs": ["y", "z"]},
    "another reader in 3-D": {"axes": 3, "more": [_relu("blocks")], "outputs": ["y"]},
    "another transposition": {"axes": 3, "perm": [0, 1, 2, 5, 6, 3, 7, 4], "merged": [1, 2, 6, 10, 8]},
    "sizes that are read in another order": {"axes": 3, "split": [1, 2, 2, 2, 2, 5, 3, 4], "merged": [1, 2, 10, 6, 8]},
    "merged in another order": {"axes": 3, "merged": [1, 2, 10, 6, 8]},
}


@pytest.mark.parametrize("why", NOT_TRANSPOSED)
def test_what_is_not_the_shuffle_is_left_alone(why: str) -> None:
    assert left_alone(shuffle_to_transposed, shuffled(**dict(NOT_TRANSPOSED[why])))
