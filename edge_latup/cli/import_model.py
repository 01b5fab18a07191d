"""`edge-latup import`: a network of any origin to an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_latup.cli.options import Overwrite
from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.artifact import Artifact

MODEL = "ONNX file, Keras weights, nnU-Net folder, MONAI bundle, .pt2 or TorchScript; several ONNX files are a chain, one for each region."


def import_model(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help=MODEL)],
    spec: Annotated[Path | None, typer.Option(help="spec.toml: what the network takes and gives, where the model does not tell.")] = None,
    out: Annotated[Path | None, typer.Option(help="Artifact folder to make.")] = None,
    describe: Annotated[bool, typer.Option("--describe", help="Print what the model holds and a spec.toml to start from.")] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave free the sizes that are free in the file.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Of Keras weights: keep the checkpoint folder that is made of them.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Import a segmentation network, 2-D or 3-D, and prove that the artifact computes what it computes."""
    from edge_latup.export.adapters.road import import_any
    from edge_latup.export.foreign import UNCHECKED

    if describe:
        others = {"--spec": spec is not None, "--out": out is not None, "--dynamic": dynamic, "--checkpoint": checkpoint is not None}
        _describe(models, [option for option, given in (others | {"--overwrite": overwrite}).items() if given])
        return
    if out is None:
        if spec is not None:
            raise InputError("an import needs --out", "name the artifact folder to make: --out ARTIFACT")
        hint = f"start with one: edge-latup import {models[0]} --describe > spec.toml"
        raise InputError("an import needs --out, and --spec where the model does not tell how it is fed", hint)
    artifact = import_any(models, out, spec=spec, dynamic=dynamic, checkpoint=checkpoint, overwrite=overwrite, note=output.note)
    _tell(artifact)
    output.note(UNCHECKED)


def _tell(artifact: Artifact) -> None:
    manifest = artifact.manifest
    shape = "x".join("free" if side < 0 else str(side) for side in manifest.input_shape)
    output.result(manifest.model_dump(mode="json"), f"{artifact.folder}: {manifest.model_size / 1e6:.2f} MB, input {shape}")
    for parity in manifest.parity:
        output.line(
            f"parity {parity.reference} / {parity.candidate}: max |difference| {parity.max_abs:.2e}, "
            f"relative L2 {parity.relative_l2:.2e}, same class {parity.argmax_agreement:.6f}"
        )
    for step in manifest.recipe:
        for runtime, reason in step.parameters.get("left_out_runtimes", {}).items():
            output.warning(f"not made for {runtime}: {reason}")


def _describe(models: list[Path], given: list[str]) -> None:
    from edge_latup.export.adapters.road import describe_any

    if len(models) != 1 or given:
        told = f" and takes no {', '.join(given)}" if given else ""
        raise InputError(f"--describe looks at one model{told}", f"edge-latup import {models[0]} --describe")
    value, text = describe_any(models[0])
    output.result(value, text.rstrip("\n"))
