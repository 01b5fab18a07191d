"""LATUP-Net stated a second time, row by row from its layer table with elementary operations, computes what the module computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_network import random_network, tiny_spec
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

ROWS = {
    "1": "encoder1.embedding.0", "2a": "encoder1.branches.0.0", "2b": "encoder1.branches.1.0", "2c": "encoder1.branches.2.0",
    "4": "encoder2.attention", "5": "encoder2.conv1.0", "5n": "encoder2.norm", "6": "encoder2.conv2.0",
    "8": "encoder3.attention", "9": "encoder3.conv1.0", "9n": "encoder3.norm", "10": "encoder3.conv2.0",
    "12": "bottleneck",
    "14": "decoder3.up_conv.conv", "14n": "decoder3.norm", "16": "decoder3.conv1.0", "17": "decoder3.attention", "18": "decoder3.conv2.0",
    "19": "decoder2.up_conv.conv", "19n": "decoder2.norm", "20": "decoder2.conv1.0", "21": "decoder2.attention", "22": "decoder2.conv2.0",
    "23": "decoder1.up_conv.conv", "23n": "decoder1.norm", "24": "decoder1.conv1.0", "25": "decoder1.attention", "26": "decoder1.conv2.0",
    "27": "output",
}  # fmt: skip
"""Row of the layer table -> the module's own name for it."""


class Table:
    """The layer table as functions of the row number. Nothing here is taken from the network's source."""

    def __init__(self, weights: dict[str, Tensor], attention: bool, up: Callable[[Tensor], Tensor]) -> None:
        self.weights, self.attention, self.up = weights, attention, up

    def parameter(self, row: str, kind: str) -> Tensor:
        return self.weights[f"{ROWS[row]}.{kind}"]

    def conv(self, row: str, x: Tensor, before: int, after: int) -> Tensor:
        """Convolution with bias after `before` and `after` planes of zeros on each axis."""
        for axis in (2, 3, 4):
            shape = list(x.shape)
            zeros = [x.new_zeros([*shape[:axis], planes, *shape[axis + 1 :]]) for planes in (before, after)]
            x = torch.cat([zeros[0], x, zeros[1]], dim=axis)
        return F.conv3d(x, self.parameter(row, "weight")) + self.parameter(row, "bias")[None, :, None, None, None]

    def conv_lr(self, row: str, x: Tensor) -> Tensor:
        """Zero "same" padding; on an even kernel the odd plane is after. LeakyReLU 0.1."""
        side = self.parameter(row, "weight").shape[-1]
        y = self.conv(row, x, (side - 1) // 2, side // 2)
        return torch.where(y >= 0, y, 0.1 * y)

    def norm(self, row: str, x: Tensor) -> Tensor:
        mean = x.mean((2, 3, 4), keepdim=True)
        variance = ((x - mean) ** 2).mean((2, 3, 4), keepdim=True)
        gamma, beta = (self.parameter(row, kind)[None, :, None, None, None] for kind in ("weight", "bias"))
        return (x - mean) / (variance + 1e-3).sqrt() * gamma + beta

    def se(self, row: str, x: Tensor) -> Tensor:
        if not self.attention:
            return x
        hidden = (x.mean((2, 3, 4)) @ self.parameter(row, "squeeze.weight").T).clamp(min=0)
        gate = 1 / (1 + torch.exp(-(hidden @ self.parameter(row, "excite.weight").T)))
        return x * gate[:, :, None, None, None]

    def decoder(self, rows: tuple[str, str, str, str], x: Tensor, skip: Tensor) -> Tensor:
        first = self.norm(f"{rows[0]}n", self.conv_lr(rows[0], self.up(x)))
        merged = self.conv_lr(rows[1], torch.cat([first, skip], 1))
        return self.conv_lr(rows[3], self.se(rows[2], merged))

    def forward(self, x: Tensor) -> Tensor:
        s1 = self.conv_lr("1", x)
        y = torch.cat([max_pool(self.conv_lr(row, s1)) for row in ("2a", "2b", "2c")], 1)
        s2 = self.conv_lr("6", self.norm("5n", self.conv_lr("5", self.se("4", y))))
        s3 = self.conv_lr("10", self.norm("9n", self.conv_lr("9", self.se("8", max_pool(s2)))))
        y = self.se("12", max_pool(s3))
        y = self.decoder(("14", "16", "17", "18"), y, s3)
        y = self.decoder(("19", "20", "21", "22"), y, s2)
        y = self.decoder(("23", "24", "25", "26"), y, s1)
        scores = self.conv("27", y, 0, 0).exp()
        return scores / scores.sum(1, keepdim=True)


def max_pool(x: Tensor) -> Tensor:
    n, c, d, h, w = x.shape
    return x.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2).amax((3, 5, 7))


def nearest(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)


def linear(x: Tensor) -> Tensor:
    """Voxel centres at half steps: each new value is 3/4 of its voxel and 1/4 of the neighbour on its side, edges repeated."""
    for axis in (2, 3, 4):
        length = x.shape[axis]
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, length - 1)], axis)
        after = torch.cat([x.narrow(axis, 1, length - 1), x.narrow(axis, length - 1, 1)], axis)
        halves = torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = halves.flatten(axis, axis + 1)
    return x


@pytest.mark.parametrize(
    ("changes", "up"),
    [({}, nearest), ({"attention": False}, nearest), ({"upsample": "trilinear"}, linear), ({"in_channels": 4}, nearest)],
    ids=["published", "no SE", "trilinear", "4 inputs"],
)
def test_the_table_and_the_module_agree(changes: dict[str, Any], up: Callable[[Tensor], Tensor]) -> None:
    network = random_network(tiny_spec(**changes)).double()
    x = torch.rand(2, network.in_channels, 8, 16, 16, dtype=torch.float64)
    table = Table(network.state_dict(), attention=bool(changes.get("attention", True)), up=up)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), table.forward(x), rtol=1e-10, atol=1e-10)
