"""Res-UNet is the network that the published file sizes fit: parameters and multiply-accumulates of every part and variant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge_latup.export.module_cost import cost_of_network
from edge_latup.networks.res_unet import AttentionGate, Cbam, ResUnet, SqueezeExcitation2d

VARIANTS: dict[str, tuple[dict[str, Any], int, int, int, int | None]] = {
    # arguments, parameters, with running statistics, 2-D convolutions, their multiply-accumulates at 256x256
    "base": ({}, 33_140_545, 33_158_209, 28, 59_454_259_200),
    "gate C/4": ({"attention": "gate"}, 33_402_389, 33_420_053, 40, 60_261_531_648),
    "gate C/2": ({"attention": "gate", "gate_divisor": 2}, 33_664_229, 33_681_893, 40, 61_068_804_096),
    "se": ({"attention": "se"}, 33_358_657, 33_376_321, 28, 59_454_259_200),
    "cbam": ({"attention": "cbam"}, 33_577_651, 33_595_315, 37, 59_471_344_128),
    "transposed": ({"upsample": "transposed"}, 32_445_185, 32_462_849, 28, 50_864_324_608),
    "transposed, gate C/2": ({"upsample": "transposed", "attention": "gate", "gate_divisor": 2}, 32_794_789, 32_812_453, 40, None),
}
TINY = (8, 16, 32)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def statistics(module: nn.Module) -> int:
    return sum(b.numel() for name, b in module.named_buffers() if not name.endswith("tracked"))


def made(**changes: Any) -> ResUnet:
    with torch.device("meta"):
        return ResUnet(**changes)


def tiny(**changes: Any) -> ResUnet:
    """With running statistics that are not those of a fresh norm."""
    torch.manual_seed(0)
    network = ResUnet(2, 3, TINY, **changes).eval()
    for name, buffer in network.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_with_and_without_running_statistics(variant: str) -> None:
    changes, count, with_statistics, _, _ = VARIANTS[variant]
    network = made(**changes)
    assert parameters(network) == count
    assert count + statistics(network) == with_statistics


@pytest.mark.parametrize("variant", VARIANTS)
def test_convolutions_and_norms(variant: str) -> None:
    changes, _, _, convolutions, _ = VARIANTS[variant]
    modules = list(made(**changes).modules())
    assert sum(isinstance(module, nn.Conv2d) for module in modules) == convolutions
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 27
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("variant", [name for name, row in VARIANTS.items() if row[4]])
def test_macs_at_256(variant: str) -> None:
    changes, _, _, _, macs = VARIANTS[variant]
    assert cost_of_network(made(**changes), "test", (1, 3, 256, 256)).convolution_macs == macs


def test_slices_of_a_volume_cost_what_as_many_planes_cost() -> None:
    plane, volume = (cost_of_network(made(widths=TINY), "test", (1, 3, 32, 32, *more)) for more in ((), (5,)))
    assert volume.convolution_macs == 5 * plane.convolution_macs
    assert volume.parameters == plane.parameters == parameters(made(widths=TINY))


def test_parameters_of_every_part() -> None:
    network = made()
    assert [parameters(block) for block in network.encoders] == [39_360, 230_528, 919_808, 3_674_624, 14_689_280]
    assert [parameters(level) for level in network.decoders] == [160_320, 640_128, 2_558_208, 10_228_224]
    assert [statistics(block) for block in network.encoders] == [384, 768, 1_536, 3_072, 6_144]
    assert parameters(network.output) == 65


@pytest.mark.parametrize(
    ("divisor", "counts"), [(4, [3_121, 12_385, 49_345, 196_993]), (2, [6_241, 24_769, 98_689, 393_985])], ids=["C/4", "C/2"]
)
def test_parameters_of_the_gates(divisor: int, counts: list[int]) -> None:
    assert [parameters(level.gate) for level in made(attention="gate", gate_divisor=divisor).decoders] == counts


def test_parameters_of_the_block_attentions() -> None:
    widths = (64, 128, 256, 512, 1024)
    assert [parameters(SqueezeExcitation2d(width)) for width in widths] == [512, 2_048, 8_192, 32_768, 131_072]
    assert [parameters(Cbam(width)) for width in widths] == [1_122, 4_194, 16_482, 65_634, 262_242]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_a_gate_is_one_map_for_all_channels() -> None:
    torch.manual_seed(1)
    gate, skip, up = AttentionGate(4, 6, 3), torch.randn(2, 4, 5, 5), torch.randn(2, 6, 5, 5)
    weights = {name: tensor.detach().numpy() for name, tensor in gate.named_parameters()}

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return np.einsum("oi,nihw->nohw", weights[f"{name}.weight"][:, :, 0, 0], x) + weights[f"{name}.bias"][:, None, None]

    inner = np.maximum(dense("skip", skip.numpy()) + dense("up", up.numpy()), 0)
    expected = skip.numpy() * _sigmoid(dense("psi", inner))
    with torch.inference_mode():
        np.testing.assert_allclose(gate(skip, up).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_cbam_weighs_channels_then_pixels() -> None:
    torch.manual_seed(2)
    module, x = Cbam(16), torch.randn(2, 16, 9, 9)
    squeeze, excite = module.squeeze.weight.detach().numpy(), module.excite.weight.detach().numpy()
    array = x.numpy()

    def perceptron(pooled: np.ndarray) -> np.ndarray:
        return np.maximum(pooled @ squeeze.T, 0) @ excite.T

    scaled = array * _sigmoid(perceptron(array.mean((2, 3))) + perceptron(array.max((2, 3))))[:, :, None, None]
    pooled = torch.from_numpy(np.stack([scaled.mean(1), scaled.max(1)], axis=1))
    expected = scaled * _sigmoid(nn.functional.conv2d(pooled, module.spatial.weight, padding=3).detach().numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attention", ["none", "gate", "se", "cbam"])
def test_a_volume_is_its_axial_slices_one_by_one(attention: str) -> None:
    network, volumes = tiny(attention=attention), torch.randn(2, 2, 8, 12, 3)
    with torch.inference_mode():
        found = network(volumes)
        planes = torch.stack([network(volumes[..., index]) for index in range(3)], dim=-1)
    assert found.shape == (2, 3, 8, 12, 3)
    torch.testing.assert_close(found, planes, rtol=1e-4, atol=1e-6)


def test_the_head_is_sigmoid_or_softmax() -> None:
    x = torch.randn(1, 2, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(tiny()(x), torch.sigmoid(tiny().logits(x)))
        torch.testing.assert_close(tiny(activation="softmax")(x).sum(1), torch.ones(1, 8, 8))


@pytest.mark.parametrize(
    ("shape", "told"), [((1, 2, 8, 6), "multiple of 4, got \\(8, 6\\)"), ((1, 3, 8, 8), "expected 2 channels"), ((2, 8, 8), "x, y, z")]
)
def test_another_input_is_refused(shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tiny()(torch.zeros(shape))


@pytest.mark.parametrize("changes", [{"attention": "self"}, {"upsample": "bilinear"}, {"widths": (8,)}, {"gate_divisor": 0}])
def test_arguments_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        ResUnet(**changes)
