"""One calibration, one artifact for each runtime: a file made for one runs no INT8 kernel in the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edge_latup.artifact import MANIFEST_NAME, Artifact, refuse_existing
from edge_latup.errors import ArtifactError, EdgeLatupError, InputError
from edge_latup.manifest import Precision, RuntimeName
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.estimators import MEAN_MIN_MAX
from edge_latup.quantize.methods import check_estimator, quantize
from edge_latup.quantize.prepared import looker, prepare
from edge_latup.quantize.recipes import METHODS
from edge_latup.quantize.tensorrt_rules import Finding, check_file


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one runtime's artifact: `made`, or the error why not. `findings` are those of the rules of its runtime."""

    runtime: RuntimeName
    made: Artifact | None = None
    error: EdgeLatupError | None = None
    findings: tuple[Finding, ...] = ()


def folders_of(method: str, out: Path, *, overwrite: bool) -> dict[RuntimeName, Path]:
    """The artifact folder of each runtime that a method makes a file for, inside `out`.

    Raises:
        InputError: there is no such method.
        ArtifactError: `out` is an artifact itself, or one of the folders is taken.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}", f"choose one of: {', '.join(METHODS)}")
    if (out / MANIFEST_NAME).exists():
        raise ArtifactError(f"{out} is an artifact", "choose another --out: a folder to hold an artifact for each runtime")
    folders = {runtime: out / runtime for runtime in METHODS[method].recipes}
    for folder in folders.values():
        refuse_existing(folder, overwrite)
    return folders


def quantize_for_all(
    artifact: Artifact, method: str, out: Path, *, calibration: Calibration | None = None, keep_float: Sequence[str] = (),
    float_precision: Precision | None = None, estimator: str | None = None, overwrite: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Outcome]:  # fmt: skip
    """Make the artifact of every runtime from the same calibration inputs; one that fails leaves the others.

    Raises:
        InputError: there is no such method.
        ArtifactError: something is in the way. Nothing was made.
    """
    folders = folders_of(method, out, overwrite=overwrite)
    check_estimator(method, estimator)
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        prepared = None
        if calibration is not None:
            progress("looking at the calibration inputs")
            prepared = stack.enter_context(
                prepare(
                    artifact.model_path,
                    calibration.inputs,
                    estimator=estimator or MEAN_MIN_MAX,
                    outputs=True,
                    runtime=looker(artifact),
                    tell=progress,
                )
            )
        for runtime, folder in folders.items():
            progress(f"{method} for {runtime}")
            try:
                made = quantize(
                    artifact, method, folder, runtime=runtime, calibration=calibration, prepared=prepared, keep_float=keep_float,
                    float_precision=float_precision, estimator=estimator, overwrite=overwrite,
                )  # fmt: skip
                findings = tuple(check_file(made.model_path)) if runtime == "tensorrt" else ()
                outcomes.append(Outcome(runtime=runtime, made=made, findings=findings))
            except EdgeLatupError as error:
                outcomes.append(Outcome(runtime=runtime, error=error))
    return outcomes
