"""Merges a chain of region networks, each in the house form, into one graph: one image in, one channel a network out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def merge(networks: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """One graph in which every network sees the same image; their channels follow each other. One network is left as it is."""
    import onnx
    from onnx import TensorProto, compose, helper

    if len(networks) == 1:
        return networks[0]
    newest = max(_opset(network) for network in networks)
    parts = [compose.add_prefix(_raised(network, newest), f"network{index + 1}/") for index, network in enumerate(networks)]
    first = parts[0].graph
    image = helper.make_value_info("image", first.input[0].type)
    shape = [side.dim_value if side.HasField("dim_value") else None for side in first.output[0].type.tensor_type.shape.dim]
    shape[1] = len(parts)
    nodes, constants = [], []
    for part in parts:
        nodes.append(helper.make_node("Identity", ["image"], [part.graph.input[0].name], name=f"{part.graph.input[0].name}/same_image"))
        nodes.extend(part.graph.node)
        constants.extend(part.graph.initializer)
    outputs = [part.graph.output[0].name for part in parts]
    nodes.append(helper.make_node("Concat", outputs, ["probabilities"], name="regions", axis=1))
    made = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "chain", [image], [made], constants)
    merged = helper.make_model(graph, opset_imports=parts[0].opset_import, ir_version=max(part.ir_version for part in parts))
    return onnx.shape_inference.infer_shapes(merged)


def _opset(network: onnx.ModelProto) -> int:
    return max(int(entry.version) for entry in network.opset_import if entry.domain in ("", "ai.onnx"))


def _raised(network: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    import onnx

    return network if _opset(network) == opset else onnx.version_converter.convert_version(network, opset)
