"""What is counted from the network equals the published table, and every artifact made from it gives the same counts."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from support import tree
from tiny_network import random_network, tiny_spec, write_checkpoint

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, InputError, SpecError
from edge_latup.export.cost import cost_of
from edge_latup.export.graph_cost import cost_of_graph
from edge_latup.export.layers import Cost, Layer
from edge_latup.export.module_cost import cost_of_network
from edge_latup.export.published import remarks
from edge_latup.networks.build import save_checkpoint
from edge_latup.networks.latup_net import LatupNet
from edge_latup.spec import CentreCrop, ModelSpec, NetworkSpec

FULL_MACS = 788_730_478_592
TABLE = [
    ("encoder1.embedding", 128, 2_624, 5_435_817_984),
    ("encoder1.branches.0", 128, 1_056, 2_147_483_648),
    ("encoder1.branches.1", 128, 27_680, 57_982_058_496),
    ("encoder1.branches.2", 128, 128_032, 268_435_456_000),
    ("encoder2.attention", 1, 2_304, 0),
    ("encoder2.conv1", 64, 165_952, 43_486_543_872),
    ("encoder2.norm", 64, 128, 0),
    ("encoder2.conv2", 64, 110_656, 28_991_029_248),
    ("encoder3.attention", 1, 1_024, 0),
    ("encoder3.conv1", 32, 221_312, 7_247_757_312),
    ("encoder3.norm", 32, 256, 0),
    ("encoder3.conv2", 32, 442_496, 14_495_514_624),
    ("bottleneck", 1, 4_096, 0),
    ("decoder3.up_conv.conv", 32, 131_200, 4_294_967_296),
    ("decoder3.norm", 32, 256, 0),
    ("decoder3.conv1", 32, 884_864, 28_991_029_248),
    ("decoder3.attention", 1, 4_096, 0),
    ("decoder3.conv2", 32, 442_496, 14_495_514_624),
    ("decoder2.up_conv.conv", 64, 65_600, 17_179_869_184),
    ("decoder2.norm", 64, 128, 0),
    ("decoder2.conv1", 64, 221_248, 57_982_058_496),
    ("decoder2.attention", 1, 1_024, 0),
    ("decoder2.conv2", 64, 110_656, 28_991_029_248),
    ("decoder1.up_conv.conv", 128, 16_416, 34_359_738_368),
    ("decoder1.norm", 128, 64, 0),
    ("decoder1.conv1", 128, 55_328, 115_964_116_992),
    ("decoder1.attention", 1, 256, 0),
    ("decoder1.conv2", 128, 27_680, 57_982_058_496),
    ("output", 128, 132, 268_435_456),
]
"""Layer, side of its output grid, parameters, convolution MACs, at 128^3. An attention block is its two dense layers."""
MIB = 2**20


def published(side: int) -> Cost:
    with torch.device("meta"):
        network = LatupNet()
    return cost_of_network(network, "LATUP-Net", (1, 3, side, side, side))


@pytest.fixture(scope="module")
def full() -> Cost:
    return published(128)


def weighted(cost: Cost) -> dict[str, Layer]:
    return {layer.name: layer for layer in cost.layers if layer.parameters}


def test_the_network_costs_what_was_derived_from_the_publication(full: Cost) -> None:
    assert full.parameters == 3_069_060
    assert full.convolution_macs == FULL_MACS
    assert full.macs == FULL_MACS + 12_800


@pytest.mark.parametrize(("name", "side", "parameters", "macs"), TABLE)
def test_every_row_of_the_layer_table(full: Cost, name: str, side: int, parameters: int, macs: int) -> None:
    layers = [layer for layer in weighted(full).values() if layer.name == name or layer.name.rsplit(".", 1)[0] == name]
    assert sum(layer.parameters for layer in layers) == parameters
    if side > 1:
        (layer,) = layers
        assert layer.macs == macs
        assert layer.output_shape[2:] == (side, side, side)
    else:
        assert [layer.operation for layer in layers] == ["Linear", "Linear"]


def test_the_table_leaves_nothing_out(full: Cost) -> None:
    assert sum(parameters for _, _, parameters, _ in TABLE) == full.parameters
    assert sum(macs for _, _, _, macs in TABLE) == full.convolution_macs


@pytest.mark.parametrize("side", [32, 64])
def test_convolution_macs_are_proportional_to_the_voxels(side: int) -> None:
    cost = published(side)
    assert cost.convolution_macs == FULL_MACS * side**3 // 128**3
    assert side != 32 or cost.convolution_macs == 12_323_913_728
    assert cost.macs - cost.convolution_macs == 12_800


def test_activations_of_the_published_network(full: Cost) -> None:
    """One tensor of 32 channels at 128^3 is 256 MiB; decoder 1 holds the skip, the up-sampled tensor and its padded copy."""
    layers = {layer.name: layer for layer in full.layers}
    assert layers["encoder1.embedding"].activation_bytes == 256 * MIB
    assert layers["decoder1.upsample_nearest3d"].activation_bytes == 512 * MIB
    assert layers["decoder1.cat"].output_shape == (1, 64, 128, 128, 128)
    assert 1_200 * MIB < full.peak_activation_bytes < 1_400 * MIB


def test_layers_read_the_layers_before_them_and_bear_names_of_their_own(full: Cost) -> None:
    names = [layer.name for layer in full.layers]
    assert len(set(names)) == len(names)
    inputs = {layer.name: layer.inputs for layer in full.layers}
    assert inputs["encoder1.embedding"] == ()
    assert inputs["encoder1.cat"] == ("encoder1.pool", "encoder1.pool_2", "encoder1.pool_3")
    assert inputs["decoder1.cat"] == ("decoder1.norm", "encoder1.embedding.1")
    assert inputs["encoder2.pool"] == ("encoder2.conv2.1",)
    assert full.layers[-1].operation == "softmax"


def test_peak_memory_frees_each_tensor_after_its_last_reader() -> None:
    def layer(name: str, inputs: tuple[str, ...], voxels: int) -> Layer:
        return Layer(name=name, operation="Op", inputs=inputs, output_shape=(voxels,), parameters=0, macs=0)

    chain = [layer("a", (), 10), layer("b", ("a",), 20), layer("c", ("b",), 5)]
    skip = [*chain, layer("d", ("c", "a"), 1)]
    assert Cost(source="", input_shape=(), layers=tuple(chain)).peak_activation_bytes == 4 * 30
    assert Cost(source="", input_shape=(), layers=tuple(skip)).peak_activation_bytes == 4 * 35
    assert Cost(source="", input_shape=(), layers=()).peak_activation_bytes == 0


def layer_counts(cost: Cost) -> dict[str, tuple[tuple[int, ...], int, int]]:
    return {name: (layer.output_shape, layer.parameters, layer.macs) for name, layer in weighted(cost).items()}


def test_every_artifact_has_the_layers_of_its_checkpoint(
    checkpoint: Path, static: Artifact, dynamic: Artifact, reference: Artifact, quantized: dict[str, Artifact]
) -> None:
    """By name, output, parameters and MACs: FP32 at fixed and free size, int8 weights in ONNX, INT8 in OpenVINO's own format."""
    expected = cost_of(checkpoint)
    assert len(weighted(expected)) == 35
    assert expected.parameters == sum(parameter.numel() for parameter in random_network().parameters())
    for artifact in (static, dynamic, reference, *quantized.values()):
        found = cost_of(artifact.folder)
        assert layer_counts(found) == layer_counts(expected), artifact.folder.name
        assert (found.parameters, found.macs, found.convolution_macs) == (expected.parameters, expected.macs, expected.convolution_macs)


def test_graphs_agree_on_activations_too(static: Artifact, dynamic: Artifact, quantized: dict[str, Artifact]) -> None:
    costs = [cost_of(artifact.folder) for artifact in (static, dynamic, *quantized.values())]
    assert len({(cost.activation_bytes, cost.peak_activation_bytes, len(cost.layers)) for cost in costs}) == 1


def test_the_full_width_counts_the_same_in_the_graph(room: Path) -> None:
    spec = ModelSpec(name="full", network=NetworkSpec(), spatial=CentreCrop(size=(16, 16, 16)))
    network = random_network(spec)
    save_checkpoint(room / "full", network, spec)
    path = room / "full.onnx"
    from edge_latup.export.torch_onnx import _write_onnx

    _write_onnx(network, path, spec, dynamic=False)
    modules, graph = cost_of(room / "full"), cost_of_graph(path, "graph", spec.input_shape)
    assert modules.parameters == graph.parameters == 3_069_060
    assert modules.convolution_macs == graph.convolution_macs == FULL_MACS // 512
    assert layer_counts(modules) == layer_counts(graph)
    assert remarks(graph) == remarks(modules)


def test_another_size_is_counted_where_the_model_takes_one(checkpoint: Path, dynamic: Artifact, reference: Artifact) -> None:
    own, larger = cost_of(checkpoint), cost_of(checkpoint, (32, 16, 24))
    assert larger.input_shape == (1, 3, 32, 16, 24)
    assert larger.convolution_macs == own.convolution_macs * 3
    assert (
        layer_counts(cost_of(dynamic.folder, (32, 16, 24))) == layer_counts(larger) == layer_counts(cost_of(reference.folder, (32, 16, 24)))
    )


def test_a_fixed_size_artifact_takes_no_other(static: Artifact, quantized: dict[str, Artifact]) -> None:
    for artifact in (static, *quantized.values()):
        with pytest.raises(InputError, match=r"has the fixed input \(1, 3, 16, 16, 16\)") as caught:
            cost_of(artifact.folder, (24, 24, 24))
        assert "--dynamic" in caught.value.hint
    assert cost_of(static.folder, (16, 16, 16)).parameters == cost_of(static.folder).parameters


@pytest.mark.parametrize("size", [(12, 16, 16), (16, 16, 0)])
def test_a_size_that_is_no_multiple_is_refused(checkpoint: Path, dynamic: Artifact, size: tuple[int, int, int]) -> None:
    for folder in (checkpoint, dynamic.folder):
        with pytest.raises(InputError, match="is not a multiple of 8"):
            cost_of(folder, size)


def test_what_is_neither_artifact_nor_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not a checkpoint"):
        cost_of(tmp_path)


def test_a_file_openvino_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match="model.onnx cannot be read"):
        cost_of_graph(tmp_path / "model.onnx", "broken", (1, 3, 16, 16, 16))


def test_the_artifact_is_not_touched(static: Artifact) -> None:
    before = tree(static.folder)
    cost_of(static.folder)
    assert tree(static.folder) == before


def test_biases_are_part_of_their_layer_only_where_nothing_else_reads_it(tmp_path: Path) -> None:
    """Y = conv(x) + (conv(x) + bias): the bias is a layer of its own, and no layer is lost."""
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = onnx.numpy_helper.from_array(torch.rand(2, 1, 3, 3, 3).numpy(), "w")
    bias = onnx.numpy_helper.from_array(torch.rand(1, 2, 1, 1, 1).numpy(), "b")
    nodes = [
        make("Conv", ["x", "w"], ["c"], name="c", pads=[1] * 6),
        make("Add", ["c", "b"], ["d"], name="d"),
        make("Add", ["c", "d"], ["y"], name="y"),
    ]
    shapes = [value(name, onnx.TensorProto.FLOAT, [1, channels, 4, 4, 4]) for name, channels in (("x", 1), ("y", 2))]
    graph = onnx.helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [weights, bias])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), tmp_path / "model.onnx")
    cost = cost_of_graph(tmp_path / "model.onnx", "g", (1, 1, 4, 4, 4))
    assert [(layer.operation, layer.parameters) for layer in cost.layers] == [("Convolution", 54), ("Add", 2), ("Add", 0)]
    assert cost.convolution_macs == 64 * 54


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the exporter's own making
def test_a_transposed_convolution_costs_its_weights_per_input_voxel(tmp_path: Path) -> None:
    layer = torch.nn.ConvTranspose3d(3, 5, 2, stride=2)
    cost = cost_of_network(torch.nn.Sequential(layer), "up", (1, 3, 4, 4, 4))
    assert cost.convolution_macs == 4**3 * 3 * 5 * 8
    path = tmp_path / "up.onnx"
    layer = torch.nn.ConvTranspose3d(3, 5, 2, stride=2)
    torch.onnx.export(layer.eval(), (torch.zeros(1, 3, 4, 4, 4),), str(path), dynamo=True, verbose=False)
    assert cost_of_graph(path, "up", (1, 3, 4, 4, 4)).convolution_macs == cost.convolution_macs


def test_the_published_figures_are_told_with_their_factor_of_100(full: Cost) -> None:
    first, second = remarks(full)
    assert "3,069,060 parameters" in first
    assert "15.79 GFLOPs" in second
    assert "low by a factor of 100" in second
    assert "1,577.46 GFLOP" in second
    assert "99.9 times" in second
    assert remarks(published(64)) == [first, second]


def test_no_remark_on_any_other_network(checkpoint: Path, tmp_path: Path) -> None:
    assert remarks(cost_of(checkpoint)) == []
    almost = tiny_spec(width=32, attention=False)
    assert remarks(cost_of(write_checkpoint(tmp_path, almost))) == []


def test_the_data_is_plain_and_complete(full: Cost) -> None:
    data = full.as_data()
    assert (data["parameters"], data["convolution_macs"], data["input_shape"]) == (3_069_060, FULL_MACS, [1, 3, 128, 128, 128])
    assert len(data["layers"]) == len(full.layers)
    assert data["layers"][0] == {
        "name": "encoder1.embedding", "operation": "Conv3d", "output_shape": [1, 32, 128, 128, 128],
        "parameters": 2_624, "macs": 5_435_817_984, "activation_bytes": 256 * MIB,
    }  # fmt: skip
