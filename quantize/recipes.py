"""What each compression method writes for each runtime: one dict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_latup.errors import ArtifactError, InputError
from edge_latup.manifest import Format, Precision, RuntimeName, Storage
from edge_latup.quantize import onnxruntime_int8, static_int8, surgery, tensorrt_float, tensorrt_int8, weights
from edge_latup.quantize.prepared import Prepared

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
    rewrites: bool = False
    """Whether it rewrites the graph by a plan."""
    types_floats: bool = False
    """Whether the graph's types say what the float part is computed in; else the runtime is told when it opens the file."""


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
        recipes=dict.fromkeys(PORTABLE, Recipe(write=_rewrite, format="onnx", runtimes=PORTABLE, packages=("onnx",), rewrites=True)),
        tolerance=surgery.TOLERANCE,
    ),
    "dynamic-range": Method(
        summary="weights int8 per output channel in the file, arithmetic FP32; portable ONNX",
        precision="fp32", float_precision="fp32", storage="int8", needs_calibration=False,
        recipes=_portable(weights.store_int8, PORTABLE),
    ),
    "dynamic-range-bf16": Method(
        summary="weights int8 per output channel in the file, arithmetic BF16",
        precision="bf16", float_precision="bf16", storage="int8", needs_calibration=False,
        recipes=_portable(weights.store_int8, ("openvino",)),
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
                               options={"preset": "mixed", "paired": False}, floats=("fp32", "bf16", "fp16")),
            "onnxruntime": Recipe(write=_onnxruntime_int8, format="onnx", runtimes=("onnxruntime",), packages=("onnx", "onnxruntime"),
                                  options={"operators": onnxruntime_int8.CONVOLUTIONS_ONLY}),
            "tensorrt": Recipe(write=_tensorrt_int8, format="onnx", runtimes=("tensorrt",), packages=("onnx", "onnxruntime"),
                               options=tensorrt_int8.OPTIONS, floats=("fp32", "fp16"), types_floats=True),
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
