"""The executed-kernel audit of a TensorRT engine, from the JSON of its engine inspector.

Source: NVIDIA's documentation, "Engine Inspector" (TensorRT 10) and "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x".
The engine is built with `profiling_verbosity = DETAILED`; `IEngineInspector.get_engine_information(LayerInformationFormat.JSON)`
then gives `{"Layers": [...]}`. TensorRT 11 splits "Format/Datatype" of a tensor into "Format" and "Datatype". Nothing here needs TensorRT,
and nothing was executed by it: the tests use JSON made by hand in the documented form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge_latup.errors import ArtifactError
from edge_latup.runtimes.audit import Audit, precision_name
from edge_latup.runtimes.base import Kernel
from edge_latup.runtimes.matching import Declared, Executed, Kind, audited

KINDS: Final[tuple[tuple[str, Kind], ...]] = (
    ("deconv", "transposed convolution"), ("conv", "convolution"), ("correlation", "convolution"), ("gemm", "dense"),
    ("matrixmultiply", "dense"), ("matmul", "dense"), ("fullyconnected", "dense"),
)  # fmt: skip
"""Part of a LayerType in lower case -> its kind; the first that fits."""
NOT_COMPUTING: Final = ("Reformat", "NoOp", "Constant", "Shuffle")
"""Their names repeat those of the layers around them."""
TYPES: Final = (("int8", "int8"), ("fp8", "fp8"), ("bf16", "bf16"), ("bfloat16", "bf16"), ("fp16", "fp16"), ("half", "fp16"),
                ("fp32", "fp32"), ("float", "fp32"))  # fmt: skip
"""Part of a format's description in lower case -> precision; the first that fits."""
WIDTH: Final = ("int8", "fp8", "fp16", "bf16", "fp32")
"""From the narrowest."""
ONNX_LAYER: Final = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
DETAILED: Final = "build the engine with profiling_verbosity = DETAILED (trtexec: --profilingVerbosity=detailed) and inspect it again"


def audit_engine(
    information: str, declared: Sequence[Declared], input_shape: tuple[int, ...], milliseconds: Mapping[str, float] | None = None
) -> Audit:
    """The audit of an engine that was built from an ONNX file.

    Args:
        information: the engine inspector's JSON text.
        declared: the file's layers (`onnx_audit.declared_layers`).
        input_shape: that they were counted for.
        milliseconds: of one inference by layer's name, as `IProfiler` reports them.

    Raises:
        ArtifactError: the text is not the inspector's JSON, or the engine was built without details.
    """
    return audited("tensorrt", input_shape, declared, [_executed(layer, milliseconds) for layer in _layers(information)])


def _layers(information: str) -> list[dict[str, Any]]:
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError("this is not the JSON of TensorRT's engine inspector: it has no Layers", DETAILED) from error
    if not layers or not all(isinstance(layer, dict) and "LayerType" in layer for layer in layers):
        raise ArtifactError("the engine inspector's JSON holds names of layers and no types", DETAILED)
    return list(layers)


def _executed(layer: dict[str, Any], milliseconds: Mapping[str, float] | None) -> Executed:
    name, kind = str(layer.get("Name", "")), str(layer["LayerType"])
    nodes = set(ONNX_LAYER.findall(str(layer.get("Metadata", "")))) | set(name.split(" + "))
    return Executed(
        nodes=frozenset() if kind in NOT_COMPUTING else frozenset(nodes) - {""},
        hints=frozenset(),
        kind=None if kind in NOT_COMPUTING else next((own for part, own in KINDS if part in kind.lower()), None),
        precision=_precision(layer),
        kernel=str(layer.get("TacticName") or kind),
        microseconds=None if milliseconds is None else 1000 * milliseconds.get(name, 0.0),
    )


def _precision(layer: dict[str, Any]) -> str:
    """The wider of the first input's type and the weights': a kernel that reads INT8 and multiplies FP32 weights is no INT8 kernel."""
    inputs = layer.get("Inputs") or [{}]
    read = str(inputs[0].get("Format/Datatype") or inputs[0].get("Datatype") or "")
    weights = (layer.get("Weights") or layer.get("ConvWeights") or {}).get("Type", "")
    found = [precision for text in (read, str(weights)) if (precision := _type(text))]
    if "tf32" in str(layer.get("TacticName", "")).lower():
        return "tf32"
    return max(found, key=WIDTH.index, default="unknown")


def _type(text: str) -> str | None:
    return next((precision_name(name) for part, name in TYPES if part in text.lower()), None)


def kernels_of(information: str) -> list[Kernel]:
    """Every operation of an engine, as the inspector lists them.

    Raises:
        ArtifactError: see `audit_engine`.
    """
    return [
        Kernel(name=str(layer.get("Name", "")) or "?", operation=str(layer["LayerType"]), precision=executed.precision,
               implementation=executed.kernel)
        for layer in _layers(information) for executed in (_executed(layer, None),)
    ]  # fmt: skip
