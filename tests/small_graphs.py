"""ONNX graphs of a few nodes, written node by node, and what ONNX Runtime makes of them without its own rewrites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

OPSET: Final = 20


def model_of(
    nodes: Sequence[Any], constants: Mapping[str, np.ndarray], shape: Sequence[int | str], outputs: Sequence[str] = ("y",),
    opset: int = OPSET,
) -> Any:  # fmt: skip
    """A model from "x" of `shape` to `outputs`, of as many axes; sizes in between are inferred, as an exporter notes them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape)) for name in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def run(model: Any, image: np.ndarray) -> list[np.ndarray]:
    """Every output, computed node by node as written."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": image}))


def operations(model: Any) -> list[str]:
    """What the nodes do, in order."""
    return [node.op_type for node in model.graph.node]


def changed_by(apply: Callable[[Any], int], model: Any, image: np.ndarray) -> int:
    """Apply a pass; the model must stay valid, give the same outputs, and have nothing left for the same pass to do."""
    import onnx

    expected = run(model, image)
    count = apply(model.graph)
    onnx.checker.check_model(model, full_check=True)
    for before, after in zip(expected, run(model, image), strict=True):
        scale = max(1.0, float(np.abs(before).max(initial=0)))
        np.testing.assert_allclose(after / scale, before / scale, atol=2e-6)
    written = model.SerializeToString()
    assert apply(model.graph) == 0
    assert model.SerializeToString() == written
    return count


def left_alone(apply: Callable[[Any], int], model: Any) -> bool:
    """Whether a pass changes nothing, to the last byte."""
    before = model.SerializeToString()
    return apply(model.graph) == 0 and model.SerializeToString() == before


def drawn(seed: int, *shape: int) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
