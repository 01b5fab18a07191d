"""Batch norms become part of the convolutions before them, and stay where the numbers or the readers say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import changed_by, drawn, left_alone, model_of, operations, run

from edge_latup.errors import ArtifactError
from edge_latup.quantize.surgery.batch_norm import fold_batch_norm, stale_batch_norms
from edge_latup.quantize.surgery.passes import refuse_stale_batch_norm


def statistics(channels: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Scale, bias, mean and variance, the last positive."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=channels).astype(np.float32) for name in ("scale", "shift", "mean")}
    return drawn | {"variance": rng.uniform(0.1, 2, channels).astype(np.float32)}


def norm(source: str = "c", **stated: Any) -> Any:
    """A BatchNormalization of the tensor `source`, called "norm"."""
    from onnx import helper

    outputs = stated.pop("outputs", ["y"])
    return helper.make_node("BatchNormalization", [source, "scale", "shift", "mean", "variance"], outputs, name="norm", **stated)


def convolved(**changes: Any) -> Any:
    """A 3^3 convolution and a batch norm; changes make it something else."""
    from onnx import helper

    groups, channels = changes.pop("group", 1), 4
    conv = helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1] * 6, group=groups)
    constants = {"w": drawn(1, channels, 4 // groups, 3, 3, 3), "b": drawn(2, channels), **statistics(channels)} | changes.pop(
        "constants", {}
    )
    nodes = [*changes.pop("first", [conv]), norm(**changes.pop("norm", {})), *changes.pop("more", [])]
    return model_of(nodes, constants, [1, 4, 5, 6, 7], changes.pop("outputs", ["y"]), changes.pop("opset", 20))


@settings(max_examples=20)
@given(
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=4), axes=st.sampled_from([2, 3]), bias=st.booleans(),
    negative=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_parallel_convolutions_take_their_stretch_of_the_norm_behind_their_concat(
    widths: list[int], axes: int, bias: bool, negative: bool, seed: int
) -> None:
    """Against PyTorch, which computes the norm by itself."""
    import torch
    from onnx import helper
    from torch.nn import functional as F  # noqa: N812

    kernels = [2 * (index % 2) + 1 for index in range(len(widths))]
    weights = [drawn(seed + index, width, 3, *[k] * axes) for index, (width, k) in enumerate(zip(widths, kernels, strict=True))]
    biases = [drawn(seed + 50 + index, width) for index, width in enumerate(widths)]
    stored = statistics(sum(widths), seed)
    nodes = [
        helper.make_node("Conv", ["x", f"w{i}", *([f"b{i}"] if bias else [])], [f"c{i}"], name=f"conv{i}", pads=[k // 2] * 2 * axes)
        for i, k in enumerate(kernels)
    ]
    nodes.append(helper.make_node("Concat", [f"c{i}" for i in range(len(widths))], ["c"], axis=-1 - axes if negative else 1))
    constants = {f"w{i}": weight for i, weight in enumerate(weights)} | stored
    constants |= {f"b{i}": values for i, values in enumerate(biases)} if bias else {}
    image = drawn(seed, 2, 3, *range(4, 4 + axes))
    model = model_of([*nodes, norm(epsilon=1e-3)], constants, [2, 3, *["d", "h", "w"][:axes]])

    assert changed_by(fold_batch_norm, model, image) == 1
    assert operations(model) == ["Conv"] * len(widths) + ["Concat"]
    assert [node.name for node in model.graph.node[:-1]] == [f"conv{i}" for i in range(len(widths))]
    convolve = F.conv2d if axes == 2 else F.conv3d
    parts = [
        convolve(torch.from_numpy(image), torch.from_numpy(w), torch.from_numpy(b) if bias else None, padding=k // 2)
        for w, b, k in zip(weights, biases, kernels, strict=True)
    ]
    mean, variance, scale, shift = (torch.from_numpy(stored[name]) for name in ("mean", "variance", "scale", "shift"))
    expected = F.batch_norm(torch.cat(parts, 1), mean, variance, scale, shift, eps=1e-3)
    np.testing.assert_allclose(run(model, image)[0], expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_of_groups_folds_too(groups: int) -> None:
    model = convolved(group=groups)
    assert changed_by(fold_batch_norm, model, drawn(5, 1, 4, 5, 6, 7)) == 1
    assert operations(model) == ["Conv"]
    assert {tensor.name for tensor in model.graph.initializer} == {"c.weight", "c.bias"}


def test_a_transposed_convolution_counts_its_channels_on_the_other_axis() -> None:
    from onnx import helper

    first = [helper.make_node("ConvTranspose", ["x", "w"], ["c"], strides=[2] * 3)]
    model = convolved(first=first, constants={"w": drawn(1, 4, 6, 2, 2, 2), **statistics(6)})
    assert changed_by(fold_batch_norm, model, drawn(5, 1, 4, 5, 6, 7)) == 1
    assert operations(model) == ["ConvTranspose"]


def test_a_weight_that_two_convolutions_share_is_folded_for_each() -> None:
    from onnx import helper

    first = [helper.make_node("Conv", [source, "w", "b"], [result], pads=[1] * 6) for source, result in (("x", "a"), ("n", "c"))]
    first.insert(1, helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["n"]))
    model = convolved(first=first)
    assert changed_by(fold_batch_norm, model, drawn(5, 1, 4, 5, 6, 7)) == 2
    assert operations(model) == ["Conv", "Conv"]


def relu(source: str, result: str) -> Any:
    from onnx import helper

    return helper.make_node("Relu", [source], [result])


def concat(*names: str, axis: int = 1) -> Any:
    from onnx import helper

    return helper.make_node("Concat", names, ["c"], axis=axis)


def conv(result: str, weight: str = "w", bias: str = "b", **stated: Any) -> Any:
    from onnx import helper

    return helper.make_node("Conv", ["x", weight, bias], [result], **({"pads": [1] * 6} | stated))


EIGHT = statistics(8)
LARGE = np.full(4, 1e3, np.float32)
NOT_FOLDED = {
    "another reader of the convolution": {"more": [relu("c", "z")], "outputs": ["y", "z"]},
    "the caller sees the convolution": {"outputs": ["y", "c"]},
    "training": {"norm": {"training_mode": 1, "outputs": ["y", "running_mean", "running_variance"]}},
    "a function in between": {"first": [conv("a"), relu("a", "c")]},
    "no convolution": {"first": [relu("x", "c")]},
    "a computed weight": {
        "first": [relu("w", "v"), conv("c", "v")],
    },
    "a computed bias": {"first": [relu("b", "v"), conv("c", "w", "v")]},
    "one part is no convolution": {"first": [conv("a"), concat("x", "a")], "constants": EIGHT},
    "one part is read elsewhere": {
        "first": [conv("a"), conv("d"), relu("a", "z"), concat("a", "d")], "constants": EIGHT, "outputs": ["y", "z"],
    },
    "one part stands twice": {"first": [conv("a"), concat("a", "a")], "constants": EIGHT},
    "another axis": {"first": [conv("a"), conv("d"), concat("a", "d", axis=2)]},
    "a variance that eats epsilon": {"constants": statistics(4) | {"variance": np.full(4, -2e-5, np.float32)}},
    "weights that float32 cannot hold": {"constants": {"w": np.full((4, 4, 3, 3, 3), 3e38, np.float32), "scale": LARGE}},
}  # fmt: skip


@pytest.mark.parametrize("why", NOT_FOLDED)
def test_what_does_not_fold_exactly_is_left_alone(why: str) -> None:
    assert left_alone(fold_batch_norm, convolved(**dict(NOT_FOLDED[why])))


def test_statistics_that_a_caller_may_replace_are_not_constant() -> None:
    from onnx import TensorProto, helper

    model = convolved()
    model.graph.input.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [4]))
    assert left_alone(fold_batch_norm, model)


UNTOUCHED = {"mean": np.zeros(4, np.float32), "variance": np.ones(4, np.float32)}
INITIAL = UNTOUCHED | {"scale": np.ones(4, np.float32), "shift": np.zeros(4, np.float32)}


def saved(model: Any, tmp_path: Path) -> Path:
    import onnx

    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_statistics_that_were_never_updated_are_refused_by_name_and_with_a_way_out(tmp_path: Path) -> None:
    path = saved(convolved(constants=UNTOUCHED), tmp_path)
    with pytest.raises(ArtifactError, match=r"every moving mean of .* is 0 and every variance 1 .*\(norm\)") as caught:
        refuse_stale_batch_norm(path, ("fold-batch-norm", "fuse-upsampling"))
    assert "--trust-batch-norm" in caught.value.hint
    assert "--passes fuse-upsampling" in caught.value.hint
    refuse_stale_batch_norm(path, ("fuse-upsampling",))


@pytest.mark.parametrize("constants", [{}, INITIAL, UNTOUCHED | {"mean": np.array([0, 0, 0, 1e-6], np.float32)}])
def test_statistics_that_were_estimated_or_do_nothing_are_taken(constants: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = convolved(constants=constants)
    refuse_stale_batch_norm(saved(model, tmp_path), ("fold-batch-norm",))
    assert changed_by(fold_batch_norm, model, drawn(5, 1, 4, 5, 6, 7)) == 1


def test_one_norm_with_estimated_statistics_clears_the_others() -> None:
    from onnx import helper

    names = ["scale", "shift", "mean", "variance"]
    second = helper.make_node("BatchNormalization", ["n", "scale", "shift", "mean2", "variance"], ["y"])
    constants = {"mean2": drawn(7, 4), **UNTOUCHED}
    model = convolved(norm={"outputs": ["n"]}, more=[second], constants=constants)
    assert stale_batch_norms(model.graph) == []
    second.input[:] = ["n", *names]
    assert len(stale_batch_norms(convolved(norm={"outputs": ["n"]}, more=[second], constants=constants).graph)) == 2
