"""The cost of a PyTorch network, counted from the graph that torch.export traces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from edge_latup.export.layers import Cost, Layer
from edge_latup.export.names import Namer
from edge_latup.runtimes.macs import convolution_macs, dense_macs

if TYPE_CHECKING:
    import torch
    from torch import nn

NO_WORK: Final = ("to", "dropout", "unsqueeze", "reshape")
"""In an FP32 network in eval mode these hand on the tensor they are given."""
FORWARD: Final = ("conv2d", "conv3d")
TRANSPOSED: Final = ("conv_transpose2d", "conv_transpose3d")


def cost_of_network(network: nn.Module, source: str, shape: tuple[int, ...]) -> Cost:
    """Cost of `network` in eval mode for one input of `shape`. Its weights move to the meta device and are lost."""
    import torch

    # On the meta device shapes are computed and nothing else, so 128^3 costs no time and no memory.
    example = torch.empty(shape, device="meta")
    program = torch.export.export(network.eval().to("meta"), (example,), strict=False)
    namer = Namer(network)
    parameters = set(program.graph_signature.inputs_to_parameters)
    produced: dict[torch.fx.Node, str] = {}
    layers = []
    for node in program.graph.nodes:
        if node.op != "call_function" or not hasattr(node.meta["val"], "shape"):
            continue
        inputs = tuple(produced[source] for source in node.all_input_nodes if source in produced)
        if str(node.target).split(".")[1] in NO_WORK:
            produced.update((node, source) for source in inputs[:1])
            continue
        layer = _layer(node, inputs, parameters, namer)
        produced[node] = layer.name
        layers.append(layer)
    return Cost(source=source, input_shape=shape, layers=tuple(layers))


def _layer(node: torch.fx.Node, inputs: tuple[str, ...], parameters: set[str], namer: Namer) -> Layer:
    path, kind = list(node.meta["nn_module_stack"].values())[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    operation = str(node.target).split(".")[1]
    own = [source for source in node.all_input_nodes if source.name in parameters]
    parameters.difference_update(source.name for source in own)  # weights that are read twice are counted once
    return Layer(
        name=namer.name(path, str(node.target)),
        operation=kind.rsplit(".", 1)[-1] if kind.startswith("torch.nn.") else operation,
        inputs=inputs,
        output_shape=tuple(node.meta["val"].shape),
        parameters=sum(math.prod(source.meta["val"].shape) for source in own),
        macs=_macs(operation, node),
    )


def _macs(operation: str, node: torch.fx.Node) -> int:
    """A convolution costs its weights per output voxel, a transposed one per input voxel, a dense layer per row."""
    if operation not in ("linear", *FORWARD, *TRANSPOSED):
        return 0
    read, weight, out = _shape(node.args[0]), _shape(node.args[1]), tuple(node.meta["val"].shape)
    if operation == "linear":
        return dense_macs(out, weight[-1])
    return convolution_macs(out if operation in FORWARD else read, weight)


def _shape(argument: Any) -> tuple[int, ...]:
    return tuple(argument.meta["val"].shape)
