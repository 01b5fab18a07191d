"""Every compression method for every runtime that can be used here, from one calibration set, into one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact
from edge_latup.errors import ArtifactError, EdgeLatupError, InputError, MissingDependencyError
from edge_latup.manifest import RuntimeName
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.prepared import Prepared, prepare
from edge_latup.quantize.recipes import METHODS, Recipe
from edge_latup.runtimes import INSTALL, RUNTIMES


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file to make: a method for a runtime. `name`: of the folder."""

    name: str
    method: str
    runtime: RuntimeName


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What became of a task: an artifact, or the reason why there is none. `kept`: it was there already, made of the same source."""

    task: Task
    artifact: Artifact | None = None
    skipped: str = ""
    kept: bool = False


def tasks() -> list[Task]:
    """Every method for every runtime it makes files for; a file that serves several runtimes is made once."""
    return [task for method in METHODS for task in _tasks(method)]


def _tasks(method: str) -> Iterator[Task]:
    recipes: list[tuple[RuntimeName, Recipe]] = []
    for runtime, recipe in METHODS[method].recipes.items():
        if all(recipe is not other for _, other in recipes):
            recipes.append((runtime, recipe))
    for index, (runtime, _) in enumerate(recipes):
        yield Task(name=method if index == 0 else f"{method}-{runtime}", method=method, runtime=runtime)


def quantize_all(
    source: Artifact, folder: Path, *, calibration: Calibration | None, progress: Callable[[str], None], only: Sequence[str] = (),
    prepared: Prepared | None = None, options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Attempt]:  # fmt: skip
    """Make every artifact that can be made here; what cannot be made is skipped with the reason.

    Args:
        source: FP32 ONNX artifact.
        folder: gets one artifact folder for each task; one that is there, of the same source and calibration, is kept.
        calibration: for the methods that need one; None skips them.
        progress: gets a line for each task.
        only: names of tasks; empty for all.
        prepared: what `prepare` made of the source and the calibration; made here where it is needed and not given.
        options: further ones of `quantize`, by the name of the task.

    Raises:
        InputError: `only` names no task, or a folder of that name holds something else.
    """
    known = tasks()
    if unknown := [name for name in only if name not in {task.name for task in known}]:
        raise InputError(f"nothing is called {', '.join(unknown)}", f"choose among: {', '.join(task.name for task in known)}")
    attempts = []
    with ExitStack() as stack:

        @cache
        def looked_at(given: Calibration) -> Prepared:
            if prepared is not None:
                return prepared
            progress("looking at the calibration inputs")
            return stack.enter_context(prepare(source.model_path, given.inputs, outputs=True, tell=progress))

        for task in (task for task in known if not only or task.name in only):
            progress(f"{task.name}: {METHODS[task.method].summary}")
            further = (options or {}).get(task.name, {})
            attempts.append(_attempt(task, source, folder / task.name, calibration, looked_at, further))
            if attempts[-1].skipped:
                progress(f"{task.name} skipped: {attempts[-1].skipped}")
    return attempts


def _attempt(
    task: Task, source: Artifact, out: Path, calibration: Calibration | None, looked_at: Callable[[Calibration], Prepared],
    options: Mapping[str, Any],
) -> Attempt:  # fmt: skip
    needed = METHODS[task.method].needs_calibration
    if not RUNTIMES[task.runtime].is_available():
        return Attempt(task=task, skipped=f"{task.runtime} is not installed: {INSTALL[task.runtime]}")
    if needed and calibration is None:
        return Attempt(task=task, skipped="it needs calibration cases")
    if (out / MANIFEST_NAME).exists():
        return Attempt(task=task, artifact=_kept(source, out, calibration if needed else None), kept=True)
    try:
        if needed and calibration is not None:
            made = quantize(
                source, task.method, out, runtime=task.runtime, calibration=calibration, prepared=looked_at(calibration), **options
            )  # fmt: skip
        else:
            made = quantize(source, task.method, out, runtime=task.runtime, **options)
    except (ArtifactError, MissingDependencyError) as error:
        return Attempt(task=task, skipped=_reason(error))
    return Attempt(task=task, artifact=made)


def _reason(error: EdgeLatupError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _kept(source: Artifact, out: Path, calibration: Calibration | None) -> Artifact:
    """The artifact that is there.

    Raises:
        InputError: it was made of another source, under another spec, or calibrated on other cases or other crops of them.
    """
    artifact = open_artifact(out)
    parameters = artifact.manifest.recipe[-1].parameters if artifact.manifest.recipe else {}
    cases, crops = (calibration.cases, len(calibration.inputs)) if calibration is not None else ((), None)
    if parameters.get("source_sha256") != source.digest or artifact.manifest.calibration != cases:
        raise InputError(f"{out} was made of another artifact than {source.folder}, or from other cases", "choose another --out")
    # The same weights mean something else under other labels or another normalisation, which the model file does not hold.
    if artifact.manifest.spec != source.manifest.spec:
        raise InputError(f"{out} was made when {source.folder} had another model spec", "choose another --out")
    if crops is not None and parameters.get("calibration_inputs", crops) != crops:
        raise InputError(f"{out} was calibrated on {parameters['calibration_inputs']} crops, not on {crops}", "choose another --out")
    return artifact
