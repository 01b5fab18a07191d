"""LATUP-Net is the published network: its parameters, its paddings, its order of operations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_network import random_network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge_latup.networks.latup_net import EvenConvLeaky, LatupNet, SqueezeExcitation


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def of_kind(network: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, kind)]


@pytest.fixture(scope="module")
def published() -> LatupNet:
    torch.manual_seed(0)
    return LatupNet()


def watch(network: LatupNet) -> dict[str, tuple[Tensor, Tensor]]:
    """Input and output of every module, by name, in the order in which they finish."""
    finished: dict[str, tuple[Tensor, Tensor]] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            finished[name] = (inputs[0], output)

        return hook

    for name, module in network.named_modules():
        module.register_forward_hook(record(name))
    return finished


@pytest.mark.parametrize(
    ("changes", "count"),
    [({}, 3_069_060), ({"in_channels": 4}, 3_069_924), ({"attention": False}, 3_056_260), ({"out_channels": 3}, 3_069_027)],
)
def test_parameter_counts_are_the_published_ones(changes: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert parameters(LatupNet(**changes)) == count


def test_without_the_block_before_encoder_3_it_is_the_prototype() -> None:
    network = LatupNet()
    network.encoder3.attention = nn.Identity()
    assert parameters(network) == 3_068_036


def test_parameters_by_kind_of_layer(published: LatupNet) -> None:
    convolutions, norms, dense = (of_kind(published, kind) for kind in (nn.Conv3d, nn.InstanceNorm3d, nn.Linear))
    assert (len(convolutions), sum(map(parameters, convolutions))) == (18, 3_055_428)
    assert (len(norms), sum(map(parameters, norms))) == (5, 832)
    assert (len(dense), sum(map(parameters, dense))) == (12, 12_800)
    assert len(of_kind(published, SqueezeExcitation)) == 6
    assert all(layer.bias is None for layer in dense)
    assert all(layer.bias is not None for layer in convolutions)
    assert len(list(published.parameters())) == 58
    assert not list(published.buffers())


def test_the_18_convolutions_stand_where_the_table_has_them(published: LatupNet) -> None:
    names = [name for name, module in published.named_modules() if isinstance(module, nn.Conv3d)]
    stages = [name.split(".")[0] for name in names]
    counts = {"encoder1": 4, "encoder2": 2, "encoder3": 2, "decoder3": 3, "decoder2": 3, "decoder1": 3, "output": 1}
    assert {stage: stages.count(stage) for stage in stages} == counts
    assert published.encoder1.embedding.get_submodule("0").kernel_size == (3, 3, 3)
    assert [branch.get_submodule("0").kernel_size for branch in published.encoder1.branches] == [(k, k, k) for k in (1, 3, 5)]
    assert [getattr(published, f"decoder{k}").up_conv.conv.kernel_size[0] for k in (3, 2, 1)] == [2, 2, 2]
    assert published.output.kernel_size == (1, 1, 1)


def test_the_l2_penalty_covers_11_kernels(published: LatupNet) -> None:
    names = {id(p): name for name, p in published.named_parameters()}
    penalised = {names[id(weight)] for weight in published.regularised_weights()}
    blocks = ("encoder2", "encoder3", "decoder3", "decoder2", "decoder1")
    assert penalised == {f"{block}.{conv}.0.weight" for block in blocks for conv in ("conv1", "conv2")} | {"output.weight"}


def test_the_output_is_a_probability_per_voxel() -> None:
    with torch.inference_mode():
        output = random_network()(torch.rand(2, 3, 16, 24, 8))
    assert output.shape == (2, 4, 16, 24, 8)
    assert output.dtype == torch.float32
    assert output.min() >= 0
    torch.testing.assert_close(output.sum(1), torch.ones(2, 16, 24, 8))


def test_softmax_of_the_logits_is_the_output() -> None:
    network, x = random_network(), torch.rand(1, 3, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(torch.softmax(network.logits(x), 1), network(x), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(12, 12, 12), (16, 16, 4), (8, 20, 8)])
def test_a_size_that_is_no_multiple_of_8_is_refused_by_name(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"multiple of 8, got \\({shape[0]}, {shape[1]}, {shape[2]}\\)"):
        random_network()(torch.rand(1, 3, *shape))


@pytest.mark.parametrize("shape", [(1, 4, 16, 16, 16), (3, 16, 16, 16), (1, 2, 16, 16, 16)])
def test_another_number_of_channels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected input \\(N, 3, D, H, W\\), got"):
        random_network()(torch.rand(*shape))


@pytest.mark.parametrize("width", [0, 4, -8, 12, 20])
def test_a_width_that_se_cannot_divide_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 8, got {width}"):
        LatupNet(width=width)


def test_an_unknown_upsampling_is_refused() -> None:
    with pytest.raises(ValueError, match="'nearest' or 'trilinear', got 'cubic'"):
        LatupNet(upsample="cubic")


def test_the_even_convolution_pads_after_and_not_before() -> None:
    layer = EvenConvLeaky(1, 1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 1, 1, 1] = 1
        layer.conv.bias.zero_()  # type: ignore[union-attr]
        x = torch.rand(1, 1, 6, 5, 4)
        y = layer(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y[..., :-1, :-1, :-1], x[..., 1:, 1:, 1:], rtol=0, atol=0)
    for axis in (2, 3, 4):
        assert not y.select(axis, -1).any()


def test_nearest_upsampling_and_the_even_convolution_fuse_into_one_transposed_convolution() -> None:
    torch.manual_seed(1)
    layer = EvenConvLeaky(5, 3)
    x = torch.rand(2, 5, 4, 3, 6)
    taps = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])  # [w1, w0 + w1, w0] per axis
    fused = torch.einsum("ai,bj,ck,oeijk->eoabc", taps, taps, taps, layer.conv.weight)
    with torch.inference_mode():
        two_steps = layer(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        scores = F.conv_transpose3d(x, fused, layer.conv.bias, stride=2, padding=1, output_padding=1)
        one_step = F.leaky_relu(scores, 0.1)
    torch.testing.assert_close(one_step, two_steps, rtol=0, atol=1e-5)


def test_norms_have_the_published_epsilon_and_no_running_statistics(published: LatupNet) -> None:
    for norm in of_kind(published, nn.InstanceNorm3d):
        assert norm.eps == 1e-3
        assert norm.affine
        assert not norm.track_running_stats


@pytest.mark.parametrize("samples", [1, 2])
def test_a_norm_in_training_is_pytorchs_instance_norm(samples: int) -> None:
    """Results and gradients, however many samples there are."""
    torch.manual_seed(0)
    norm = LatupNet(width=8).encoder2.norm.train()
    theirs = nn.InstanceNorm3d(16, eps=1e-3, affine=True)
    theirs.load_state_dict(norm.state_dict())
    x = torch.randn(samples, 16, 6, 5, 4, dtype=torch.float32) * torch.arange(1, 17).view(1, 16, 1, 1, 1) + 3
    x = x.contiguous(memory_format=torch.channels_last_3d)
    found = []
    for module in (norm, theirs):
        given = x.clone().requires_grad_()
        y = module(given)
        (y * torch.cos(y)).sum().backward()
        found.append((y.detach(), given.grad, module.weight.grad, module.bias.grad))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variance", [1e-4, 1e-2, 4.0])
def test_a_norm_brings_variance_v_to_the_standard_deviation_the_epsilon_leaves(variance: float) -> None:
    norm = LatupNet(width=8).encoder2.norm
    x = torch.randn(1, 16, 24, 24, 24, dtype=torch.float64)
    x = (x - x.mean((2, 3, 4), keepdim=True)) / x.std((2, 3, 4), unbiased=False, keepdim=True) * math.sqrt(variance)
    deviation = norm.double()(x).std((2, 3, 4), unbiased=False)
    torch.testing.assert_close(deviation, torch.full((1, 16), math.sqrt(variance / (variance + 1e-3)), dtype=torch.float64))


def test_every_leaky_relu_has_slope_a_tenth(published: LatupNet) -> None:
    slopes = {module.negative_slope for module in of_kind(published, nn.LeakyReLU)}
    assert slopes == {0.1}
    assert len(of_kind(published, nn.LeakyReLU)) == 17  # every convolution but the output


def test_activation_comes_before_the_norm() -> None:
    network = random_network()
    finished = watch(network)
    network(torch.rand(1, 3, 16, 16, 16))
    activations = ["encoder2.conv1.1", "encoder3.conv1.1", *(f"decoder{k}.up_conv.activation" for k in (3, 2, 1))]
    for activation in activations:
        norm = f"{activation.split('.')[0]}.norm"
        assert list(finished).index(activation) < list(finished).index(norm)
        assert finished[norm][0] is finished[activation][1]


def test_skips_are_taken_before_dropout_and_follow_the_decoder_in_the_concatenation() -> None:
    network = random_network().train()
    finished = watch(network)
    torch.manual_seed(0)
    network(torch.rand(1, 3, 16, 16, 16))
    for stage, skip in ((1, finished["encoder1.embedding"][1]), (2, finished["encoder2.conv2"][1]), (3, finished["encoder3.conv2"][1])):
        merged, up = finished[f"decoder{stage}.conv1"][0], finished[f"decoder{stage}.norm"][1]
        torch.testing.assert_close(merged, torch.cat([up, skip], 1), rtol=0, atol=0)
    for block in ("encoder2", "encoder3", "decoder3", "decoder2", "decoder1"):
        before, after = finished[f"{block}.dropout"]
        torch.testing.assert_close(after[after != 0], before[after != 0] / 0.8)
        # Element-wise: no channel is dropped whole.
        assert 0.1 < float((after == 0).float().mean()) < 0.35
        assert (after != 0).flatten(2).any(2).all()


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    network, x = random_network(), torch.rand(1, 3, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(network(x), network(x))
        network.train()
        assert not torch.equal(network(x), network(x))


def test_attention_averages_in_float32_whatever_the_input() -> None:
    block = SqueezeExcitation(8)
    x = torch.rand(1, 8, 4, 4, 4)
    expected = block(x)
    half = block.forward(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=2e-2, atol=2e-2)


def test_weights_start_as_published(published: LatupNet) -> None:
    for module in of_kind(published, nn.Conv3d):
        fan_in, fan_out = module.in_channels * module.weight[0, 0].numel(), module.out_channels * module.weight[0, 0].numel()
        bound = math.sqrt(6 / (fan_in + fan_out)) if module is published.output else math.sqrt(6 / fan_in)
        check_uniform(module.weight, bound)
        assert not module.bias.any()
    for module in of_kind(published, nn.Linear):
        check_uniform(module.weight, math.sqrt(6 / (module.in_features + module.out_features)))
    for module in of_kind(published, nn.InstanceNorm3d):
        assert (module.weight == 1).all()
        assert (module.bias == 0).all()


def check_uniform(weight: Tensor, bound: float) -> None:
    """Inside +-bound, and near it, and spread as a uniform distribution spreads."""
    weight = weight.detach()
    largest = float(weight.abs().max())
    assert 0.9 * bound < largest <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=4 / math.sqrt(weight.numel()))


def test_the_same_seed_gives_the_same_network() -> None:
    first, second, other = (random_network(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["output.weight"], other["output.weight"])
