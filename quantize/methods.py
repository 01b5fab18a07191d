"""Compress an artifact by one of the methods, run the result once, and record how far its output moved."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_latup.artifact import Artifact, open_artifact, write_artifact
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError, install_hint
from edge_latup.manifest import Manifest, Parity, Precision, RuntimeName, Step
from edge_latup.quantize import onnxruntime_int8, tensorrt_float, tensorrt_int8
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.estimators import ESTIMATORS, MEAN_MIN_MAX, slug
from edge_latup.quantize.pace import Tell, silent
from edge_latup.quantize.prepared import Prepared, looker, prepare
from edge_latup.quantize.recipes import METHODS, PORTABLE, Method, Options, Recipe
from edge_latup.quantize.surgery.plan import Rewriting, plan_rewrite
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import installed
from edge_latup.segmentation.kernels import audit_summary
from edge_latup.segmentation.parity import INPUT, compare, parity_input, prove
from edge_latup.versions import versions_of


def choose(method: str, runtime: RuntimeName) -> tuple[Method, Recipe]:
    """The method and its recipe for a runtime.

    Raises:
        InputError: there is no such method, or it makes nothing for that runtime.
        MissingDependencyError: a package it needs is not installed.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}", f"choose one of: {', '.join(METHODS)}")
    chosen = METHODS[method]
    if runtime not in chosen.recipes:
        raise InputError(f"{method} makes nothing for {runtime}", f"it makes files for: {', '.join(chosen.recipes)}")
    recipe = chosen.recipes[runtime]
    if missing := [package for package in recipe.packages if not installed(package)]:
        raise MissingDependencyError(f"{method} for {runtime} needs {', '.join(missing)}", install_hint("engineer"))
    return chosen, recipe


def check_calibration(method: str, *, given: bool) -> None:
    """Refuse a method of `METHODS` without the cases it needs, or with cases it would not look at.

    Raises:
        InputError: calibration is missing or needless.
    """
    if METHODS[method].needs_calibration and not given:
        raise InputError(f"{method} needs calibration cases", "add --calibration DIR: cases that will not be evaluated on")
    if given and not METHODS[method].needs_calibration:
        raise InputError(f"{method} looks at no cases", "leave out --calibration")


def check_estimator(method: str, estimator: str | None) -> None:
    """Refuse an estimator that is not known, or that a method of `METHODS` has no use for.

    Raises:
        InputError: it is so.
    """
    if estimator is not None and estimator not in ESTIMATORS:
        raise InputError(f"ranges {estimator!r} are not known", f"choose one of: {', '.join(map(slug, ESTIMATORS))}")
    if estimator is not None and not METHODS[method].needs_calibration:
        raise InputError(f"{method} has no ranges of activations to find", "leave out --ranges, or add --method int8")


def check_source(artifact: Artifact) -> None:
    """Refuse what was compressed already.

    Raises:
        ArtifactError: it is not ONNX with float32 weights.
    """
    manifest = artifact.manifest
    if manifest.format != "onnx" or manifest.storage != "float32":
        raise ArtifactError(
            f"{artifact.folder} is {manifest.format} with {manifest.storage} weights; compression starts from FP32 ONNX",
            "give the artifact that edge-latup export made",
        )


def excluded(artifact: Artifact) -> set[RuntimeName]:
    """Runtimes that its import found to compute something else. What is made of it computes that there too."""
    return set(PORTABLE) - set(artifact.manifest.runtimes)


def _check_runtime(artifact: Artifact, runtime: RuntimeName) -> None:
    if runtime in excluded(artifact):
        raise InputError(
            f"{artifact.folder} is not for {runtime}, which does not compute what it says", f"add --runtime {artifact.manifest.runtimes[0]}"
        )


def quantize(
    artifact: Artifact, method: str, out: Path, *, runtime: RuntimeName = "openvino", calibration: Calibration | None = None,
    prepared: Prepared | None = None, keep_float: Sequence[str] = (), float_precision: Precision | None = None,
    rewriting: Rewriting | None = None, estimator: str | None = None, operators: str | None = None, paired: bool = False,
    overwrite: bool = False, tell: Tell = silent,
) -> Artifact:  # fmt: skip
    """Compress an FP32 ONNX artifact into a new one, smoke-run it where it will run, and record how far its output moved.

    Args:
        artifact: FP32 ONNX artifact.
        method: one of `METHODS`.
        out: folder to make.
        runtime: the runtime that will run it.
        calibration: what a method that needs it looks at.
        prepared: what `prepare` made of this artifact and this calibration; made here where it is not given, which takes minutes.
        keep_float: modules that static int8 leaves in float.
        float_precision: what the float part of static int8 is computed in.
        rewriting: which passes the rewrite tries; those that never add work, unmeasured, unless given.
        estimator: how ranges of activations are found, one of `ESTIMATORS`; as `prepared` did, or the first, unless given.
        operators: which operators static int8 for ONNX Runtime quantizes, one of `OPERATORS`; convolutions unless given.
        paired: whether static int8 for OpenVINO lays two taps of a kernel side by side: for CPUs with AMX, see `paired_taps`.
        overwrite: replace what is at `out`.
        tell: gets a line now and then where inputs are looked at.

    Raises:
        InputError: unknown method, a runtime that it or the source is not for, calibration missing or needless, or a module that the graph
            does not have.
        ArtifactError: the source is not an FP32 ONNX artifact, or the result does not load or gives NaN. Nothing is left behind.
        MissingDependencyError: a package is missing.
    """
    chosen, recipe = choose(method, runtime)
    check_source(artifact)
    _check_runtime(artifact, runtime)
    check_calibration(method, given=calibration is not None)
    check_estimator(method, estimator)
    options = options_of(recipe, keep_float, float_precision, operators, paired=paired)
    if recipe.rewrites:
        options |= plan_rewrite(artifact, runtime, rewriting or Rewriting())
    elif rewriting is not None:
        raise InputError(f"{method} rewrites no graph", "leave out --passes, or give --method rewrite")
    with ExitStack() as stack:
        if calibration is not None and prepared is None:
            prepared = stack.enter_context(
                prepare(
                    artifact.model_path, calibration.inputs, estimator=estimator or MEAN_MIN_MAX, outputs=runtime == "onnxruntime",
                    tell=tell, runtime=looker(artifact),
                )
            )  # fmt: skip
        if prepared is not None and estimator is not None:
            prepared = prepared.by(estimator)
        parameters = {"method": method, "runtime": runtime, "source_sha256": artifact.digest, **options, **_looked_at(artifact, prepared)}
        step = Step(operation="quantize", parameters=parameters, versions=versions_of("edge-latup", *recipe.packages))
        manifest = _manifest(artifact, out.name, chosen, recipe, runtime, step).model_copy(
            update={
                "float_precision": float_precision or chosen.float_precision,
                "calibration": calibration.cases if calibration is not None else (),
            }
        )
        return write_artifact(
            out, manifest, lambda folder: recipe.write(artifact.model_path, folder, prepared, options),
            examine=lambda draft: _examine(artifact, draft, runtime, chosen.tolerance), overwrite=overwrite,
        )  # fmt: skip


def _manifest(source: Artifact, name: str, method: Method, recipe: Recipe, runtime: RuntimeName, step: Step) -> Manifest:
    return source.manifest.model_copy(
        update={
            "name": name, "format": recipe.format, "runtimes": _runtimes(source, recipe, runtime), "storage": method.storage,
            "precision": method.precision, "recipe": (*source.manifest.recipe, step), "files": (), "audit": None,
        }
    )  # fmt: skip


def _looked_at(artifact: Artifact, prepared: Prepared | None) -> Options:
    """What calibration did, for the recipe.

    Raises:
        InputError: it looked at another file.
    """
    if prepared is None:
        return {}
    if prepared.source != artifact.model_path:
        raise InputError(f"{prepared.source} was prepared, not {artifact.model_path}", "prepare the artifact that is quantized")
    return {
        "calibration_inputs": len(prepared.inputs), "ranges": prepared.estimator, "equalised_channels": prepared.equalised_channels,
    }  # fmt: skip


def options_of(
    recipe: Recipe, keep_float: Sequence[str], float_precision: Precision | None, operators: str | None, *, paired: bool = False
) -> Options:  # fmt: skip
    """What the recipe is given, as an artifact's last step tells it.

    Raises:
        InputError: the recipe has no such option or not that value of it.
    """
    if paired and "paired" not in recipe.options:
        raise InputError("only int8 for OpenVINO pairs taps", "leave out --pair-taps, or add --method int8 --runtime openvino")
    return (
        recipe.options | _mixed(recipe, keep_float, float_precision) | _operators(recipe, operators) | ({"paired": True} if paired else {})
    )


def _mixed(recipe: Recipe, keep_float: Sequence[str], float_precision: Precision | None) -> Options:
    """Options of a recipe that mixes precisions.

    Raises:
        InputError: the recipe cannot, or not with that float part.
    """
    if (keep_float or float_precision) and not recipe.floats:
        raise InputError(
            "only int8 for OpenVINO and TensorRT mixes precisions", "leave out --keep-float and --float-precision, or add --method int8"
        )
    if float_precision == "int8":
        raise InputError("a float part cannot be int8", "use fp32 or bf16")
    if float_precision is not None and float_precision not in recipe.floats:
        raise InputError(
            f"the float part of int8 for {recipe.runtimes[0]} cannot be {float_precision}", f"use {' or '.join(recipe.floats)}"
        )
    # OpenVINO computes the float part in what it is told when it opens the file; TensorRT in what the graph's types say.
    typed = {"float_precision": float_precision} if float_precision and recipe.types_floats else {}
    return typed | ({"keep_float": tuple(keep_float)} if keep_float else {})


def _operators(recipe: Recipe, operators: str | None) -> Options:
    """The set of operators to quantize, where it was named.

    Raises:
        InputError: it is unknown, or the recipe has no choice.
    """
    if operators is None:
        return {}
    if "operators" not in recipe.options:
        raise InputError("only int8 for ONNX Runtime chooses operators", "leave out --operators, or add --runtime onnxruntime")
    onnxruntime_int8.check_operators(operators)
    return {"operators": operators}


def _runtimes(source: Artifact, recipe: Recipe, asked: RuntimeName) -> tuple[RuntimeName, ...]:
    """The runtime that was asked for becomes the artifact's default; one that the source is not for is none of its result's."""
    return (asked, *(runtime for runtime in recipe.runtimes if runtime != asked and runtime not in excluded(source)))


@lru_cache(maxsize=1)
def _expected(folder: Path, digest: str, runtime: RuntimeName) -> NDArray[np.float32]:
    """The reference's output of the parity input, kept because one process often makes several artifacts of one reference."""
    reference = open_artifact(folder)
    spec = reference.manifest.spec
    with open_session(reference, runtime) as session:
        output: NDArray[np.float32] = session.infer(parity_input(spec, spec.spatial.size))
    output.flags.writeable = False
    return output


def _examine(reference: Artifact, draft: Artifact, runtime: RuntimeName, tolerance: dict[str, float] | None) -> Manifest:
    """Run the draft once and record its distance from the reference and its kernels; without a tolerance it is for the gate to judge.

    Raises:
        ArtifactError: the distance breaks the tolerance.
    """
    if runtime == "tensorrt":
        examine = tensorrt_int8.examine if draft.manifest.precision == "int8" else tensorrt_float.examine
        return examine(reference, draft)
    batch = parity_input(draft.manifest.spec, draft.manifest.spec.spatial.size)
    expected = _expected(reference.folder, reference.digest, runtime)
    with open_session(draft, runtime) as session:
        found, audit = session.infer(batch), audit_summary(session)
    names, regions = (f"{runtime} fp32", f"{runtime} {draft.manifest.name}"), draft.manifest.spec.regions is not None
    if tolerance is not None:
        parity = prove(expected, found, names, tolerance, input_shape=batch.shape, regions=regions)
    else:
        figures = compare(expected, found, regions=regions)
        parity = Parity(reference=names[0], candidate=names[1], input=INPUT, input_shape=tuple(batch.shape), **figures)
    return draft.manifest.model_copy(update={"parity": (*draft.manifest.parity, parity), "audit": audit})
