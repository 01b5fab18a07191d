"""`edge-latup phantom`: write seeded synthetic cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_latup.cli.options import parse_size
from edge_latup.cli.output import output


def phantom(
    out: Annotated[Path, typer.Option(help="Folder to write the cases to; made if missing.")],
    cases: Annotated[int, typer.Option(help="How many. Of every eight, one has no tumour and one no enhancing tumour.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same voxels.")] = 0,
    shape: Annotated[str, typer.Option(help="Voxels, x, y, z; the head is scaled to fill it.")] = "240x240x155",
) -> None:
    """Write seeded synthetic brain-tumour cases, named as BraTS 2023 does. They are not patients."""
    from edge_latup.cases.cohort import write_cohort
    from edge_latup.runtimes.base import usable_cores

    sizes = parse_size(shape, "--shape")
    written = []
    with output.progress("phantoms", cases) as ticker:
        for case in write_cohort(out, cases=cases, seed=seed, shape=sizes, workers=usable_cores()):
            written.append(str(case.folder))
            ticker.update(len(written), case.name)
    output.result({"cases": written}, f"{len(written)} cases in {out}")
