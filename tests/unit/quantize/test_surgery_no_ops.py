"""Nodes that hand on what they are given go; those that only look so stay, and so do the names that a caller knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_graphs import changed_by, drawn, left_alone, model_of, operations

from edge_latup.quantize.surgery.no_ops import remove_no_ops

SHAPE = [1, 4, 5, 6]
IMAGE = drawn(0, *SHAPE)


def between(*nodes: tuple[Any, ...], constants: dict[str, Any] | None = None, shape: Any = None, opset: int = 20, **stated: Any) -> Any:
    """Relu, then `nodes` of (operation, inputs) one after the other ("" is the tensor so far), then Sigmoid."""
    from onnx import helper

    made, last = [helper.make_node("Relu", ["x"], ["t0"])], "t0"
    for index, (operation, inputs) in enumerate(nodes, 1):
        made.append(helper.make_node(operation, [last if name == "." else name for name in inputs], [f"t{index}"], **stated))
        last = f"t{index}"
    made.append(helper.make_node("Sigmoid", [last], ["y"]))
    return model_of(made, {name: np.asarray(value) for name, value in (constants or {}).items()}, shape or SHAPE, opset=opset)


def floats(*values: float, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.array(values, np.float32)
    return array.reshape(shape) if shape is not None else array


GONE = {
    "identity": between(("Identity", ["."])),
    "a chain": between(("Identity", ["."]), ("Dropout", ["."]), ("Identity", ["."])),
    "dropout": between(("Dropout", ["."])),
    "dropout told to infer": between(("Dropout", [".", "rate", "training"]), constants={"rate": floats(0.5, shape=()), "training": False}),
    "cast to the same": between(("Cast", ["."]), to=1),
    "reshape to the same": between(("Reshape", [".", "s"]), constants={"s": np.array(SHAPE)}),
    "reshape that copies": between(("Reshape", [".", "s"]), constants={"s": np.array([0, 0, -1, 0])}),
    "reshape with a free size": between(("Reshape", [".", "s"]), constants={"s": np.array([1, 4, -1, 6])}, shape=[1, 4, "h", 6]),
    "times 1": between(("Mul", [".", "k"]), constants={"k": floats(1, shape=())}),
    "1 times": between(("Mul", ["k", "."]), constants={"k": floats(1)}),
    "over 1": between(("Div", [".", "k"]), constants={"k": floats(1)}),
    "plus 0": between(("Add", [".", "k"]), constants={"k": floats(0, 0, 0, 0, 0, 0)}),
    "0 plus": between(("Add", ["k", "."]), constants={"k": np.zeros((4, 1, 1), np.float32)}),
    "minus 0": between(("Sub", [".", "k"]), constants={"k": floats(0)}),
}


@pytest.mark.parametrize("why", GONE)
def test_a_node_that_hands_on_is_taken_away(why: str) -> None:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(GONE[why])
    assert changed_by(remove_no_ops, model, IMAGE) == (3 if why == "a chain" else 1)
    assert operations(model) == ["Relu", "Sigmoid"]
    assert not model.graph.initializer


STAYS = {
    "dropout that trains": between(("Dropout", [".", "ratio", "training"]), constants={"ratio": floats(0.5, shape=()), "training": True}),
    "cast to another": between(("Cast", ["."]), to=11),
    "reshape to another": between(("Reshape", [".", "s"]), constants={"s": np.array([1, 4, 6, 5])}),
    "reshape of what is not known": between(("Reshape", [".", "s"]), constants={"s": np.array([1, 4, 5, 6])}, shape=[1, 4, "h", 6]),
    "reshape to zero sizes": between(("Reshape", [".", "s"]), constants={"s": np.array([0, 0, 0, 0])}, shape=[0, 4, "h", 6], allowzero=1),
    "times nearly 1": between(("Mul", [".", "k"]), constants={"k": floats(1.0000001)}),
    "some channels times 2": between(("Mul", [".", "k"]), constants={"k": floats(1, 1, 2, 1, shape=(4, 1, 1))}),
    "1 over": between(("Div", ["k", "."]), constants={"k": floats(1)}),
    "0 minus": between(("Sub", ["k", "."]), constants={"k": floats(0)}),
    "plus 1": between(("Add", [".", "k"]), constants={"k": floats(1)}),
    "plus 0 that widens": between(("Add", [".", "k"]), constants={"k": np.zeros((3, 1, 1, 1), np.float32)}),
    "plus 0 that adds an axis": between(("Add", [".", "k"]), constants={"k": np.zeros((1, 1, 1, 1, 1), np.float32)}),
    "plus 0 over a free size": between(("Add", [".", "k"]), constants={"k": np.zeros((5, 6), np.float32)}, shape=[1, 4, "h", 6]),
}


@pytest.mark.parametrize("why", STAYS)
def test_what_only_looks_like_it_stays(why: str) -> None:
    assert left_alone(remove_no_ops, STAYS[why])


def named(*nodes: tuple[str, str, str], outputs: list[str]) -> Any:
    """Nodes of (operation, input, output)."""
    from onnx import helper

    return model_of([helper.make_node(operation, [source], [result]) for operation, source, result in nodes], {}, SHAPE, outputs)


def test_an_output_keeps_its_name_and_others_that_read_the_tensor_follow() -> None:
    model = named(("Relu", "x", "t"), ("Identity", "t", "y"), ("Sigmoid", "t", "z"), outputs=["y", "z"])
    assert changed_by(remove_no_ops, model, IMAGE) == 1
    assert operations(model) == ["Relu", "Sigmoid"]
    assert [output.name for output in model.graph.output] == ["y", "z"]


@pytest.mark.parametrize(
    "nodes", [[("Identity", "x", "y")], [("Relu", "x", "z"), ("Identity", "z", "y")]], ids=["of the input", "of another output"]
)
def test_a_second_name_that_a_caller_knows_stays(nodes: list[tuple[str, str, str]]) -> None:
    assert left_alone(remove_no_ops, named(*nodes, outputs=["y", *(["z"] if len(nodes) == 2 else [])]))


def test_a_mask_that_is_read_keeps_its_dropout() -> None:
    from onnx import helper

    nodes = [
        helper.make_node("Dropout", ["x"], ["t", "mask"]), helper.make_node("Where", ["mask", "t", "x"], ["y"]),
    ]  # fmt: skip
    assert left_alone(remove_no_ops, model_of(nodes, {}, SHAPE))


def test_the_body_of_a_branch_reads_the_tensor_that_was_handed_on() -> None:
    import onnx
    from onnx import TensorProto, helper

    body = helper.make_graph(
        [helper.make_node("Neg", ["t"], ["n"])], "body", [], [helper.make_tensor_value_info("n", TensorProto.FLOAT, None)]
    )  # fmt: skip
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Identity", ["r"], ["t"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body),
    ]  # fmt: skip
    model = model_of(nodes, {"yes": np.array(True)}, SHAPE)
    assert changed_by(remove_no_ops, model, IMAGE) == 1
    assert operations(model) == ["Relu", "If"]
    onnx.checker.check_model(model, full_check=True)
