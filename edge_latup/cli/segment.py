"""`edge-latup segment`: one case, files to label map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_latup.artifact import open_artifact
from edge_latup.cli.options import Threads, parse_runtime
from edge_latup.cli.output import output
from edge_latup.errors import CaseError, InputError


def segment(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    case: Annotated[Path, typer.Argument(help="Case folder (BraTS names) or 4-D NIfTI file.")],
    out: Annotated[Path, typer.Option(help="Label map to write (.nii.gz), on the case's own grid and in its own numbers.")],
    runtime: Annotated[str | None, typer.Option(help="The artifact's first unless given.")] = None,
    threads: Threads = 0,
) -> None:
    """Segment one case."""
    from edge_latup.cases.layout import find_cases
    from edge_latup.cases.read import read_case
    from edge_latup.cases.write import write_label_map
    from edge_latup.metrics.overlap import region_mask
    from edge_latup.metrics.surface import volume_ml
    from edge_latup.runtimes import open_session
    from edge_latup.runtimes.base import SessionOptions
    from edge_latup.segmentation.engine import segment as run
    from edge_latup.spec import REGIONS

    if not out.name.endswith((".nii.gz", ".nii")):
        raise InputError(f"--out {out} is not a NIfTI name", "end it with .nii.gz")
    found = find_cases(case)
    if len(found) > 1:
        raise CaseError(f"{case} holds {len(found)} cases, this command takes one", f"name one of them, such as {found[0].path}")
    opened = open_artifact(artifact)
    exam = read_case(found[0], opened.manifest.spec.modalities, with_label=False)
    with open_session(opened, None if runtime is None else parse_runtime(runtime), SessionOptions(threads=threads)) as session:
        result = run(session, opened.manifest.spec, exam)
    write_label_map(result.label, exam, out)
    volumes = {region: volume_ml(region_mask(result.label, region), exam.grid.spacing_mm) for region in REGIONS}
    text = ", ".join(f"{region} {volume:.1f} mL" for region, volume in volumes.items())
    output.result({"label_map": str(out), "volumes_ml": volumes, "seconds": result.seconds}, f"{out}: {text}")
