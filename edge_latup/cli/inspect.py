"""`edge-latup inspect`: parameters, operations and activation memory, layer by layer; or the kernels that execute them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge_latup.cli.options import parse_size
from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.export.layers import Cost, Layer

COLUMNS: Final = ("layer", "operation", "output", "parameters", "MAC", "activation MiB")


def inspect(
    model: Annotated[Path | None, typer.Argument(help="Artifact or checkpoint folder.", show_default=False)] = None,
    size: Annotated[
        str | None, typer.Option(help="Spatial size, such as 64; the model's own unless given. Not for fixed-size artifacts.")
    ] = None,
    audit: Annotated[bool, typer.Option("--audit", help="Instead, open an artifact and print which kernel executes each layer.")] = False,
    runtime: Annotated[str | None, typer.Option(help="With --audit: the runtime; the artifact's first unless given.")] = None,
    provider: Annotated[str | None, typer.Option(help="With --audit on onnxruntime: cpu, cuda or tensorrt.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="With --audit: run it a few times and share out the time.")] = False,
    threads: Annotated[int, typer.Option(min=0, help="With --audit: CPU threads; 0 uses every core this process may use.")] = 0,
    rules: Annotated[str | None, typer.Option(help="Instead, check an ONNX file or artifact against a runtime's rules: tensorrt.")] = None,
    dla: Annotated[bool, typer.Option("--dla", help="With --rules: ask also whether a Deep Learning Accelerator could run it.")] = False,
    network: Annotated[str | None, typer.Option(help="Instead of a folder: a network of `edge-latup networks`, untrained.")] = None,
    target: Annotated[str | None, typer.Option(help="With --rules: also whether this target's TensorRT would take it.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="With --target: what the engine is to compute in, such as int8; the file's own unless given.")
    ] = None,
) -> None:
    """Print parameters, multiply-accumulates and activation memory of every layer, counted from the graph, and the published figures."""
    if network is not None:
        if model is not None or audit or rules is not None or runtime or provider or profile or threads or dla or target or precision:
            raise InputError("--network takes the place of a folder, and goes with --size alone", "leave out the others")
        from edge_latup.export.cost import cost_of_known

        _show(cost_of_known(network, None if size is None else parse_size(size, "--size")))
        return
    if model is None:
        raise InputError("no model given", "name an artifact or checkpoint folder, or a network: --network latup-net")
    if rules is None and (dla or target is not None or precision is not None):
        raise InputError("--dla, --target and --precision are for --rules", "add --rules tensorrt")
    if rules is not None and (audit or size is not None):
        raise InputError("--rules does not take --audit and --size", "ask one thing at a time")
    if audit:
        from edge_latup.cli.audit import show_audit

        show_audit(model, size, runtime, threads=threads, profile=profile, provider=provider)
        return
    if runtime is not None or provider is not None or profile or threads:
        raise InputError("--runtime, --provider, --profile and --threads are for --audit", "add --audit")
    if rules is not None:
        from edge_latup.cli.rules import show_rules

        show_rules(model, rules, dla=dla, target=target, precision=precision)
        return
    from edge_latup.export.cost import cost_of

    _show(cost_of(model, None if size is None else parse_size(size, "--size")))


def _show(cost: Cost) -> None:
    from edge_latup.export.published import remarks

    told = remarks(cost)
    output.table(f"{cost.source}, input {_times(cost.input_shape)}", COLUMNS, [_row(layer) for layer in cost.layers], left=3)
    for line in (*_totals(cost), *told):
        output.line(line)
    output.result({**cost.as_data(), "remarks": told})


def _row(layer: Layer) -> list[str]:
    memory = f"{layer.activation_bytes / 2**20:.1f}"
    return [layer.name, layer.operation, _times(layer.output_shape), f"{layer.parameters:,}", f"{layer.macs:,}", memory]


def _totals(cost: Cost) -> list[str]:
    written, alive = (f"{count / 2**20:,.0f} MiB" for count in (cost.activation_bytes, cost.peak_activation_bytes))
    gflop = f"{2 * cost.convolution_macs / 1e9:,.2f} GFLOP"
    return [
        f"parameters: {cost.parameters:,}",
        f"convolution MAC: {cost.convolution_macs:,} = {gflop} (2 FLOP a MAC); with the dense layers {cost.macs:,}",
        f"activations in FP32: {written} written in all, {alive} alive at once where each is freed after its last reader",
    ]


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
