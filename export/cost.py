"""What a network costs, layer by layer, computed from its graph without running it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact
from edge_latup.errors import InputError
from edge_latup.spec import Size

CONVOLUTIONS: Final = ("Conv", "ConvTranspose", "Conv3d", "ConvTranspose3d", "Convolution", "ConvolutionBackpropData")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operation. macs: multiply-accumulates, biases not counted. activation_bytes: its output in FP32."""

    name: str
    operation: str
    inputs: tuple[str, ...]
    output: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int

    @property
    def activation_bytes(self) -> int:
        """Size of the output in FP32."""
        return 4 * math.prod(self.output_shape)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """All layers of a network, in execution order."""

    source: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Trained values."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Of all layers, dense ones included."""
        return sum(layer.macs for layer in self.layers)

    @property
    def convolution_macs(self) -> int:
        """Of convolutions and transposed convolutions, the usual count."""
        return sum(layer.macs for layer in self.layers if layer.operation in CONVOLUTIONS)

    @property
    def activation_bytes(self) -> int:
        """Every output once, FP32."""
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def peak_activation_bytes(self) -> int:
        """Most bytes alive at once when layers run in order and a tensor is freed after its last reader: a lower bound for a runtime."""
        last = {name: index for index, layer in enumerate(self.layers) for name in layer.inputs}
        sizes = {layer.output: layer.activation_bytes for layer in self.layers}
        alive, peak = 0, 0
        for index, layer in enumerate(self.layers):
            alive += layer.activation_bytes
            peak = max(peak, alive)
            alive -= sum(sizes.pop(name) for name in {*layer.inputs, layer.output} if name in sizes and last.get(name, index) <= index)
        return peak

    def as_data(self) -> dict[str, Any]:
        """Plain values for JSON."""
        layers = [
            {
                "name": layer.name, "operation": layer.operation, "output_shape": list(layer.output_shape), "parameters": layer.parameters,
                "macs": layer.macs, "activation_bytes": layer.activation_bytes,
            }
            for layer in self.layers
        ]  # fmt: skip
        totals = {name: getattr(self, name) for name in ("parameters", "macs", "convolution_macs", "activation_bytes", "peak_activation_bytes")}
        return {"source": self.source, "input_shape": list(self.input_shape), **totals, "layers": layers}


def cost_of(folder: Path, size: Size | None = None) -> Cost:
    """Cost of an ONNX or PyTorch artifact, or of a checkpoint folder.

    Args:
        folder: artifact or checkpoint.
        size: spatial size; default the model's own.

    Raises:
        InputError: the artifact is of a format that cannot be inspected, or has a fixed size other than `size`.
        ArtifactError, SpecError: the folder is neither an artifact nor a checkpoint, or is damaged.
    """
    if not (folder / MANIFEST_NAME).is_file():
        return _cost_of_checkpoint(folder, size)
    artifact = open_artifact(folder)
    if artifact.manifest.format == "checkpoint":
        raise InputError(f"{folder} is a PyTorch reference artifact", "inspect the checkpoint folder it was made from")
    return _cost_of_graph(artifact, size)


def _cost_of_graph(artifact: Artifact, size: Size | None) -> Cost:
    import openvino as ov

    model = ov.Core().read_model(artifact.model_path)
    shape = model.input(0).get_partial_shape()
    wanted = (1, len(artifact.manifest.spec.modalities), *(size or artifact.manifest.spec.spatial.size))
    if shape.is_static and tuple(shape.to_shape()) != wanted:
        raise InputError(f"{artifact.folder} has the fixed input {tuple(shape.to_shape())}", "leave out --size, or export with --dynamic")
    model.reshape(list(wanted))
    layers = tuple(layer for node in model.get_ordered_ops() if (layer := _graph_layer(node)) is not None)
    return Cost(source=f"{artifact.manifest.name} ({artifact.manifest.format})", input_shape=wanted, layers=layers)


NOT_LAYERS: Final = ("Constant", "Parameter", "Result", "Convert", "ShapeOf", "FakeQuantize")


def _graph_layer(node: Any) -> Layer | None:
    """One operation of an OpenVINO graph; None for constants, conversions and arithmetic on constants."""
    sources = [node.input_value(index).get_node() for index in range(node.get_input_size())]
    operation = str(node.get_type_name())
    if operation in NOT_LAYERS or not node.get_output_size() or not any(_varies(source) for source in sources):
        return None
    shape = tuple(int(size) for size in node.output(0).get_shape())
    macs = 0
    if operation in CONVOLUTIONS or operation == "MatMul":
        macs = _graph_macs(operation, node, shape)
    constants = [source for source in sources[1:] if not _varies(source)]
    return Layer(
        name=str(node.get_friendly_name()), operation=operation, inputs=tuple(_producer(source) for source in sources), output=str(node.get_friendly_name()),
        output_shape=shape, parameters=sum(_trained(source) for source in constants) if operation in HOLDERS else 0, macs=macs,
    )  # fmt: skip


HOLDERS: Final = (*CONVOLUTIONS, "MatMul", "Add", "Multiply")
"""Operations whose constant operand was trained: weights, biases, norm scales."""
_SMALL: Final = 1
"""A constant of one element is arithmetic (an epsilon, a slope), not a parameter."""


def _varies(node: Any) -> bool:
    """Whether a node's value depends on the network's input."""
    seen, stack = set(), [node]
    while stack:
        current = stack.pop()
        if current.get_type_name() == "Parameter":
            return True
        if current.get_friendly_name() in seen or current.get_type_name() in ("Constant", "ShapeOf"):
            continue
        seen.add(current.get_friendly_name())
        stack.extend(current.input_value(index).get_node() for index in range(current.get_input_size()))
    return False


def _producer(node: Any) -> str:
    """The layer whose output this is, looking through quantization."""
    while node.get_type_name() in ("FakeQuantize", "Convert"):
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())


def _trained(node: Any) -> int:
    """Elements of a constant operand, found behind the arithmetic that restores compressed weights."""
    count = math.prod(int(size) for size in node.output(0).get_shape())
    return count if count > _SMALL else 0


def _graph_macs(operation: str, node: Any, shape: tuple[int, ...]) -> int:
    weights = [int(size) for size in node.input_value(1).get_shape()]
    if operation == "MatMul":
        return math.prod(shape) * int(node.input_value(0).get_shape()[-1])
    # A convolution's weights are (out, in, kernel...), a transposed one's (in, out, kernel...); the latter counts input voxels.
    voxels = shape if operation == "Convolution" else tuple(int(size) for size in node.input_value(0).get_shape())
    return math.prod(voxels[2:]) * math.prod(weights)


def _cost_of_checkpoint(folder: Path, size: Size | None) -> Cost:
    import torch

    from edge_latup.networks.build import load_checkpoint

    network, spec = load_checkpoint(folder)
    shape = (1, len(spec.modalities), *(size or spec.spatial.size))
    # On the meta device shapes are computed and nothing else, so 128^3 costs no time and no memory.
    network = network.to("meta")
    layers: list[Layer] = []
    names = {id(module): name for name, module in network.named_modules()}
    produced: dict[int, str] = {}

    def record(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        name = names[id(module)]
        produced[id(output)] = name
        layers.append(_module_layer(name, module, inputs, output, produced))

    hooks = [module.register_forward_hook(record) for module in network.modules() if not any(module.children())]
    with torch.inference_mode():
        network(torch.empty(shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return Cost(source=f"{spec.name} (PyTorch modules)", input_shape=shape, layers=tuple(layers))


def _module_layer(name: str, module: Any, inputs: tuple[Any, ...], output: Any, produced: dict[int, str]) -> Layer:
    operation = type(module).__name__
    macs = 0
    if operation in ("Conv3d", "ConvTranspose3d"):
        voxels = output.shape if operation == "Conv3d" else inputs[0].shape
        macs = math.prod(voxels[2:]) * module.weight.numel()
    elif operation == "Linear":
        macs = module.weight.numel()
    return Layer(
        name=name, operation=operation, inputs=tuple(produced.get(id(x), "") for x in inputs), output=name, output_shape=tuple(output.shape),
        parameters=sum(p.numel() for p in module.parameters()), macs=macs,
    )  # fmt: skip
