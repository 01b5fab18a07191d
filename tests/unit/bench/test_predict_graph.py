"""Operations read from a graph against counts done by hand, and from every kind of artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import model_of

from edge_latup.bench.predict_graph import Work, read_work, work_of
from edge_latup.errors import ArtifactError, InputError
from edge_latup.runtimes.openvino import openvino_core

if TYPE_CHECKING:
    from tiny_models import Compress

    from edge_latup.artifact import Artifact


def read(nodes: list[Any], constants: dict[str, np.ndarray], shape: tuple[int, ...], precision: str = "fp32") -> Work:
    model = openvino_core().read_model(model_of(nodes, constants, shape).SerializeToString(), b"")
    model.reshape(list(shape))
    return read_work(model, precision)  # type: ignore[arg-type]


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], name=output, **attributes)


def weights(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_one_convolution_by_hand() -> None:
    """3 to 4 channels, 3^3, one voxel of padding, 4^3 voxels: 4 x 3 x 27 x 64 products, of which (10/12)^3 fall on data."""
    work = read([node("Conv", ["x", "w"], "y", pads=[1] * 6)], {"w": weights(4, 3, 3, 3, 3)}, (1, 3, 4, 4, 4))
    (found,) = work.operations
    assert (found.kind, found.precision, found.kernel, found.channels, found.voxels) == ("convolution", "fp32", 3, (3, 4), 64)
    assert (found.macs, found.needed_macs) == (20736, 12000)
    assert (found.reads, found.writes, found.weight_bytes) == ((768,), 1024, 1296)
    assert (work.macs, work.weight_bytes, work.activation_bytes) == (20736, 1296, 768 + 1024)


def test_half_precision_moves_half_the_bytes() -> None:
    nodes, constants = (
        [node("Conv", ["x", "w"], "c"), node("Conv", ["c", "v"], "y")],
        {"w": weights(4, 3, 1, 1, 1), "v": weights(2, 4, 1, 1, 1)},
    )
    first, second = read(nodes, constants, (1, 3, 4, 4, 4), "bf16").operations
    assert (first.reads, first.writes, first.weight_bytes) == ((768,), 512, 24), "the input comes as FP32"
    assert (second.reads, second.writes) == ((512,), 256)


def test_padding_before_a_convolution_is_its_own_padding() -> None:
    """As a 2^3 "same" convolution is exported: per axis 7 of 8 taps fall on data."""
    nodes = [node("Pad", ["x", "p"], "padded"), node("Conv", ["padded", "w"], "y")]
    constants = {"p": np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1]), "w": weights(4, 3, 2, 2, 2)}
    (found,) = read(nodes, constants, (1, 3, 4, 4, 4)).operations
    assert (found.macs, found.needed_macs) == (4 * 3 * 8 * 64, 4 * 3 * 7**3)
    assert found.reads == (768,), "no padded copy is read"


def test_a_transposed_convolution_counts_what_it_reads() -> None:
    """Kernel 2, stride 2: every product lands; kernel 3 with padding 1 drops those outside."""
    (whole,) = read([node("ConvTranspose", ["x", "w"], "y", strides=[2] * 3)], {"w": weights(3, 4, 2, 2, 2)}, (1, 3, 4, 4, 4)).operations
    assert (whole.kind, whole.macs, whole.needed_macs, whole.voxels) == ("transposed convolution", 3 * 4 * 8 * 64, 3 * 4 * 8 * 64, 64)
    attributes = {"strides": [2] * 3, "pads": [1] * 6, "output_padding": [1] * 3}
    (cut,) = read([node("ConvTranspose", ["x", "w"], "y", **attributes)], {"w": weights(3, 4, 3, 3, 3)}, (1, 3, 4, 4, 4)).operations
    assert (cut.macs, cut.needed_macs) == (3 * 4 * 27 * 64, 3 * 4 * 11**3), "one of twelve taps an axis is cut off"


def test_activations_are_fused_and_skips_are_read_twice() -> None:
    nodes = [
        node("Conv", ["x", "w"], "c"), node("LeakyRelu", ["c"], "a"), node("MaxPool", ["a"], "p", kernel_shape=[2] * 3, strides=[2] * 3),
        node("Conv", ["a", "v"], "d"), node("Concat", ["d", "a"], "y", axis=1),
    ]  # fmt: skip
    work = read(nodes[:2] + nodes[3:], {"w": weights(4, 3, 1, 1, 1), "v": weights(4, 4, 1, 1, 1)}, (1, 3, 4, 4, 4))
    assert [operation.kind for operation in work.operations] == ["convolution", "convolution", "concatenation"]
    assert work.operations[2].reads == (1024, 1024)
    assert work.operations[2].writes == 2048
    assert work.activation_bytes == 1024 + 1024 + 2048, "skip, convolution and their concatenation are alive together"


def test_an_activation_of_what_others_read_too_is_a_pass_of_its_own() -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("Sigmoid", ["c"], "s"), node("Mul", ["c", "s"], "y")]
    work = read(nodes, {"w": weights(4, 3, 1, 1, 1)}, (1, 3, 4, 4, 4))
    assert [operation.kind for operation in work.operations] == ["convolution", "elementwise", "elementwise"]


@given(side=st.integers(1, 4), more=st.integers(0, 3), outputs=st.integers(1, 4))
def test_a_larger_input_is_never_less_work(side: int, more: int, outputs: int) -> None:
    nodes, constants = [node("Conv", ["x", "w"], "y", pads=[1] * 6)], {"w": weights(outputs, 3, 3, 3, 3)}
    small, large = (read(nodes, constants, (1, 3, size, size, size)).operations[0] for size in (side, side + more))
    assert small.macs <= large.macs
    assert small.needed_macs <= large.needed_macs
    assert small.bytes_moved <= large.bytes_moved
    assert small.needed_macs <= small.macs


def test_the_whole_network_has_the_macs_that_inspect_counts(tiny_fp32: Artifact) -> None:
    from edge_latup.export.cost import cost_of

    work, cost = work_of(tiny_fp32), cost_of(tiny_fp32.folder)
    assert work.macs == cost.macs
    convolutions = [operation for operation in work.operations if operation.kind == "convolution"]
    assert len(convolutions) == 18
    assert {operation.precision for operation in work.operations} == {"fp32"}
    assert work_of(tiny_fp32, float_precision="bf16").activation_bytes < work.activation_bytes


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "tensorrt"])
def test_int8_artifacts_are_int8_where_they_declare_it(compressed: Compress, runtime: Any) -> None:
    """Whatever form Q/DQ takes in the file: the same MACs, and fewer bytes than in FP32."""
    artifact = compressed("int8", runtime)
    work = work_of(artifact)
    by_precision = {precision: sum(o.macs for o in work.operations if o.precision == precision) for precision in ("int8", "fp32", "fp16")}
    assert by_precision["int8"] > by_precision["fp32"] + by_precision["fp16"]
    assert work.macs == pytest.approx(98_369_536, rel=0.01)
    floats = work_of(artifact, float_precision="fp32")
    quantized = [operation for operation in floats.operations if operation.precision == "int8" and operation.macs]
    elements = [operation.channels[0] for operation in quantized]
    assert any(read == 16**3 * channels for operation, channels in zip(quantized, elements, strict=True) for read in operation.reads)


def test_what_has_no_graph_or_not_this_size_is_refused(tiny_reference: Artifact, tiny_fp32: Artifact) -> None:
    with pytest.raises(ArtifactError, match="is a checkpoint"):
        work_of(tiny_reference)
    with pytest.raises(InputError, match="12 is not a multiple of 8"):
        work_of(tiny_fp32, (12, 16, 16))
