"""What training, export and the reference runtime ask of any network here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

ACTIVATIONS: Final = ("softmax", "sigmoid")


class _Join(torch.autograd.Function):
    """Concatenation along channels whose gradients are dense in the layout of the tensors they belong to."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.channels = [part.shape[1] for part in parts]
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        # A dense clone keeps the order of the strides, so channels last stays channels last.
        return tuple(part.clone(memory_format=torch.preserve_format) for part in torch.split(gradient, ctx.channels, dim=1))


def join(parts: Sequence[Tensor]) -> Tensor:
    """`torch.cat(parts, dim=1)`, with gradients that the rest of the network takes quickly.

    The backward of `torch.cat` hands out strided views; for those, PyTorch's batch norm in channels-last has no quick kernel.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return torch.cat(list(parts), dim=1)
    joined: Tensor = _Join.apply(*parts)  # type: ignore[no-untyped-call]
    return joined


class SegmentationNetwork(nn.Module):
    """A network of (N, in_channels, x, y, z) float32 in and probabilities (N, out_channels, x, y, z) out.

    Args:
        in_channels: modalities.
        divisor: what the sides that are halved must be multiples of.
        activation: "softmax" where output channels exclude each other, "sigmoid" where each stands alone.

    Raises:
        ValueError: the activation is unknown.
    """

    def __init__(self, in_channels: int, divisor: int, activation: str = "softmax") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}")
        self.in_channels, self.divisor, self.activation = in_channels, divisor, activation

    def logits(self, x: Tensor) -> Tensor:
        """Scores before the activation, of the shape of the probabilities."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities, softmax over axis 1 or a sigmoid of each channel.

        Raises:
            ValueError: the input has another number of axes or channels, or a size that cannot be halved as often as needed.
        """
        scores = self.logits(x)
        return torch.softmax(scores, dim=1) if self.activation == "softmax" else torch.sigmoid(scores)

    def regularised_weights(self) -> list[Tensor]:
        """The weights under weight decay: every convolution's and dense layer's."""
        layers = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
        return [module.weight for module in self.modules() if isinstance(module, layers)]

    def check(self, x: Tensor, halved: Sequence[int]) -> None:
        """Refuse an input that this network cannot take; `halved` are the sizes that it halves."""
        if torch.compiler.is_compiling():
            return
        if x.shape[1] != self.in_channels:
            raise ValueError(f"expected {self.in_channels} channels, got input {tuple(x.shape)}")
        if any(size % self.divisor or not size for size in halved):
            raise ValueError(f"every spatial size must be a multiple of {self.divisor}, got {tuple(halved)}")
