"""Layers and their cost, whatever they were counted from: the records and the sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from edge_latup.runtimes.base import peak_of_lifetimes
from edge_latup.runtimes.macs import OPENVINO_CONVOLUTIONS

CONVOLUTIONS: Final = ("Conv2d", "Conv3d", "ConvTranspose2d", "ConvTranspose3d", *OPENVINO_CONVOLUTIONS)
"""What PyTorch and OpenVINO call convolutions and transposed convolutions."""
TOTALS: Final = ("parameters", "macs", "convolution_macs", "activation_bytes", "peak_activation_bytes")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operation.

    name: unique in its network. inputs: the layers whose output it reads.
    macs: multiply-accumulates, biases not counted.
    """

    name: str
    operation: str
    inputs: tuple[str, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int

    @property
    def activation_bytes(self) -> int:
        """Size of the output in FP32."""
        return 4 * math.prod(self.output_shape)

    def as_data(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name, "operation": self.operation, "output_shape": list(self.output_shape), "parameters": self.parameters,
            "macs": self.macs, "activation_bytes": self.activation_bytes,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cost:
    """All layers of a network, in execution order."""

    source: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Trained values."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Of all layers, dense ones included."""
        return sum(layer.macs for layer in self.layers)

    @property
    def convolution_macs(self) -> int:
        """Of convolutions and transposed convolutions, the usual count."""
        return sum(layer.macs for layer in self.layers if layer.operation in CONVOLUTIONS)

    @property
    def activation_bytes(self) -> int:
        """Every output once, FP32."""
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def peak_activation_bytes(self) -> int:
        """Most bytes alive at once when layers run in order and a tensor is freed after its last reader."""
        last = {name: index for index, layer in enumerate(self.layers) for name in (layer.name, *layer.inputs)}
        return peak_of_lifetimes((index, last[layer.name], layer.activation_bytes) for index, layer in enumerate(self.layers))

    def as_data(self) -> dict[str, Any]:
        """Plain values for JSON."""
        totals = {name: getattr(self, name) for name in TOTALS}
        layers = [layer.as_data() for layer in self.layers]
        return {"source": self.source, "input_shape": list(self.input_shape), **totals, "layers": layers}
