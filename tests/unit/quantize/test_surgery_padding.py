"""Channels filled up with zeros: exact where only single channels are looked at, and hands off wherever they meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import changed_by, drawn, left_alone, model_of, operations, run

from edge_latup.quantize.surgery.padding import ELEMENTWISE, channel_padding


def conv(source: str, result: str, weight: str, operation: str = "Conv", **stated: Any) -> Any:
    from onnx import helper

    return helper.make_node(operation, [source, weight, f"{weight}.b"], [result], **stated)


def node(operation: str, inputs: str, result: str, **stated: Any) -> Any:
    from onnx import helper

    return helper.make_node(operation, inputs.split(), [result], **stated)


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A weight for each name, and its bias."""
    drawings = {name: drawn(seed, *shape) for seed, (name, shape) in enumerate(shapes.items())}
    return drawings | {f"{name}.b": drawn(9, max(shape[0], shape[1])) for name, shape in shapes.items()}


def shapes_of(model: Any) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


@settings(max_examples=15)
@given(
    axes=st.sampled_from([2, 3]), width=st.integers(1, 20), outputs=st.integers(1, 3), multiple=st.sampled_from([8, 16, 32]),
    epsilon=st.sampled_from([1e-5, 1e-3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_conv_norm_leaky_conv_keeps_its_output(axes: int, width: int, outputs: int, multiple: int, epsilon: float, seed: int) -> None:
    """Against PyTorch's own modules."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    convolution, normalise = (nn.Conv2d, nn.InstanceNorm2d) if axes == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    net = nn.Sequential(
        convolution(2, width, 3, padding=1), normalise(width, eps=epsilon, affine=True), nn.LeakyReLU(0.1),
        convolution(width, outputs, 3, padding=1),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 2)
        net[1].bias.uniform_(-1, 1)
    stored = {name.replace("weight", "w").replace("bias", "w.b"): value.numpy() for name, value in net.state_dict().items()}
    nodes = [
        node("Conv", "x 0.w 0.w.b", "a", pads=[1] * 2 * axes),
        node("InstanceNormalization", "a 1.w 1.w.b", "n", epsilon=epsilon),
        node("LeakyRelu", "n", "l", alpha=0.1),
        node("Conv", "l 3.w 3.w.b", "y", pads=[1] * 2 * axes),
    ]
    image = drawn(seed, 1, 2, *[4, 5, 6][:axes])
    model = model_of(nodes, stored, [1, 2, *["d", "h", "w"][:axes]])
    assert changed_by(channel_padding(multiple), model, image) == int(width % multiple > 0)
    found = shapes_of(model).values()
    assert all(shape[0] % multiple == 0 for shape in found if shape[1:] == [2, *[3] * axes])
    with torch.inference_mode():
        expected = net(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(run(model, image)[0], expected, rtol=1e-4, atol=2e-5)


def test_added_channels_are_nothing_but_zeros() -> None:
    from onnx import numpy_helper

    constants = weights(v=(3, 2, 1, 1), w=(4, 3, 1, 1)) | {"s": drawn(5, 3), "t": drawn(6, 3)}
    nodes = [conv("x", "a", "v"), node("InstanceNormalization", "a s t", "n"), conv("n", "y", "w")]
    model = model_of(nodes, constants, [1, 2, 4, 4])
    assert changed_by(channel_padding(8), model, drawn(0, 1, 2, 4, 4)) == 1
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, axis in {"v": 0, "v.b": 0, "s": 0, "t": 0, "w": 1}.items():
        kept, added = np.split(stored[f"{name}.padded"], [3], axis)
        np.testing.assert_array_equal(kept, constants[name])
        assert added.shape[axis] == 5
        assert not added.any()
    np.testing.assert_array_equal(stored["w.b"], constants["w.b"])
    assert {value.name for value in model.graph.value_info} == set(), "noted sizes of the padded tensors are no longer true"


@pytest.mark.parametrize("operation", ELEMENTWISE)
def test_functions_of_single_values_may_stand_between(operation: str) -> None:
    nodes = [conv("x", "a", "v"), node(operation, "a", "e"), conv("e", "y", "w")]
    model = model_of(nodes, weights(v=(3, 2, 3, 3), w=(4, 3, 3, 3)), [1, 2, 6, 6], opset=22)
    assert changed_by(channel_padding(8), model, drawn(0, 1, 2, 6, 6)) == 1


def test_transposed_convolutions_on_either_side_and_several_readers() -> None:
    nodes = [
        conv("x", "a", "u", "ConvTranspose", strides=[2, 2]), node("Relu", "a", "r"), conv("r", "b", "v"),
        conv("a", "c", "w", "ConvTranspose"), node("Add", "b c", "y"),
    ]  # fmt: skip
    model = model_of(nodes, weights(u=(2, 3, 2, 2), v=(8, 3, 1, 1), w=(3, 8, 1, 1)), [1, 2, 6, 6])
    assert changed_by(channel_padding(8), model, drawn(0, 1, 2, 6, 6)) == 1
    shapes = shapes_of(model)
    assert (shapes["u.padded"], shapes["v.padded"], shapes["w.padded"]) == ([2, 8, 2, 2], [8, 8, 1, 1], [8, 8, 1, 1])


def test_every_link_of_a_chain_is_filled_and_its_ends_are_not() -> None:
    nodes = [conv("x", "a", "u"), conv("a", "b", "v"), conv("b", "y", "w")]
    model = model_of(nodes, weights(u=(3, 2, 1, 1), v=(5, 3, 1, 1), w=(7, 5, 1, 1)), [1, 2, 4, 4])
    assert changed_by(channel_padding(16), model, drawn(0, 1, 2, 4, 4)) == 2
    assert sorted(shape[:2] for shape in shapes_of(model).values() if len(shape) == 4) == [[7, 16], [16, 2], [16, 16]]
    assert operations(model) == ["Conv"] * 3


PAIR = {"v": (4, 2, 1, 1), "w": (4, 4, 1, 1)}
ONES = {"s": np.ones(4, np.float32), "t": np.ones(4, np.float32)}
NOT_PADDED: dict[str, list[Any]] = {
    "softmax": [conv("x", "a", "v"), node("Softmax", "a", "m", axis=1), conv("m", "y", "w")],
    "concat": [conv("x", "a", "v"), node("Concat", "a a", "m", axis=2), conv("m", "y", "w")],
    "a mean of the channels": [conv("x", "a", "v"), node("ReduceMean", "a axis", "m"), node("Mul", "a m", "n"), conv("n", "y", "w")],
    "attention": [conv("x", "a", "v"), node("GlobalAveragePool", "a", "m"), node("Mul", "a m", "n"), conv("n", "y", "w")],
    "layer norm": [conv("x", "a", "v"), node("LayerNormalization", "a k", "m"), conv("m", "y", "w")],
    "group norm": [conv("x", "a", "v"), node("GroupNormalization", "a s t", "m", num_groups=2), conv("m", "y", "w")],
    "a residual": [conv("x", "a", "v"), conv("a", "b", "w"), node("Add", "a b", "y")],
    "a norm that divides by nothing": [conv("x", "a", "v"), node("InstanceNormalization", "a s t", "n", epsilon=0.0), conv("n", "y", "w")],
    "a norm with computed scales": [
        conv("x", "a", "v"), node("Relu", "s", "z"), node("InstanceNormalization", "a z t", "n"), conv("n", "y", "w"),
    ],
    "nothing behind": [conv("x", "y", "v")],
    "a convolution of groups behind": [conv("x", "a", "v"), conv("a", "y", "g", group=4)],
    "a computed weight": [conv("x", "a", "v"), node("Relu", "w", "z"), node("Conv", "a z", "y")],
    "the tensor as a weight": [conv("x", "a", "v"), node("Conv", "i a", "y")],
}  # fmt: skip


@pytest.mark.parametrize("why", NOT_PADDED)
def test_where_channels_meet_nothing_is_padded(why: str) -> None:
    constants = weights(**PAIR, g=(4, 1, 1, 1)) | ONES | {"axis": np.array([1]), "k": np.ones(4, np.float32), "i": drawn(8, 1, 4, 4, 4)}
    assert left_alone(channel_padding(8), model_of(NOT_PADDED[why], constants, [1, 2, 4, 4], opset=21))


def test_a_tensor_that_the_caller_sees_is_not_padded() -> None:
    nodes = [conv("x", "a", "v"), conv("a", "y", "w")]
    assert left_alone(channel_padding(8), model_of(nodes, weights(**PAIR), [1, 2, 4, 4], ["y", "a"]))
    grouped = [conv("x", "a", "g", group=2), conv("a", "y", "w")]
    assert left_alone(channel_padding(8), model_of(grouped, weights(g=(4, 1, 1, 1), w=(4, 4, 1, 1)), [1, 2, 4, 4]))
