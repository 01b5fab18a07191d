"""Float files for TensorRT: engines are strongly typed, so FP16 must be in the graph; norms, softmax and attention stay FP32."""

from __future__ import annotations

from pathlib import Path

from edge_latup.artifact import Artifact
from edge_latup.manifest import Manifest, Parity, Precision
from edge_latup.quantize.tensorrt_int8 import SIMULATED, simulate, type_float16
from edge_latup.segmentation.parity import INPUT, compare, parity_input


def tensorrt_float(source: Path, folder: Path, precision: Precision) -> None:
    """Write model.onnx, typed "fp16" or as it is ("fp32").

    Raises:
        ArtifactError: the operator set has no FP16 scales.
    """
    import onnx

    model = onnx.load(source, load_external_data=False)
    if precision == "fp16":
        model = type_float16(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")


def examine(reference: Artifact, draft: Artifact) -> Manifest:
    """Record the reference numerics of a draft: how far its types alone move the output, computed by ONNX Runtime on the CPU."""
    batch = parity_input(draft.manifest.spec, draft.manifest.spec.spatial.size)
    regions = draft.manifest.spec.regions is not None
    figures = compare(simulate(reference.model_path, batch), simulate(draft.model_path, batch), regions=regions)
    names = ("onnxruntime fp32, node by node", f"{draft.manifest.name} ({SIMULATED})")
    parity = Parity(reference=names[0], candidate=names[1], input=INPUT, input_shape=tuple(batch.shape), **figures)
    return draft.manifest.model_copy(update={"parity": (*draft.manifest.parity, parity)})
