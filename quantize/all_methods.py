"""Every compression method for every runtime that can be used here, from one calibration set, into one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact
from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.manifest import RuntimeName, Step
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.estimators import MEAN_MIN_MAX
from edge_latup.quantize.methods import excluded, options_of, quantize
from edge_latup.quantize.prepared import Prepared, looker, prepare
from edge_latup.quantize.recipes import METHODS, Recipe
from edge_latup.runtimes import INSTALL, RUNTIMES
from edge_latup.versions import versions_of

ANOTHER: Final = "choose another --out"
WAYS: Final = ("method", "preset", "paired", "operators", "keep_float", "ranges")
"""Parameters of a last step that say how an artifact was made, where its recipe has them."""


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


def tasks(unfit: Container[RuntimeName] = ()) -> list[Task]:
    """Every method for every runtime it makes files for; a file that serves several is made once, for the first that is not unfit."""
    return [task for method in METHODS for task in _tasks(method, unfit)]


def _tasks(method: str, unfit: Container[RuntimeName]) -> Iterator[Task]:
    served: list[list[RuntimeName]] = []
    recipes: list[Recipe] = []
    for runtime, recipe in METHODS[method].recipes.items():
        known = next((index for index, other in enumerate(recipes) if other is recipe), None)
        if known is None:
            recipes.append(recipe)
            served.append([runtime])
        else:
            served[known].append(runtime)
    for index, runtimes in enumerate(served):
        chosen = next((runtime for runtime in runtimes if runtime not in unfit), runtimes[0])
        yield Task(name=method if index == 0 else f"{method}-{runtimes[0]}", method=method, runtime=chosen)


def quantize_all(
    source: Artifact, folder: Path, *, calibration: Calibration | None, progress: Callable[[str], None], only: Sequence[str] = (),
    prepared: Prepared | None = None, options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Attempt]:  # fmt: skip
    """Make every artifact that can be made here; what cannot be made is skipped with the reason.

    Args:
        source: FP32 ONNX artifact.
        folder: gets one artifact folder for each task; one that is there, made of the same source in the same way, is kept.
        calibration: for the methods that need one; None skips them.
        progress: gets a line for each task.
        only: names of tasks; empty for all.
        prepared: what `prepare` made of the source and the calibration; made here where it is needed and not given.
        options: further ones of `quantize`, by the name of the task.

    Raises:
        InputError: `only` names no task, or a folder of that name holds something else.
    """
    known = tasks(excluded(source) | {name for name, one in RUNTIMES.items() if not one.is_available()})
    if unknown := [name for name in only if name not in {task.name for task in known}]:
        raise InputError(f"nothing is called {', '.join(unknown)}", f"choose among: {', '.join(task.name for task in known)}")
    attempts = []
    with ExitStack() as stack:

        @cache
        def looked_at(given: Calibration) -> Prepared:
            if prepared is not None:
                return prepared
            progress("looking at the calibration inputs")
            return stack.enter_context(prepare(source.model_path, given.inputs, outputs=True, tell=progress, runtime=looker(source)))

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
        return Attempt(task=task, artifact=_kept(task, source, out, calibration if needed else None, options), kept=True)
    try:
        if needed and calibration is not None:
            made = quantize(
                source, task.method, out, runtime=task.runtime, calibration=calibration, prepared=looked_at(calibration), **options
            )  # fmt: skip
        else:
            made = quantize(source, task.method, out, runtime=task.runtime, **options)
    except EdgeLatupError as error:  # the other methods may do
        return Attempt(task=task, skipped=_reason(error))
    return Attempt(task=task, artifact=made)


def _reason(error: EdgeLatupError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _kept(task: Task, source: Artifact, out: Path, calibration: Calibration | None, options: Mapping[str, Any]) -> Artifact:
    """The artifact that is there.

    Raises:
        InputError: it was made of another source, under another spec, in another way, or calibrated on other cases or other crops of them.
    """
    artifact = open_artifact(out)
    last = artifact.manifest.recipe[-1] if artifact.manifest.recipe else Step(operation="")
    parameters = last.parameters
    cases, crops = (calibration.cases, len(calibration.inputs)) if calibration is not None else ((), None)
    if parameters.get("source_sha256") != source.digest or artifact.manifest.calibration != cases:
        raise InputError(f"{out} was made of another artifact than {source.folder}, or from other cases", ANOTHER)
    # The same weights mean something else under other labels or another normalisation, which the model file does not hold.
    if artifact.manifest.spec != source.manifest.spec:
        raise InputError(f"{out} was made when {source.folder} had another model spec", ANOTHER)
    if crops is not None and parameters.get("calibration_inputs", crops) != crops:
        raise InputError(f"{out} was calibrated on {parameters['calibration_inputs']} crops, not on {crops}", ANOTHER)
    if task.runtime not in artifact.manifest.runtimes:
        raise InputError(f"{out} was made for {artifact.manifest.runtimes[0]}, not for {task.runtime}", ANOTHER)
    expected = _way(task, calibration is not None, options)
    found = {key: parameters.get(key) for key in WAYS} | {"float_precision": artifact.manifest.float_precision}
    if other := [key for key in found if key in expected and found[key] != expected[key]]:
        told = ", ".join(f"{key} {found[key]}" for key in other)
        raise InputError(f"{out} was made with {told}, not {', '.join(str(expected[key]) for key in other)}", ANOTHER)
    if (versions := versions_of("edge-latup", *METHODS[task.method].recipes[task.runtime].packages)) != last.versions:
        raise InputError(f"{out} was made with {_listed(last.versions)}, not {_listed(versions)}", ANOTHER)
    return artifact


def _way(task: Task, calibrated: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """How an artifact of a task is made, in the words of its last step."""
    method = METHODS[task.method]
    recipe = method.recipes[task.runtime]
    told = options_of(recipe, options.get("keep_float", ()), options.get("float_precision"), options.get("operators"),
        paired=options.get("paired", False),
    )  # fmt: skip
    way = {"method": task.method} | {key: told.get(key) for key in (*recipe.options, "keep_float")}
    if calibrated:
        way["ranges"] = options.get("estimator") or MEAN_MIN_MAX
    plain: dict[str, Any] = json.loads(json.dumps(way))
    return plain | {"float_precision": options.get("float_precision") or method.float_precision}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
