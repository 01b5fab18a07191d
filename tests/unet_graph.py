"""A U-Net of four layers as an ONNX graph, with everything the placement of Q/DQ must know: a skip, a norm, a transposed convolution."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

SIDE: Final = 8


def image_of(channels: int = 3, seed: int = 0) -> np.ndarray:
    """A network input float32 (1, channels, 8, 8, 8)."""
    return np.random.default_rng(seed).normal(size=(1, channels, SIDE, SIDE, SIDE)).astype(np.float32)


def unet_graph(width: int = 32, *, classes: int = 4, opset: int = 20, seed: int = 0) -> Any:
    """3 channels -> first -> skip -> pool -> middle -> up (k2s2) -> norm -> concat with the skip -> last -> output -> softmax."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    shapes = {
        "first.w": (width, 3, 3, 3, 3), "middle.w": (width, width, 3, 3, 3), "up.w": (width, width, 2, 2, 2),
        "last.w": (width, 2 * width, 3, 3, 3), "output.w": (classes, width, 1, 1, 1),
    }  # fmt: skip
    weights = {name: rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])) for name, shape in shapes.items()}
    weights |= {f"{name}.b": rng.normal(size=width) / 10 for name in ("first", "middle", "up", "last")}
    weights |= {"norm.scale": rng.uniform(0.5, 1.5, width), "norm.b": rng.normal(size=width)}
    kernel = {"kernel_shape": [3, 3, 3], "pads": [1] * 6}
    twice = {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}
    nodes = [
        helper.make_node("Conv", ["image", "first.w", "first.b"], ["first.y"], name="first", **kernel),
        helper.make_node("LeakyRelu", ["first.y"], ["skip"], name="first.act", alpha=0.1),
        helper.make_node("MaxPool", ["skip"], ["pooled"], name="pool", **twice),
        helper.make_node("Conv", ["pooled", "middle.w", "middle.b"], ["middle.y"], name="middle", **kernel),
        helper.make_node("ConvTranspose", ["middle.y", "up.w", "up.b"], ["up.y"], name="up", **twice),
        helper.make_node("LeakyRelu", ["up.y"], ["up.act.y"], name="up.act", alpha=0.1),
        helper.make_node("InstanceNormalization", ["up.act.y", "norm.scale", "norm.b"], ["normed"], name="norm"),
        helper.make_node("Concat", ["normed", "skip"], ["both"], name="concat", axis=1),
        helper.make_node("Conv", ["both", "last.w", "last.b"], ["last.y"], name="last", **kernel),
        helper.make_node("Conv", ["last.y", "output.w"], ["scores"], name="output", kernel_shape=[1, 1, 1]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], name="softmax", axis=1),
    ]
    size = [1, None, SIDE, SIDE, SIDE]
    graph = helper.make_graph(
        nodes, "unet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *size[2:]])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, classes, *size[2:]])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def outputs_of(model: Any, image: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Any tensors of a model by name, computed node by node by ONNX Runtime."""
    import onnx
    import onnxruntime as ort
    from onnx import helper

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(shown.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {model.graph.input[0].name: image}), strict=True))


def constants_of(model: Any) -> dict[str, np.ndarray]:
    """Every stored tensor."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def node_of(model: Any, name: str) -> Any:
    """The node of that name."""
    return next(node for node in model.graph.node if node.name == name)
