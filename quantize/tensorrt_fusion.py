"""For each INT8 layer of a Q/DQ file: does a fusion that NVIDIA documents apply to it, and what comes out of the fused kernel?

What is documented is what TensorRT may do, not what it did: only the inspector of a built engine tells that (`runtimes/tensorrt_audit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_latup.quantize.explicit_qdq import ACTIVATIONS
from edge_latup.quantize.onnx_graph import GraphIndex, name_of
from edge_latup.quantize.tensorrt_checks import QUANTIZE, quantized_layers
from edge_latup.quantize.tensorrt_rules import RULES, check_model, errors_of

if TYPE_CHECKING:
    import onnx

_EXPLICIT: Final = "docs.nvidia.com/deeplearning/tensorrt: Explicit Quantization, Q/DQ placement and fusion"
_TRANSPOSED: Final = RULES["transposed-output"].source


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """One INT8 layer. `pattern`: the nodes that become one kernel; `why_not`: the broken rules, empty where the fusion applies."""

    layer: str
    pattern: str
    output: str
    """"int8" where a QuantizeLinear takes the result, else "float"."""
    why_not: str
    source: str

    @property
    def applies(self) -> bool:
        """Whether nothing known keeps TensorRT from fusing it."""
        return not self.why_not


def fusions(model: onnx.ModelProto) -> list[Fusion]:
    """One entry for each convolution whose input and weight come out of DequantizeLinear, in the order of the file."""
    index = GraphIndex(model.graph)
    broken: dict[str, list[str]] = {}
    for finding in errors_of(check_model(model)):
        broken.setdefault(finding.node, []).append(finding.rule)
    return [_fusion(index, layer, broken.get(name_of(layer), [])) for layer in quantized_layers(model, index)]


def fusions_of(path: Path) -> list[Fusion]:
    """`fusions` of an ONNX file."""
    import onnx

    return fusions(onnx.load(path, load_external_data=False))


def _fusion(index: GraphIndex, layer: onnx.NodeProto, broken: list[str]) -> Fusion:
    chain, end = [f"DQ + {layer.op_type}"], layer.output[0]
    readers = index.readers.get(end, [])
    if len(readers) == 1 and readers[0].op_type in ACTIVATIONS:
        chain.append(readers[0].op_type)
        end = readers[0].output[0]
        readers = index.readers.get(end, [])
    quantized = bool(readers) and end not in index.outputs and all(reader.op_type == QUANTIZE for reader in readers)
    return Fusion(
        layer=name_of(layer), pattern=" + ".join([*chain, *(["Q"] if quantized else [])]), output="int8" if quantized else "float",
        why_not=", ".join(broken), source=_TRANSPOSED if layer.op_type == "ConvTranspose" else _EXPLICIT,
    )  # fmt: skip
