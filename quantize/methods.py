"""The compression methods: one dict, each with what it needs and what consumes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import Artifact, write_artifact
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError
from edge_latup.manifest import Format, Manifest, Parity, Precision, RuntimeName, Step, Storage
from edge_latup.quantize import static_int8, surgery, weights
from edge_latup.quantize.calibration import Calibration, Image
from edge_latup.quantize.surgery.plan import Rewriting, plan_rewrite
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import installed
from edge_latup.segmentation.parity import INPUT, compare, parity_input, prove
from edge_latup.versions import versions_of

Options = dict[str, Any]
Write = Callable[[Path, Path, Sequence[Image], Options], None]
"""(source ONNX file, folder to write into, calibration inputs, options)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one method makes the file of one runtime."""

    write: Write
    format: Format
    runtimes: tuple[RuntimeName, ...]
    packages: tuple[str, ...]
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A compression method; `recipes` has one entry per runtime that can be asked for."""

    summary: str
    precision: Precision
    float_precision: Precision
    storage: Storage
    needs_calibration: bool
    recipes: dict[RuntimeName, Recipe]
    tolerance: dict[str, float] | None = None
    """Parity that the result must keep with its source; None where it is only recorded and the gate judges."""


def _weights_only(store: Callable[..., None]) -> Write:
    def write(source: Path, folder: Path, inputs: Sequence[Image], options: Options) -> None:
        if not weights.rewrite_weights(source, folder / "model.onnx", store):
            raise ArtifactError(f"{source} has no constant float32 weights to store smaller", "is it already compressed?")

    return write


def _rewrite(source: Path, folder: Path, inputs: Sequence[Image], options: Options) -> None:
    surgery.rewrite(source, folder / "model.onnx", options["passes"])


def _openvino_int8(source: Path, folder: Path, inputs: Sequence[Image], options: Options) -> None:
    static_int8.openvino_int8(source, folder, inputs, **options)


def _onnxruntime_int8(source: Path, folder: Path, inputs: Sequence[Image], options: Options) -> None:
    static_int8.onnxruntime_int8(source, folder, inputs)


def _onnxruntime_dynamic(source: Path, folder: Path, inputs: Sequence[Image], options: Options) -> None:
    static_int8.onnxruntime_dynamic(source, folder)


PORTABLE: Final[tuple[RuntimeName, ...]] = ("openvino", "onnxruntime")


def _portable(store: Callable[..., None], runtimes: tuple[RuntimeName, ...]) -> dict[RuntimeName, Recipe]:
    recipe = Recipe(write=_weights_only(store), format="onnx", runtimes=runtimes, packages=("onnx",))
    return dict.fromkeys(runtimes, recipe)


METHODS: Final[dict[str, Method]] = {
    "rewrite": Method(
        summary="exact rewrites: the same function in FP32 with fewer multiplications; other methods may start from it",
        precision="fp32", float_precision="fp32", storage="float32", needs_calibration=False,
        recipes=dict.fromkeys(PORTABLE, Recipe(write=_rewrite, format="onnx", runtimes=PORTABLE, packages=("onnx",))),
        tolerance=surgery.TOLERANCE,
    ),
    "dynamic-range": Method(
        summary="weights int8 per output channel in the file, arithmetic FP32; portable ONNX",
        precision="fp32", float_precision="fp32", storage="int8", needs_calibration=False,
        recipes=_portable(weights.store_int8, PORTABLE),
    ),
    "dynamic-int8": Method(
        summary="ONNX Runtime's dynamic INT8: integer convolutions with ranges found at run time; for size only, slower than FP32",
        precision="int8", float_precision="fp32", storage="int8", needs_calibration=False,
        recipes={
            "onnxruntime": Recipe(write=_onnxruntime_dynamic, format="onnx", runtimes=("onnxruntime",), packages=("onnx", "onnxruntime")),
        },
    ),
    "fp16": Method(
        summary="weights float16 in the file; x86 CPUs compute it in FP32",
        precision="fp32", float_precision="fp32", storage="float16", needs_calibration=False,
        recipes=_portable(weights.store_float16, PORTABLE),
    ),
    "bf16": Method(
        summary="weights bfloat16 in the file, arithmetic BF16",
        precision="bf16", float_precision="bf16", storage="bfloat16", needs_calibration=False,
        recipes=_portable(weights.store_bfloat16, ("openvino",)),
    ),
    "int8": Method(
        summary="static INT8: weights per channel, activations with ranges from calibration cases; norms, attention and softmax stay float",
        precision="int8", float_precision="fp32", storage="int8", needs_calibration=True,
        recipes={
            "openvino": Recipe(write=_openvino_int8, format="openvino-ir", runtimes=("openvino",), packages=("openvino", "nncf"),
                               options={"preset": "mixed"}),
            "onnxruntime": Recipe(write=_onnxruntime_int8, format="onnx", runtimes=("onnxruntime",), packages=("onnx", "onnxruntime")),
        },
    ),
}  # fmt: skip


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
        raise MissingDependencyError(f"{method} for {runtime} needs {', '.join(missing)}", "pip install 'edge-latup[engineer]'")
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


def _check_source(artifact: Artifact) -> None:
    manifest = artifact.manifest
    if manifest.format != "onnx" or manifest.storage != "float32":
        raise ArtifactError(
            f"{artifact.folder} is {manifest.format} with {manifest.storage} weights; compression starts from FP32 ONNX",
            "give the artifact that edge-latup export made",
        )


def quantize(
    artifact: Artifact, method: str, out: Path, *, runtime: RuntimeName = "openvino", calibration: Calibration | None = None,
    keep_float: Sequence[str] = (), float_precision: Precision | None = None, rewriting: Rewriting | None = None, overwrite: bool = False,
) -> Artifact:  # fmt: skip
    """Compress an FP32 ONNX artifact into a new one, smoke-run it where it will run, and record how far its output moved.

    `keep_float` names modules that int8 for OpenVINO leaves in float; `float_precision` is what its float part is computed in;
    `rewriting` says which passes the rewrite tries, those that never add work and unmeasured unless given.

    Raises:
        InputError: unknown method, wrong runtime, calibration missing or needless, or a module that the graph does not have.
        ArtifactError: the source is not an FP32 ONNX artifact, or the result does not load or gives NaN. Nothing is left behind.
        MissingDependencyError: a package is missing.
    """
    chosen, recipe = choose(method, runtime)
    _check_source(artifact)
    check_calibration(method, given=calibration is not None)
    source = artifact.manifest
    options = recipe.options | _mixed(recipe, keep_float, float_precision)
    if recipe.write is _rewrite:
        options |= plan_rewrite(artifact, runtime, rewriting or Rewriting())
    elif rewriting is not None:
        raise InputError(f"{method} rewrites no graph", "leave out --passes, or give --method rewrite")
    parameters = {"method": method, "runtime": runtime, "source_sha256": artifact.digest, **options}
    if calibration is not None:
        parameters["calibration_inputs"] = len(calibration.inputs)
    step = Step(operation="quantize", parameters=parameters, versions=versions_of("edge-latup", *recipe.packages))
    manifest = source.model_copy(
        update={
            "name": out.name, "format": recipe.format, "runtimes": _asked_first(recipe.runtimes, runtime), "precision": chosen.precision,
            "float_precision": float_precision or chosen.float_precision, "storage": chosen.storage, "recipe": (*source.recipe, step),
            "calibration": calibration.cases if calibration is not None else (), "files": (),
        }
    )  # fmt: skip
    inputs = calibration.inputs if calibration is not None else ()
    return write_artifact(
        out, manifest, lambda folder: recipe.write(artifact.model_path, folder, inputs, options),
        examine=lambda draft: _examine(artifact, draft, runtime, chosen.tolerance), overwrite=overwrite,
    )  # fmt: skip


def _mixed(recipe: Recipe, keep_float: Sequence[str], float_precision: Precision | None) -> Options:
    """Options of a recipe that mixes precisions.

    Raises:
        InputError: the recipe cannot, or the float part would be no float.
    """
    if (keep_float or float_precision) and recipe.write is not _openvino_int8:
        raise InputError("only int8 for OpenVINO mixes precisions", "leave out --keep-float and --float-precision, or add --method int8")
    if float_precision == "int8":
        raise InputError("a float part cannot be int8", "use fp32 or bf16")
    return {"keep_float": tuple(keep_float)} if keep_float else {}


def _asked_first(runtimes: tuple[RuntimeName, ...], asked: RuntimeName) -> tuple[RuntimeName, ...]:
    """The runtime that was asked for becomes the artifact's default."""
    return (asked, *(runtime for runtime in runtimes if runtime != asked))


def _examine(reference: Artifact, draft: Artifact, runtime: RuntimeName, tolerance: dict[str, float] | None) -> Manifest:
    """Run the draft once and record its distance from the reference; without a tolerance it is for the gate to judge.

    Raises:
        ArtifactError: the distance breaks the tolerance.
    """
    batch = parity_input(draft.manifest.spec, draft.manifest.spec.spatial.size)
    with open_session(reference, runtime) as session:
        expected = session.infer(batch)
    with open_session(draft, runtime) as session:
        found = session.infer(batch)
    names = (f"{runtime} fp32", f"{runtime} {draft.manifest.name}")
    if tolerance is not None:
        parity = prove(expected, found, names, tolerance)
    else:
        figures = compare(expected, found)
        parity = Parity(reference=names[0], candidate=names[1], input=INPUT, input_shape=tuple(batch.shape), **figures)
    return draft.manifest.model_copy(update={"parity": (*draft.manifest.parity, parity)})
