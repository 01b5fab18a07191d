"""`edge-latup import`: an ONNX network of any origin to an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.options import Overwrite
from edge_latup.cli.output import output
from edge_latup.errors import InputError


def import_model(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX file; several are a chain, one for each region.")],
    spec: Annotated[Path | None, typer.Option(help="spec.toml: what the network takes and gives.")] = None,
    out: Annotated[Path | None, typer.Option(help="Artifact folder to make.")] = None,
    describe: Annotated[bool, typer.Option("--describe", help="Print what the file holds and a spec.toml to start from.")] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave free the sizes that are free in the file.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Import an ONNX segmentation network, 2-D or 3-D, and prove that the artifact computes what the file computes."""
    if describe:
        _describe(models, given=spec is not None or out is not None)
        return
    if spec is None or out is None:
        if spec is not None:
            raise InputError("an import needs --out", "name the artifact folder to make: --out ARTIFACT")
        raise InputError("an import needs --spec", f"start with one: edge-latup import {models[0]} --describe > spec.toml")
    from edge_latup.export.foreign import UNCHECKED, import_onnx

    output.note(f"importing {', '.join(str(model) for model in models)}")
    artifact = import_onnx(models, spec, out, dynamic=dynamic, overwrite=overwrite)
    manifest = artifact.manifest
    shape = "x".join("free" if side < 0 else str(side) for side in manifest.input_shape)
    output.result(manifest.model_dump(mode="json"), f"{out}: {manifest.model_size / 1e6:.2f} MB, input {shape}")
    for parity in manifest.parity:
        output.line(
            f"parity {parity.reference} / {parity.candidate}: max |difference| {parity.max_abs:.2e}, "
            f"relative L2 {parity.relative_l2:.2e}, same class {parity.argmax_agreement:.6f}"
        )
    for runtime, reason in manifest.recipe[0].parameters["left_out_runtimes"].items():
        output.warning(f"not made for {runtime}: {reason}")
    output.note(UNCHECKED)


def _describe(models: list[Path], *, given: bool) -> None:
    from edge_latup.export.foreign_describe import describe, skeleton, summary
    from edge_latup.export.foreign_model import read_foreign

    if len(models) != 1 or given:
        raise InputError("--describe looks at one file and takes no --spec and no --out", f"edge-latup import {models[0]} --describe")
    model = read_foreign(models[0])
    output.result({**summary(model), "skeleton": skeleton(model)}, describe(model).rstrip("\n"))
