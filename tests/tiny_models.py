"""Tiny artifacts: LATUP-Net of width 8 with random weights, and one-layer ONNX graphs. Their figures mean nothing, their plumbing does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_latup.artifact import Artifact, write_artifact
from edge_latup.manifest import Manifest, RuntimeName, SeenCase, SeenCases
from edge_latup.runtimes.base import Kernel
from edge_latup.spec import CentreCrop, ModelSpec, NetworkSpec, Size

SIDE: Final = 16
CONVOLUTIONS: Final = 18
"""Convolutions of LATUP-Net."""
Compress = Callable[[str, RuntimeName], Artifact]
"""The shared artifact of a method and a runtime, made when it is first asked for."""


def tiny_spec(**changes: Any) -> ModelSpec:
    """The spec of the tiny network."""
    fields: dict[str, Any] = {"name": "tiny", "network": NetworkSpec(width=8), "spatial": CentreCrop(size=(SIDE, SIDE, SIDE))}
    return ModelSpec.model_validate(fields | changes)


def write_checkpoint(folder: Path, trained_on: Sequence[SeenCase] = ()) -> Path:
    """A checkpoint folder with seeded random weights, its output layer sharpened so that every class wins somewhere."""
    import torch

    from edge_latup.networks.build import SEEN_NAME, build, save_checkpoint
    from edge_latup.records import write_record

    spec = tiny_spec()
    assert spec.network is not None
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build(spec.network)
    with torch.no_grad():
        network.output.weight *= 4
    save_checkpoint(folder, network, spec)
    write_record(SeenCases(cases=tuple(trained_on)), folder / SEEN_NAME)
    return folder


def some_batch(seed: int = 0, side: int = SIDE) -> np.ndarray:
    """A network input float32 (1, 3, side, side, side) in [0, 1]."""
    return np.random.default_rng(seed).random((1, 3, side, side, side), dtype=np.float32)


def convolutions(kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels that convolve, whatever the runtime calls them."""
    return [kernel for kernel in kernels if "conv" in kernel.operation.lower() and "convert" not in kernel.operation.lower()]


def graph_of(node: Any, weight: np.ndarray, input_shape: Sequence[int | str], rank: int) -> Any:
    """An ONNX model of one node `y = node(x, w)` with a constant weight and an output of `rank` axes."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [node],
        "one-node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def pointwise_artifact(folder: Path, size: Size | None = None, **changes: Any) -> Artifact:
    """An ONNX artifact of one 1^3 convolution, 3 channels to 4; its spatial size is free unless given."""
    import onnx
    from onnx import helper

    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1, 1)).astype(np.float32)
    shape = (1, 3, *(size or ("d", "h", "w")))
    model = graph_of(helper.make_node("Conv", ["x", "w"], ["y"]), weight, shape, 5)
    fields: dict[str, Any] = {
        "name": folder.name, "spec": tiny_spec(network=None), "format": "onnx", "runtimes": ("openvino", "onnxruntime"),
        "precision": "fp32", "storage": "float32", "input_shape": (1, 3, *(size or (-1, -1, -1))),
    }  # fmt: skip
    return write_artifact(folder, Manifest.model_validate(fields | changes), lambda out: onnx.save(model, out / "model.onnx"))
