"""The compression methods: one dict, each with what it needs and what consumes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import Artifact, write_artifact
from edge_latup.errors import ArtifactError, InputError, MissingDependencyError
from edge_latup.manifest import Format, Manifest, Parity, Precision, RuntimeName, Step, Storage
from edge_latup.quantize import onnxruntime_int8, static_int8, surgery, tensorrt_float, tensorrt_int8, weights
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.estimators import ESTIMATORS, MEAN_MIN_MAX, slug
from edge_latup.quantize.pace import Tell, silent
from edge_latup.quantize.prepared import Prepared, prepare
from edge_latup.quantize.surgery.plan import Rewriting, plan_rewrite
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import installed
from edge_latup.segmentation.kernels import audit_summary
from edge_latup.segmentation.parity import INPUT, compare, parity_input, prove
from edge_latup.versions import versions_of

Options = dict[str, Any]
Write = Callable[[Path, Path, Prepared | None, Options], None]
"""(source ONNX file, folder to write into, what calibration made of the source where the method needs it, options)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one method makes the file of one runtime."""

    write: Write
    format: Format
    runtimes: tuple[RuntimeName, ...]
    packages: tuple[str, ...]
    options: Options = field(default_factory=dict)
    floats: tuple[Precision, ...] = ()
    """What the float part may be computed in beside int8; none where the recipe does not mix precisions."""


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
    def write(source: Path, folder: Path, prepared: Prepared | None, options: Options) -> None:
        if not weights.rewrite_weights(source, folder / "model.onnx", store):
            raise ArtifactError(f"{source} has no constant float32 weights to store smaller", "is it already compressed?")

    return write


def _rewrite(source: Path, folder: Path, prepared: Prepared | None, options: Options) -> None:
    surgery.rewrite(source, folder / "model.onnx", options["passes"])


def _given(prepared: Prepared | None) -> Prepared:
    """What calibration prepared; `quantize` sees to it that a method which needs it has it."""
    if prepared is None:
        raise InputError("static int8 needs calibration cases", "add --calibration DIR: cases that will not be evaluated on")
    return prepared


def _openvino_int8(source: Path, folder: Path, prepared: Prepared | None, options: Options) -> None:
    static_int8.openvino_int8(folder, _given(prepared), **options)


def _onnxruntime_int8(source: Path, folder: Path, prepared: Prepared | None, options: Options) -> None:
    onnxruntime_int8.onnxruntime_int8(folder, _given(prepared), **options)


def _tensorrt_int8(source: Path, folder: Path, prepared: Prepared | None, options: Options) -> None:
    tensorrt_int8.tensorrt_int8(folder, _given(prepared), **options)


def _tensorrt_float(source: Path, folder: Path, prepared: Prepared | None, options: Options) -> None:
    tensorrt_float.tensorrt_float(source, folder, options["typed"])


def _onnxruntime_dynamic(source: Path, folder: Path, prepared: Prepared | None, options: Options) -> None:
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
                               options={"preset": "mixed"}, floats=("fp32", "bf16", "fp16")),
            "onnxruntime": Recipe(write=_onnxruntime_int8, format="onnx", runtimes=("onnxruntime",), packages=("onnx", "onnxruntime"),
                                  options={"operators": onnxruntime_int8.CONVOLUTIONS_ONLY}),
            "tensorrt": Recipe(write=_tensorrt_int8, format="onnx", runtimes=("tensorrt",), packages=("onnx", "onnxruntime"),
                               options=tensorrt_int8.OPTIONS, floats=("fp32", "fp16")),
        },
    ),
    "typed-fp32": Method(
        summary="FP32 for TensorRT, which builds what the graph's types say",
        precision="fp32", float_precision="fp32", storage="float32", needs_calibration=False,
        recipes={"tensorrt": Recipe(write=_tensorrt_float, format="onnx", runtimes=("tensorrt",), packages=("onnx", "onnxruntime"),
                                    options={"typed": "fp32"})},
    ),
    "typed-fp16": Method(
        summary="FP16 for TensorRT, in the graph's types; norms, softmax and attention stay FP32",
        precision="fp16", float_precision="fp16", storage="float16", needs_calibration=False,
        recipes={"tensorrt": Recipe(write=_tensorrt_float, format="onnx", runtimes=("tensorrt",), packages=("onnx", "onnxruntime"),
                                    options={"typed": "fp16"})},
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
            f"{artifact.folder} is in the format {manifest.format} with {manifest.storage} weights; compression starts from FP32 ONNX",
            "give the artifact that edge-latup export made",
        )


def quantize(
    artifact: Artifact, method: str, out: Path, *, runtime: RuntimeName = "openvino", calibration: Calibration | None = None,
    prepared: Prepared | None = None, keep_float: Sequence[str] = (), float_precision: Precision | None = None,
    rewriting: Rewriting | None = None, estimator: str | None = None, operators: str | None = None, overwrite: bool = False,
    tell: Tell = silent,
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
        overwrite: replace what is at `out`.
        tell: gets a line now and then where inputs are looked at.

    Raises:
        InputError: unknown method, wrong runtime, calibration missing or needless, or a module that the graph does not have.
        ArtifactError: the source is not an FP32 ONNX artifact, or the result does not load or gives NaN. Nothing is left behind.
        MissingDependencyError: a package is missing.
    """
    chosen, recipe = choose(method, runtime)
    check_source(artifact)
    check_calibration(method, given=calibration is not None)
    check_estimator(method, estimator)
    options = recipe.options | _mixed(recipe, keep_float, float_precision) | _operators(recipe, operators)
    if recipe.write is _rewrite:
        options |= plan_rewrite(artifact, runtime, rewriting or Rewriting())
    elif rewriting is not None:
        raise InputError(f"{method} rewrites no graph", "leave out --passes, or give --method rewrite")
    with ExitStack() as stack:
        if calibration is not None and prepared is None:
            prepared = stack.enter_context(
                prepare(
                    artifact.model_path,
                    calibration.inputs,
                    estimator=estimator or MEAN_MIN_MAX,
                    outputs=runtime == "onnxruntime",
                    tell=tell,
                )
            )
        if prepared is not None and estimator is not None:
            prepared = prepared.by(estimator)
        parameters = {"method": method, "runtime": runtime, "source_sha256": artifact.digest, **options, **_looked_at(artifact, prepared)}
        step = Step(operation="quantize", parameters=parameters, versions=versions_of("edge-latup", *recipe.packages))
        manifest = artifact.manifest.model_copy(
            update={
                "name": out.name, "format": recipe.format, "runtimes": _asked_first(recipe.runtimes, runtime), "storage": chosen.storage,
                "precision": chosen.precision, "float_precision": float_precision or chosen.float_precision,
                "recipe": (*artifact.manifest.recipe, step), "calibration": calibration.cases if calibration is not None else (),
                "files": (), "audit": None,
            }
        )  # fmt: skip
        return write_artifact(
            out, manifest, lambda folder: recipe.write(artifact.model_path, folder, prepared, options),
            examine=lambda draft: _examine(artifact, draft, runtime, chosen.tolerance), overwrite=overwrite,
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
    typed = {"float_precision": float_precision} if float_precision and recipe.write is _tensorrt_int8 else {}
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


def _asked_first(runtimes: tuple[RuntimeName, ...], asked: RuntimeName) -> tuple[RuntimeName, ...]:
    """The runtime that was asked for becomes the artifact's default."""
    return (asked, *(runtime for runtime in runtimes if runtime != asked))


def _examine(reference: Artifact, draft: Artifact, runtime: RuntimeName, tolerance: dict[str, float] | None) -> Manifest:
    """Run the draft once and record its distance from the reference and its kernels; without a tolerance it is for the gate to judge.

    Raises:
        ArtifactError: the distance breaks the tolerance.
    """
    if runtime == "tensorrt":
        examine = tensorrt_int8.examine if draft.manifest.precision == "int8" else tensorrt_float.examine
        return examine(reference, draft)
    batch = parity_input(draft.manifest.spec, draft.manifest.spec.spatial.size)
    with open_session(reference, runtime) as session:
        expected = session.infer(batch)
    with open_session(draft, runtime) as session:
        found, audit = session.infer(batch), audit_summary(session)
    names, regions = (f"{runtime} fp32", f"{runtime} {draft.manifest.name}"), draft.manifest.spec.regions is not None
    if tolerance is not None:
        parity = prove(expected, found, names, tolerance, regions=regions)
    else:
        figures = compare(expected, found, regions=regions)
        parity = Parity(reference=names[0], candidate=names[1], input=INPUT, input_shape=tuple(batch.shape), **figures)
    return draft.manifest.model_copy(update={"parity": (*draft.manifest.parity, parity), "audit": audit})
