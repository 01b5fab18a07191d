"""What an ONNX file holds, and a spec.toml to start from: what can be read off is filled in, the rest says what to decide."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from edge_latup.export.foreign_model import ForeignModel, Tensor, graphs_of, last_operation, likely_output
from edge_latup.export.foreign_spec import LAYOUTS, Layout
from edge_latup.spec import MODALITIES

if TYPE_CHECKING:
    import onnx

USUAL_SIDE: Final = 128
"""Size that is proposed for an axis that is free."""
SKELETON: Final = """\
name = {name}
licence = ""                # of the weights; it goes into the manifest
modalities = {modalities}  # {channels} of flair, t1ce, t2, t1, in the order the network was trained on
orientation = "LPS"         # x, y and z of the network's axes below: L or R, A or P, S or I
normalisation = "z_score_nonzero"  # or per_volume_postcrop, per_slice_precrop, none: as in training
divisor = {divisor}                # every spatial size is a multiple of this
{labels}{margin}
{regions}[spatial]
kind = "sliding-window"     # or centre-crop, brain-crop (sizes must be free)
size = {size}    # along x, y, z

[import]
layout = "{layout}"
axes = "{axes}"  # what {spatial} run along; arrays of SimpleITK are {reversed}
output = {output}
activation = "{activation}"  # applied to the output: softmax, sigmoid, or none where it is a probability already
"""
LABELS: Final = "labels = {labels}       # canonical label of each channel: 0 background, 1 necrotic core, 2 oedema, 3 enhancing tumour\n"
REGIONS: Final = "[regions]\norder = {order}  # the region of each channel: WT, TC, ET\n\n"


def summary(model: ForeignModel) -> dict[str, Any]:
    """Inputs, outputs, opset and operations, as plain values for JSON."""
    return {
        "file": str(model.path),
        "sha256": model.sha256,
        "opset": model.opset,
        "producer": f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
        "inputs": [_told(tensor) for tensor in model.inputs],
        "outputs": [{**_told(tensor), "last_operation": last_operation(model, tensor.name)} for tensor in model.outputs],
        "operations": dict(Counter(node.op_type for graph in graphs_of(model.proto.graph) for node in graph.node).most_common()),
    }


def _told(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": None if tensor.shape is None else list(tensor.shape)}


def describe(model: ForeignModel) -> str:
    """The summary as TOML comments, and below it a spec to start from, so that the whole text is a spec.toml."""
    facts = summary(model)
    operations = ", ".join(f"{count} {name}" for name, count in facts["operations"].items())
    lines = [
        f"# {model.path.name}: opset {model.opset}, made by {facts['producer'] or 'an unnamed exporter'}",
        *(f"# input  {tensor}" for tensor in model.inputs),
        *(f"# output {tensor}, made by {last_operation(model, tensor.name)}" for tensor in model.outputs),
        f"# operations: {operations}",
    ]
    return "\n".join(lines) + "\n\n" + skeleton(model)


def skeleton(model: ForeignModel) -> str:
    """A spec.toml; sizes that are free are proposed, what no file tells is a guess with a comment."""
    given, made = model.inputs[0], likely_output(model)
    layout = _layout(given.shape)
    spatial = [letter for letter in layout if letter in "DHW"]
    sides = dict(zip(layout, given.shape or [-1] * len(layout), strict=True))
    axes = "xyz"[: len(spatial)]
    size = [_side(sides[letter]) for letter in spatial] + ([_slices(sides["N"])] if len(spatial) == 2 else [])
    channels = sides["C"] if 1 <= sides["C"] <= len(MODALITIES) else len(MODALITIES)
    classes = dict(zip(layout, made.shape or [-1] * len(layout), strict=False)).get("C", -1)
    return SKELETON.format(
        name=json.dumps(model.path.stem), modalities=json.dumps(MODALITIES[:channels]), channels=channels, divisor=_divisor(model, size),
        labels=_labels(classes), regions=_regions(classes), margin=_margin(layout, given, made), size=size,
        layout=layout, axes=axes, spatial=", ".join(spatial), reversed=axes[::-1],
        output=json.dumps(made.name), activation=_activation(last_operation(model, made.name), classes),
    )  # fmt: skip


def _layout(shape: tuple[int, ...] | None) -> Layout:
    """Channels last where only the last axis has as few as there are modalities, first otherwise."""
    fitting = [layout for layout in LAYOUTS if shape is not None and len(layout) == len(shape)] or list(LAYOUTS)
    few = [layout for layout in fitting if shape and 1 <= shape[layout.index("C")] <= len(MODALITIES)]
    return (few or fitting)[0]


def _side(declared: int) -> int:
    return declared if declared > 0 else USUAL_SIDE


def _slices(batch: int) -> int:
    """How many slices a 2-D network sees at once: its batch where that is fixed."""
    return batch if batch > 0 else 16


def _regions(channels: int) -> str:
    return REGIONS.format(order=json.dumps(["WT", "TC", "ET"][:channels])) if channels in (1, 3) else ""


def _labels(channels: int) -> str:
    if channels in (1, 3):
        return ""
    return LABELS.format(labels={2: [0, 2]}.get(channels, list(range(4))))


def _activation(operation: str, channels: int) -> str:
    if operation in ("Softmax", "Sigmoid"):
        return "none"
    return "sigmoid" if channels in (1, 3) else "softmax"


def _margin(layout: str, given: Tensor, made: Tensor) -> str:
    """The line for an output that is smaller than the input by an even number of voxels; empty where it is not."""
    if given.shape is None or made.shape is None or len(made.shape) != len(layout):
        return ""
    pairs = [(wide, small) for letter, wide, small in zip(layout, given.shape, made.shape, strict=True) if letter in "DHW"]
    lost = [(wide - small) // 2 if min(wide, small) > 0 else 0 for wide, small in pairs] + [0] * (3 - len(pairs))
    return f"output_margin = {lost}   # voxels lost on each side along x, y, z\n" if any(side > 0 for side in lost) else ""


def _divisor(model: ForeignModel, size: list[int]) -> int:
    """The largest reduction along any path of the graph, where the proposed size is a multiple of it, else 1."""
    factors: dict[str, float] = {}
    for node in model.proto.graph.node:
        factor = max((factors.get(name, 1.0) for name in node.input), default=1.0)
        for name in node.output:
            factors[name] = factor * _reduction(node)
    most = round(max(factors.values(), default=1.0))
    return most if most > 0 and all(side % most == 0 for side in size) else 1


def _reduction(node: onnx.NodeProto) -> float:
    strides = next((max(attribute.ints) for attribute in node.attribute if attribute.name == "strides"), 1)
    return 1 / strides if node.op_type == "ConvTranspose" else float(strides)
