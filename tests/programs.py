"""A small PyTorch network with an auxiliary head, for torch.export and TorchScript. TorchScript reads its source from this file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TwoHeads(nn.Module):
    """(N, 4, D, H, W) to a dictionary or a tuple of logits of 3 regions and an auxiliary head of half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 8, 3, padding=1)
        self.norm = nn.InstanceNorm3d(8, affine=True)
        self.head = nn.Conv3d(8, 3, (1, 3, 5), padding=(0, 1, 2))
        self.auxiliary = nn.Conv3d(8, 3, 2, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.norm(self.conv(x)))
        return self.auxiliary(features), self.head(features)


class Named(nn.Module):
    """The same heads by name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        auxiliary, head = self.network(x)
        return {"auxiliary": auxiliary, "segmentation": head}


class Saves(nn.Module):
    """Writes a file when it is run."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x


class SavesWhenLoaded(nn.Module):
    """Writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.path)

    def forward(self, x: Tensor) -> Tensor:
        return x


def made(cls: Any = TwoHeads, *arguments: Any) -> Any:
    """A seeded network in eval mode."""
    torch.manual_seed(4)
    return cls(*arguments).eval()
