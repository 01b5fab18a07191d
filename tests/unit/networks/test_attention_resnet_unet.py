"""Attention-ResNetUNet is what its formulas give: parameters and multiply-accumulates of every stage, and attention without weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edge_latup.export.layers import Cost
from edge_latup.export.module_cost import cost_of_network
from edge_latup.networks.attention_resnet_unet import AttentionResnetUnet, MeanAttention, MultiScale, ResidualBlock

R2 = {"widths": (9, 18, 36, 72), "bottleneck": 144, "branch_divisor": 3}
R3 = {"widths": (8, 16, 32, 64), "bottleneck": 128}
R4 = {"widths": (16, 32, 64), "bottleneck": 128}
STAGES = {
    "R1": ({}, [15_708, 62_712, 250_416, 1_000_800], 0, [26_124, 104_376, 417_264, 1_594_848], 39),
    "R2": (R2, [8_865, 35_316, 140_940, 563_112], 2_251_152, [5_778, 23_058, 92_124, 368_280], 30),
}
MACS = {
    "R1": (
        [4_089_446_400, 2_047_868_928, 1_023_934_464, 511_967_232], 0,
        [6_304_038_912, 3_152_019_456, 1_576_009_728, 783_286_272], 9_437_184,
    ),
    "R2": (
        [2_302_672_896, 1_151_926_272, 575_963_136, 287_981_568], 143_990_784,
        [1_210_318_848, 605_159_424, 302_579_712, 151_289_856], 7_077_888,
    ),
}  # fmt: skip


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def made(**changes: Any) -> AttentionResnetUnet:
    with torch.device("meta"):
        return AttentionResnetUnet(**changes)


def cost_at_64(**changes: Any) -> Cost:
    return cost_of_network(made(**changes), "test", (1, 4, 64, 64, 64))


def tiny(**changes: Any) -> AttentionResnetUnet:
    torch.manual_seed(0)
    return AttentionResnetUnet(2, 4, (4, 8), **changes).eval()


@pytest.mark.parametrize(
    ("changes", "three", "four", "statistics"),
    [({}, 3_472_287, 3_472_300, 720), (R2, 3_488_655, 3_488_665, 1_116), (R3, 3_355_403, 3_355_412, 992), (R4, 3_336_723, 3_336_740, 960)],
    ids=["R1", "R2", "R3", "R4"],
)
def test_parameters_are_those_of_the_reading(changes: dict[str, Any], three: int, four: int, statistics: int) -> None:
    network = made(**changes)
    assert parameters(network) == three
    assert parameters(made(out_channels=4, **changes)) == four
    assert sum(b.numel() for name, b in network.named_buffers() if not name.endswith("tracked")) == statistics


@pytest.mark.parametrize(
    ("changes", "counts"), [({}, (37, 4, 8)), (R2, (42, 4, 10)), (R3, (42, 4, 10)), (R4, (33, 3, 8))], ids=["R1", "R2", "R3", "R4"]
)
def test_layers_by_kind(changes: dict[str, Any], counts: tuple[int, ...]) -> None:
    modules = list(made(**changes).modules())
    kinds = (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d)
    assert tuple(sum(isinstance(module, kind) for module in modules) for kind in kinds) == counts


@pytest.mark.parametrize("reading", ["R1", "R2"])
def test_parameters_of_every_stage(reading: str) -> None:
    changes, encoders, bottom, decoders, output = STAGES[reading]
    network = made(**changes)
    assert [parameters(stage) for stage in network.encoders] == encoders
    assert parameters(network.bottom) == bottom
    assert [parameters(stage) for stage in network.decoders] == decoders
    assert parameters(network.output) == output


@pytest.mark.parametrize("reading", ["R1", "R2"])
def test_macs_of_every_stage_at_64(reading: str) -> None:
    layers = cost_at_64(**STAGES[reading][0]).layers
    encoders, bottom, decoders, output = MACS[reading]

    def macs(stage: str) -> int:
        return sum(layer.macs for layer in layers if layer.name.startswith(stage))

    assert [macs(f"encoders.{k}") for k in range(4)] == encoders
    assert macs("bottom") == bottom
    assert [macs(f"decoders.{k}") for k in range(4)] == decoders
    assert macs("output") == output


@pytest.mark.parametrize(
    ("changes", "macs"),
    [
        ({}, 19_498_008_576), ({"out_channels": 4}, 19_501_154_304), (R2, 6_738_960_384), ({**R2, "out_channels": 4}, 6_741_319_680),
        (R3, 8_786_542_592), (R4, 33_260_830_720),
    ],
)  # fmt: skip
def test_macs_of_the_whole(changes: dict[str, Any], macs: int) -> None:
    cost = cost_at_64(**changes)
    assert (cost.convolution_macs, cost.macs) == (macs, macs)


def test_attention_is_the_sigmoid_of_the_mean_and_has_no_weights() -> None:
    x = torch.randn(2, 3, 4, 5, 6)
    attention = MeanAttention()
    expected = torch.stack([torch.stack([c / (1 + torch.exp(-c.sum() / 120)) for c in volume]) for volume in x])
    torch.testing.assert_close(attention(x), expected)
    assert parameters(attention) == 0


def test_attention_acts_on_the_skip_alone() -> None:
    """What is pooled is the stage's own output; what the decoder reads is the attended one, before the up-sampled."""
    network = tiny()
    seen: dict[str, Tensor] = {}
    network.encoders[0].register_forward_hook(lambda module, inputs, output: seen.update(stage=output))
    network.pool.register_forward_pre_hook(lambda module, inputs: None if "pooled" in seen else seen.update(pooled=inputs[0]))
    network.decoders[0].multi_scale.register_forward_pre_hook(lambda module, inputs: seen.update(merged=inputs[0]))  # type: ignore[union-attr]
    with torch.inference_mode():
        network(torch.randn(1, 2, 8, 8, 8))
    torch.testing.assert_close(seen["pooled"], seen["stage"], rtol=0, atol=0)
    torch.testing.assert_close(seen["merged"][:, :4], MeanAttention()(seen["stage"]))


def test_a_residual_block_adds_what_is_never_negative() -> None:
    block, h = ResidualBlock(3).eval(), torch.randn(1, 3, 4, 4, 4)
    with torch.inference_mode():
        added = block(h) - h
        block.conv2.weight.zero_()
        block.conv2.bias.fill_(-1)  # type: ignore[union-attr]
        torch.testing.assert_close(block(h), h)
    assert added.min() >= -1e-6
    assert added.max() > 0


def test_dilated_branches_reach_1_2_and_4_voxels_far() -> None:
    module = MultiScale(1, 1, 1, nn.Identity())
    x = torch.zeros(1, 1, 11, 11, 11)
    x[..., 5, 5, 5] = 1
    for rate, branch in zip((1, 2, 4), module.branches, strict=True):
        with torch.no_grad():
            branch.weight.fill_(1)  # type: ignore[operator, union-attr]
            branch.bias.zero_()  # type: ignore[operator, union-attr]
            reached = torch.nonzero(branch(x)[0, 0])
        offsets = {int(value) for value in (reached - 5).flatten()}
        assert offsets == {-rate, 0, rate}


def test_the_output_is_a_probability_of_each_voxel_of_any_divisible_size() -> None:
    x = torch.randn(2, 2, 8, 12, 4)
    with torch.inference_mode():
        softmax, sigmoid = tiny()(x), tiny(activation="sigmoid")(x)
        torch.testing.assert_close(torch.sigmoid(tiny().logits(x)), sigmoid)
    assert softmax.shape == sigmoid.shape == (2, 4, 8, 12, 4)
    torch.testing.assert_close(softmax.sum(1), torch.ones(2, 8, 12, 4))


def test_decoder_activations_change_the_function_and_no_weights() -> None:
    x = torch.randn(1, 2, 8, 8, 8)
    plain, active = tiny(), tiny(decoder_activation="relu")
    active.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        assert not torch.allclose(plain(x), active(x))


@pytest.mark.parametrize(
    ("shape", "told"),
    [((1, 2, 8, 8, 6), "multiple of 4, got \\(8, 8, 6\\)"), ((1, 3, 8, 8, 8), "expected 2 channels"), ((1, 2, 8, 8), "D, H, W")],
)
def test_another_input_is_refused(shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tiny()(torch.zeros(shape))


@pytest.mark.parametrize(
    "changes", [{"widths": ()}, {"widths": (4, 0)}, {"branch_divisor": 5}, {"decoder_activation": "tanh"}, {"activation": "none"}]
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        AttentionResnetUnet(**changes)
