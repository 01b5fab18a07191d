"""`edge-latup export`: a checkpoint to an ONNX artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.options import OutArtifact, Overwrite, parse_size
from edge_latup.cli.output import output
from edge_latup.errors import InputError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder: model.safetensors and spec.json.")],
    out: OutArtifact,
    size: Annotated[str | None, typer.Option(help="Spatial size, such as 128 or 128x128x96; the spec's crop unless given.")] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave the spatial size free.")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="Make the PyTorch reference artifact instead of ONNX.")] = False,
    opset: Annotated[int, typer.Option(min=17, max=20, help="Of ONNX; 17 is the newest for TensorRT 8.5, as on Xavier boards.")] = 20,
    overwrite: Overwrite = False,
) -> None:
    """Export a checkpoint to one-file ONNX and prove that it computes what PyTorch computes."""
    from edge_latup.export.torch_onnx import OPSET, export_onnx, export_reference

    if reference and (dynamic or size is not None or opset != OPSET):
        raise InputError("--reference takes no --size, --dynamic and --opset", "the PyTorch reference has the size of its spec")
    output.note(f"exporting {checkpoint}")
    if reference:
        artifact = export_reference(checkpoint, out, overwrite=overwrite)
    else:
        sizes = None if size is None else parse_size(size, "--size")
        artifact = export_onnx(checkpoint, out, size=sizes, dynamic=dynamic, opset=opset, overwrite=overwrite)
    manifest = artifact.manifest
    shape = "x".join("free" if side < 0 else str(side) for side in manifest.input_shape)
    output.result(manifest.model_dump(mode="json"), f"{out}: {manifest.model_size / 1e6:.2f} MB, input {shape}")
    for parity in manifest.parity:
        output.line(
            f"parity {parity.reference} / {parity.candidate}: max |difference| {parity.max_abs:.2e}, "
            f"relative L2 {parity.relative_l2:.2e}, same class {parity.argmax_agreement:.6f}"
        )
