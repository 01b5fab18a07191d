"""`edge-latup inspect`: parameters, operations and activation memory, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.options import parse_size
from edge_latup.cli.output import output


def inspect(
    model: Annotated[Path, typer.Argument(help="Artifact or checkpoint folder.")],
    size: Annotated[str | None, typer.Option(help="Spatial size, such as 64; the model's own unless given. Not for fixed-size artifacts.")] = None,
) -> None:
    """Print parameters, multiply-accumulates and activation memory of every layer, computed from the graph, beside the published figures."""
    from edge_latup.export.cost import cost_of
    from edge_latup.export.published import remarks

    cost = cost_of(model, None if size is None else parse_size(size, "--size"))
    rows = [
        [layer.name, layer.operation, "x".join(map(str, layer.output_shape)), f"{layer.parameters:,}", f"{layer.macs:,}", f"{layer.activation_bytes / 2**20:.1f}"]
        for layer in cost.layers
    ]
    output.table(f"{cost.source}, input {'x'.join(map(str, cost.input_shape))}", ["layer", "operation", "output", "parameters", "MAC", "activation MiB"], rows, left=3)
    output.line(f"parameters: {cost.parameters:,}")
    output.line(f"convolution MAC: {cost.convolution_macs:,} = {2 * cost.convolution_macs / 1e9:,.2f} GFLOP (2 FLOP a MAC); with the dense layers {cost.macs:,}")
    output.line(f"activations: {cost.activation_bytes / 2**20:,.0f} MiB written in all, at least {cost.peak_activation_bytes / 2**20:,.0f} MiB alive at once (FP32)")
    for remark in (told := remarks(cost)):
        output.line(remark)
    output.result({**cost.as_data(), "remarks": told})
