"""A candidate that is broken on purpose: Q/DQ on inputs and weights only, which ONNX Runtime does not fuse, so that no INT8 kernel runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_latup.artifact import Artifact, write_artifact


def unfused_int8(source: Artifact, folder: Path) -> Artifact:
    """An artifact that declares INT8 and holds every convolution of `source` between DequantizeLinear on both operands."""
    import onnx

    model = onnx.load(source.model_path)
    changed: dict[str, Any] = {
        "name": folder.name, "precision": "int8", "storage": "int8", "runtimes": ("onnxruntime", "openvino"), "files": (),
    }  # fmt: skip
    quantize_inputs(model)
    return write_artifact(folder, source.manifest.model_copy(update=changed), lambda out: onnx.save(model, out / "model.onnx"))


def quantize_inputs(model: Any) -> None:
    """Put Q/DQ before every convolution: signed per tensor on what it reads, int8 per channel on its weights; nothing behind it."""
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "Conv":
            own = node.name or node.output[0]
            _add(graph, f"{own}/scale", np.array(0.05, np.float32))
            _add(graph, f"{own}/zero", np.array(0, np.int8))
            scaling = [f"{own}/scale", f"{own}/zero"]
            nodes.append(helper.make_node("QuantizeLinear", [node.input[0], *scaling], [f"{own}/q"], name=f"{own}/Q"))
            nodes.append(helper.make_node("DequantizeLinear", [f"{own}/q", *scaling], [f"{own}/dq"], name=f"{own}/DQ"))
            nodes.append(_dequantized_weights(graph, own, weights[node.input[1]]))
            node.input[0], node.input[1] = f"{own}/dq", nodes[-1].output[0]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _dequantized_weights(graph: Any, own: str, weights: np.ndarray) -> Any:
    from onnx import helper

    scale = np.abs(weights).reshape(len(weights), -1).max(axis=1).astype(np.float32) / 127
    stored = np.round(weights / scale.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.int8)
    for name, array in ((f"{own}/w", stored), (f"{own}/w_scale", scale), (f"{own}/w_zero", np.zeros(len(weights), np.int8))):
        _add(graph, name, array)
    return helper.make_node("DequantizeLinear", [f"{own}/w", f"{own}/w_scale", f"{own}/w_zero"], [f"{own}/w_dq"], name=f"{own}/WDQ", axis=0)


def _add(graph: Any, name: str, array: np.ndarray) -> None:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(array, name))
