"""What calibration inputs do to the tensors inside a network, measured in the graph itself: only the figures leave it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_latup.quantize.calibration import Image
from edge_latup.runtimes.openvino import import_openvino

if TYPE_CHECKING:
    import openvino as ov


def channel_peaks(model: Path, tensors: Sequence[str], inputs: Sequence[Image]) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of each channel of some tensors over all inputs, computed by OpenVINO in FP32.

    Args:
        model: float32 ONNX file.
        tensors: names of tensors (N, C, ...) inside it.
        inputs: float32 (1, C, D, H, W) each.

    Returns:
        float32 (C,) for each tensor.
    """
    openvino = import_openvino()
    core = openvino.Core()
    network = core.read_model(model)
    _watch(network, tensors)
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32})
    peaks = {name: np.zeros(0, np.float32) for name in tensors}
    for image in inputs:
        found = compiled([image])
        for name in tensors:
            peak = found[f"{name}/peak"].ravel()
            peaks[name] = np.maximum(peaks[name], peak) if peaks[name].size else peak.copy()
    return peaks


def _watch(network: ov.Model, tensors: Sequence[str]) -> None:
    """Add an output `NAME/peak` for every tensor: the largest magnitude over all axes but the channels'."""
    from openvino import opset13 as ops

    ports = {name: port for node in network.get_ordered_ops() for port in node.outputs() for name in port.get_names()}
    made = []
    for name in tensors:
        port = ports[name]
        axes = [axis for axis in range(port.get_partial_shape().rank.get_length()) if axis != 1]
        over = ops.constant(axes, np.int64)
        # Not the maximum of the magnitudes: that would be another tensor as large as this one.
        peak = ops.maximum(ops.reduce_max(port, over, keep_dims=False), ops.negative(ops.reduce_min(port, over, keep_dims=False)))
        peak.output(0).set_names({f"{name}/peak"})
        made.append(peak.output(0))
    network.add_outputs(made)
