"""The audit's arithmetic and words, and the search for what a layer became, on made-up layers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.manifest import AuditSummary
from edge_latup.runtimes.audit import TOLERANCE, Audit, AuditedLayer, precision_name, sentence, shortfall
from edge_latup.runtimes.matching import Declared, Executed, audited, match

PRECISIONS = ["int8", "bf16", "fp32"]
layers = st.lists(
    st.tuples(st.sampled_from(PRECISIONS), st.sampled_from([*PRECISIONS, None]), st.integers(0, 10**12)), min_size=0, max_size=12
)


def audit_of(*rows: tuple[str, str | None, int]) -> Audit:
    made = [
        AuditedLayer(name=f"layer{index}", operation="Conv", declared=declared, executed=executed, kernel=None, macs=macs)
        for index, (declared, executed, macs) in enumerate(rows)
    ]
    return Audit(runtime="openvino", input_shape=(1, 3, 8, 8, 8), layers=tuple(made))


@given(layers)
def test_shares_add_up(rows: list[tuple[str, str | None, int]]) -> None:
    summary = audit_of(*rows).summary
    total = sum(macs for _, _, macs in rows)
    unnamed = sum(macs for _, executed, macs in rows if executed is None) / total if total else 0
    assert all(0 <= share <= 1 for share in (summary.declared_int8, summary.executed_int8, summary.mismatched, *summary.executed.values()))
    assert sum(summary.executed.values()) + unnamed == pytest.approx(1 if total else 0)
    assert sum(wrong.macs for wrong in summary.mismatches) == pytest.approx(summary.mismatched)
    assert len(summary.mismatches) == sum(declared != executed for declared, executed, _ in rows)
    assert (summary.mismatched == 0) == all(declared == executed or not macs for declared, executed, macs in rows)
    assert AuditSummary.model_validate_json(summary.model_dump_json()) == summary


@given(layers)
def test_int8_that_is_missing_is_a_mismatch_at_least_as_large(rows: list[tuple[str, str | None, int]]) -> None:
    summary = audit_of(*rows).summary
    assert summary.mismatched >= summary.declared_int8 - summary.executed_int8 - 1e-9


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([("int8", "int8", 94), ("int8", "fp32", 2), ("int8", "fp32", 1), ("fp32", "fp32", 3)],
         "declared INT8 97.0 % of MACs, executed INT8 94.0 %; 2 layers declared int8 ran in fp32: layer1, layer2"),
        ([("bf16", "fp32", 7), ("bf16", "bf16", 3)],
         "executed fp32 70.0 %, bf16 30.0 % of MACs; 1 layer declared bf16 ran in fp32: layer0"),
        ([("int8", None, 1)],
         "declared INT8 100.0 % of MACs, executed INT8 0.0 %; 1 layer declared int8 without a kernel that the runtime names: layer0"),
        ([("int8", "fp32", 5 - index) for index in range(5)],
         "declared INT8 100.0 % of MACs, executed INT8 0.0 %; 5 layers declared int8 ran in fp32: layer0, layer1, layer2 and 2 more"),
        ([("fp32", "fp32", 9999), ("int8", "int8", 1)], "declared INT8 <0.1 % of MACs, executed INT8 <0.1 %"),
        ([], "executed nothing of MACs"),
    ],
)  # fmt: skip
def test_the_summary_in_words(rows: list[tuple[str, str | None, int]], text: str) -> None:
    assert sentence(audit_of(*rows).summary) == text


def test_the_largest_layer_that_went_wrong_is_named_first() -> None:
    wrong = audit_of(("int8", "fp32", 1), ("int8", "int8", 5), ("int8", "fp32", 4)).summary.mismatches
    assert [(mismatch.layer, mismatch.macs) for mismatch in wrong] == [("layer2", 0.4), ("layer0", 0.1)]


def test_up_to_the_tolerance_nothing_is_short() -> None:
    at = round(1000 * TOLERANCE)
    assert shortfall(audit_of(("int8", "int8", 1000 - at), ("int8", "fp32", at)).summary) is None
    beyond = audit_of(("int8", "int8", 999 - at), ("int8", "fp32", at + 1)).summary
    assert shortfall(beyond) == sentence(beyond)
    assert shortfall(audit_of(("fp32", "bf16", 1)).summary), "a baseline that is not what it says is short too"


def test_every_runtimes_word_for_a_type_is_one_word() -> None:
    assert {precision_name(word) for word in ("u8", "i8", "INT8", "uint8")} == {"int8"}
    assert [precision_name(word) for word in ("f32", "Float", "half", "bf16", "f16", "TF32")] == [
        "fp32", "fp32", "fp16", "bf16", "fp16", "tf32",
    ]  # fmt: skip


def declared(name: str, **changes: Any) -> Declared:
    fields: dict[str, Any] = {"name": name, "node": name, "operation": "Conv", "kind": "convolution", "precision": "int8", "macs": 10}
    return Declared(**(fields | changes))


def executed(*nodes: str, **changes: Any) -> Executed:
    fields: dict[str, Any] = {
        "nodes": frozenset(nodes), "hints": frozenset(), "kind": "convolution", "precision": "int8", "kernel": "k",
    }  # fmt: skip
    return Executed(**(fields | changes))


def test_a_layer_is_found_by_its_node_wherever_it_was_moved_to() -> None:
    assert match([declared("a"), declared("b")], [executed("b", "relu"), executed("a")]) == {"a": 1, "b": 0}


def test_what_multiplies_goes_before_what_carries_the_name_on() -> None:
    carrying = executed("a", kind=None)
    assert (
        match([declared("a")], [executed("a"), carrying]) == match([declared("a")], [executed("a"), executed("x", kind=None)]) == {"a": 0}
    )
    assert match([declared("a")], [carrying, executed("a")]) == {"a": 1}


def test_several_layers_may_have_become_one_operation_that_shares_out_its_time() -> None:
    fused = executed("qk", "av", kind=None, microseconds=60.0)
    rest = executed("softmax", kind=None, microseconds=40.0)
    made = audited("openvino", (1,), [declared("qk", kind="dense"), declared("av", kind="dense")], [fused, rest])
    assert [layer.time_share for layer in made.layers] == [pytest.approx(0.3), pytest.approx(0.3)]
    assert made.other_time_share == pytest.approx(0.4)
    assert made.milliseconds == pytest.approx(0.1)


def test_a_renamed_operation_is_found_by_its_tensors() -> None:
    layers = [declared("a", tensors=("weight_a",)), declared("b", tensors=("weight_b",))]
    assert match(layers, [executed("x", hints=frozenset({"weight_b"})), executed("y", hints=frozenset({"weight_a"}))]) == {"a": 1, "b": 0}


def test_what_remains_is_taken_in_order_only_where_the_numbers_agree() -> None:
    both = [declared("a"), declared("b")]
    assert match(both, [executed("x"), executed("y"), executed("z", kind="dense")]) == {"a": 0, "b": 1}
    assert match(both, [executed("x")]) == {}
    assert match([*both, declared("c")], [executed("c"), executed("x"), executed("y")]) == {"c": 0, "a": 1, "b": 2}


def test_a_layer_that_became_nothing_has_no_kernel_and_is_not_called_executed() -> None:
    made = audited("openvino", (1,), [declared("a"), declared("b")], [executed("a")])
    assert [layer.executed for layer in made.layers] == ["int8", None]
    assert made.summary.executed_int8 == 0.5
    assert made.other_time_share is made.milliseconds is made.layers[0].time_share is None
