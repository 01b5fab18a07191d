"""The TensorRT file: planned, calibrated, quantized explicitly, checked against the rules, and its numerics simulated in float.

Nothing here was executed in TensorRT. What is measured is called reference numerics: ONNX Runtime computes each Q/DQ node as it
stands, in float, with its optimiser off, so what is seen is the rounding that TensorRT's kernels were told to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError
from edge_latup.manifest import Manifest, Parity
from edge_latup.quantize.explicit_qdq import MIN_CHANNELS, insert_qdq, plan_int8
from edge_latup.quantize.onnx_graph import opset_of
from edge_latup.quantize.prepared import Prepared
from edge_latup.quantize.tensorrt_checks import FLOAT_OPERATIONS, HALF_SCALES_OPSET
from edge_latup.quantize.tensorrt_rules import check_file, refuse_errors
from edge_latup.segmentation.parity import INPUT, compare, parity_input

if TYPE_CHECKING:
    import onnx

OPTIONS: Final[dict[str, Any]] = {"min_channels": MIN_CHANNELS, "transposed_scales": "tensor"}
SIMULATED: Final = "reference numerics: Q/DQ simulated in float, not executed in TensorRT"


def tensorrt_int8(
    folder: Path, prepared: Prepared, *, min_channels: int, transposed_scales: str, keep_float: Sequence[str] = (),
    float_precision: str = "fp32",
) -> None:  # fmt: skip
    """Write model.onnx, explicitly quantized; refuse it where it breaks a rule.

    Args:
        folder: where model.onnx goes.
        prepared: FP32 ONNX file with the ranges of its activations.
        min_channels: convolutions with fewer on one side stay float.
        transposed_scales: see `insert_qdq`.
        keep_float: modules that stay float.
        float_precision: "fp32" or "fp16", the type of the float part in the graph: TensorRT 11 only builds what is typed so.

    Raises:
        ArtifactError: there is nothing to quantize, or the result breaks a rule of `tensorrt_rules`.
        InputError: an option is unknown, or calibration met NaN.
    """
    import onnx

    model = onnx.load(prepared.path, load_external_data=False)
    plan = plan_int8(model.graph, keep_float=keep_float, min_channels=min_channels)
    insert_qdq(model, plan, prepared.ranges_of(plan.tensors), transposed_scales=transposed_scales)
    if float_precision == "fp16":
        model = type_float16(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    refuse_errors(check_file(folder / "model.onnx"), "the quantized graph")


def type_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float part, scales among it, as FP16; input, output, norms, softmax and attention stay FP32 behind casts.

    Norms overflow in FP16 (NVIDIA/TensorRT#2691, #1408).

    Raises:
        ArtifactError: the operator set has no FP16 scales.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    if opset_of(model) < HALF_SCALES_OPSET:
        raise ArtifactError(
            f"FP16 scales need opset {HALF_SCALES_OPSET}, the file has {opset_of(model)}", "export it at opset 20, or use fp32"
        )
    kept = [*DEFAULT_OP_BLOCK_LIST, *FLOAT_OPERATIONS]
    typed: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, op_block_list=kept)
    OnnxModel.graph_topological_sort(typed.graph)  # the converter appends its casts
    return typed


def simulate(path: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first output of an ONNX file computed node by node as it stands: no fusion, so Q/DQ rounds and all else is float.

    Raises:
        ArtifactError: ONNX Runtime cannot load or run the file.
    """
    return simulator(path)(batch)


def simulator(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """`simulate` with the file loaded once.

    Raises:
        ArtifactError: ONNX Runtime cannot load the file, or later run it.
    """
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    with _simulating(path):
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with _simulating(path):
            output: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: batch})[0]
        return output

    return run


@contextmanager
def _simulating(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        reason = str(error).strip().partition("\n")[0]
        raise ArtifactError(f"ONNX Runtime cannot simulate {path}: {reason}", "make the artifact again") from error


def examine(reference: Artifact, draft: Artifact) -> Manifest:
    """Record the reference numerics of a draft, what was left in float and why, and which rules warn."""
    batch = parity_input(draft.manifest.spec, draft.manifest.spec.spatial.size)
    regions = draft.manifest.spec.regions is not None
    figures = compare(simulate(reference.model_path, batch), simulate(draft.model_path, batch), regions=regions)
    names = ("onnxruntime fp32, node by node", f"{draft.manifest.name} ({SIMULATED})")
    parity = Parity(reference=names[0], candidate=names[1], input=INPUT, input_shape=tuple(batch.shape), **figures)
    recipe = draft.manifest.recipe
    step = recipe[-1].model_copy(update={"parameters": recipe[-1].parameters | _told(reference, draft)})
    return draft.manifest.model_copy(update={"parity": (*draft.manifest.parity, parity), "recipe": (*recipe[:-1], step)})


def _told(reference: Artifact, draft: Artifact) -> dict[str, Any]:
    """What the options led to, for the recipe."""
    import onnx

    options = draft.manifest.recipe[-1].parameters
    graph = onnx.load(reference.model_path, load_external_data=False).graph
    plan = plan_int8(graph, keep_float=options.get("keep_float", ()), min_channels=options["min_channels"])
    warnings = Counter(finding.rule for finding in check_file(draft.model_path))
    return {"int8_layers": len(plan.layers), "left_float": plan.kept_float, "rule_warnings": dict(warnings)}
