"""Constructor arguments of the networks besides LATUP-Net, as they stand in a model spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edge_latup.records import Record

Width = Annotated[int, Field(ge=1)]
OutputActivation = Literal["softmax", "sigmoid"]


class AttentionResnetUnetSpec(Record):
    """Attention-ResNetUNet. The defaults are its literal reading, R1; docs/networks.md has the others."""

    family: Literal["attention-resnet-unet"] = "attention-resnet-unet"
    in_channels: int = Field(4, ge=1)
    out_channels: int = Field(3, ge=1)
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (12, 24, 48, 96)
    bottleneck: Annotated[int, Field(ge=1)] | None = None
    branch_divisor: int = Field(1, ge=1)
    decoder_activation: Literal["none", "relu"] = "none"
    activation: OutputActivation = "softmax"

    @model_validator(mode="after")
    def _consistent(self) -> AttentionResnetUnetSpec:
        if any(width % self.branch_divisor for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of branch_divisor {self.branch_divisor}")
        return self

    @property
    def divisor(self) -> int:
        """Every size is halved once a stage."""
        return int(2 ** len(self.widths))


class ResUnetSpec(Record):
    """Res-UNet, a 2-D network that sees axial slices. The defaults are the network that the published file sizes fit."""

    family: Literal["res-unet"] = "res-unet"
    in_channels: int = Field(3, ge=1)
    out_channels: int = Field(1, ge=1)
    widths: Annotated[tuple[Width, ...], Field(min_length=2)] = (64, 128, 256, 512, 1024)
    attention: Literal["none", "gate", "se", "cbam"] = "none"
    gate_divisor: int = Field(4, ge=1)
    upsample: Literal["nearest", "transposed"] = "nearest"
    activation: OutputActivation = "sigmoid"

    @property
    def divisor(self) -> int:
        """The sides of a slice are halved between levels."""
        return int(2 ** (len(self.widths) - 1))
