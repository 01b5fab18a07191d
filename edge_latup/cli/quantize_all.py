"""`edge-latup quantize --all`: every artifact that can be made here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.quantize.all_methods import Attempt


def quantize_every(artifact: Path, out: Path, calibration: Sequence[Path], crops_per_case: int, others: dict[str, bool]) -> None:
    """Make them and print what was made and what was skipped; `others` are options that --all does not take.

    Raises:
        InputError: one of these was given.
    """
    from edge_latup.artifact import open_artifact
    from edge_latup.quantize.all_methods import quantize_all
    from edge_latup.quantize.calibration import make_calibration

    if given := [option for option, is_given in others.items() if is_given]:
        raise InputError(f"--all does not take {', '.join(given)}", "leave it out, or name one --method")
    source = open_artifact(artifact)
    inputs = make_calibration(calibration, source.manifest.spec, crops_per_case=crops_per_case) if calibration else None
    attempts = quantize_all(source, out, calibration=inputs, progress=output.note)
    made = [(attempt.task.name, attempt.artifact) for attempt in attempts if attempt.artifact is not None]
    skipped = {attempt.task.name: attempt.skipped for attempt in attempts if attempt.skipped}
    rows = [_row(attempt, source.manifest.model_size) for attempt in attempts]
    output.table(f"Made of {artifact}", ("artifact", "runtimes", "MB", "of FP32", ""), rows, left=2)
    output.result({"made": {name: str(one.folder) for name, one in made}, "skipped": skipped}, f"{len(made)} artifacts in {out}")


def _row(attempt: Attempt, source_bytes: int) -> tuple[str, ...]:
    if attempt.artifact is None:
        return attempt.task.name, attempt.task.runtime, "", "", f"skipped: {attempt.skipped}"
    manifest = attempt.artifact.manifest
    share = f"{100 * manifest.model_size / source_bytes:.1f} %"
    return attempt.task.name, ", ".join(manifest.runtimes), f"{manifest.model_size / 1e6:.2f}", share, "kept" if attempt.kept else ""
