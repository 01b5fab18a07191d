"""`edge-latup segment`: one case, files to label map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_latup.artifact import open_artifact
from edge_latup.cli.options import Threads, parse_runtime
from edge_latup.cli.output import output
from edge_latup.errors import CaseError, InputError

if TYPE_CHECKING:
    from edge_latup.cases.layout import CaseFiles


def _one_case(path: Path) -> CaseFiles:
    from edge_latup.cases.layout import find_cases

    found = find_cases(path)
    if len(found) > 1:
        raise CaseError(f"{path} holds {len(found)} cases, this command takes one", f"name one of them, such as {found[0].path}")
    return found[0]


def _check_out(out: Path, files: CaseFiles) -> None:
    """Refuse what cannot be written, or would replace the exam, before the minutes of inference."""
    if not out.name.endswith((".nii.gz", ".nii")):
        raise InputError(f"--out {out} is not a NIfTI name", "end it with .nii.gz")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist", "make it, or choose another --out")
    sources = [*(source.path for source in files.images.values()), *([files.label] if files.label else [])]
    if any(out.resolve() == source.resolve() for source in sources):
        raise InputError(f"--out {out} is a file of the case itself", "choose another name: a case is never written over")


def segment(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    case: Annotated[Path, typer.Argument(help="Case folder (BraTS names) or 4-D NIfTI file.")],
    out: Annotated[Path, typer.Option(help="Label map to write (.nii.gz), on the case's own grid and in its own numbers.")],
    runtime: Annotated[str | None, typer.Option(help="The artifact's first unless given.")] = None,
    threads: Threads = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps compiled models from run to run (OpenVINO only).")] = None,
) -> None:
    """Segment one case."""
    from edge_latup.cases.read import read_case
    from edge_latup.cases.write import write_label_map
    from edge_latup.metrics.overlap import region_mask
    from edge_latup.metrics.surface import volume_ml
    from edge_latup.runtimes import choose_runtime, open_session
    from edge_latup.runtimes.base import SessionOptions
    from edge_latup.segmentation.engine import segment as run
    from edge_latup.spec import REGIONS

    files = _one_case(case)
    _check_out(out, files)
    opened = open_artifact(artifact)
    chosen = choose_runtime(opened, None if runtime is None else parse_runtime(runtime))
    # A label beside the images is read for its convention alone: the label map is written in the same numbers.
    exam = read_case(files, opened.manifest.spec.modalities)
    with open_session(opened, chosen, SessionOptions(threads=threads, cache_dir=cache)) as session:
        result = run(session, opened.manifest.spec, exam)
    write_label_map(result.label, exam, out)
    volumes = {region: volume_ml(region_mask(result.label, region), exam.grid.spacing_mm) for region in REGIONS}
    text = ", ".join(f"{region} {volume:.1f} mL" for region, volume in volumes.items())
    output.result({"label_map": str(out), "volumes_ml": volumes, "seconds": result.seconds}, f"{out}: {text}")
