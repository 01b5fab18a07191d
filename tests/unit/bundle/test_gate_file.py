"""A bundle's papers say what the gate said of its models; a file that says nothing of them is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_latup.bundle.documents import change_record, model_card
from edge_latup.bundle.gate_file import NOT_JUDGED, OTHER_SPEC, GateFile, read_gate
from edge_latup.errors import InputError
from edge_latup.spec import ModelSpec, RegionHead

REFUSED = {"candidate": "int8", "candidate_sha256": "b" * 64, "accepted": False, "tested": True, "reasons": ["WT loses 0.03", "ET too"]}
ACCEPTED = REFUSED | {"accepted": True, "reasons": []}


def artifact(name: str, digest: str, precision: str) -> Any:
    manifest = SimpleNamespace(
        precision=precision, float_precision="fp32", spec=ModelSpec(name="net"), recipe=(), runtimes=("openvino",), parity=(),
        trained_on=(), calibration=(),
    )  # fmt: skip
    return SimpleNamespace(folder=Path("artifacts", name), digest=digest * 64, manifest=manifest)


FP32, INT8 = artifact("fp32", "a", "fp32"), artifact("int8", "b", "int8")


def printed(path: Path, *decisions: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"schema_version": 1, "accepted": False, "rule": {}, "decisions": decisions}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("decision", "words", "warned"),
    [
        (REFUSED, "the gate refused it: WT loses 0.03; ET too", True),
        (ACCEPTED, "the gate accepted it", False),
        (ACCEPTED | {"tested": False}, "the gate accepted it, on too few cases for a test", False),
        (None, NOT_JUDGED, True),
    ],
)
def test_the_model_card_says_what_the_gate_said(tmp_path: Path, decision: dict[str, Any] | None, words: str, warned: bool) -> None:
    gate = read_gate(printed(tmp_path / "gate.json", decision) if decision else None, (INT8, FP32))
    card = model_card((INT8, FP32), gate)
    assert card.count("Against FP32") == 1, "FP32 is not held against itself"
    assert f"- Against FP32: {words}.\n" in card.partition("## fp32")[0]
    assert gate.warnings((INT8, FP32)) == ([f"int8: {words}; MODEL-CARD.md says so"] if warned else [])


def test_a_decision_on_another_spec_is_none(tmp_path: Path) -> None:
    """The same weights give other label maps with another threshold or other labels."""
    same, other = (
        read_gate(printed(tmp_path / "gate.json", ACCEPTED | {"candidate_spec_sha256": spec.digest}), (INT8,))
        for spec in (INT8.manifest.spec, INT8.manifest.spec.model_copy(update={"labels": (0, 2, 1, 3)}))
    )
    assert (same.of(INT8), same.warnings((INT8,))) == ("the gate accepted it", [])
    assert other.of(INT8) == OTHER_SPEC
    assert other.warnings((INT8,)) == [f"int8: {OTHER_SPEC}; MODEL-CARD.md says so"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("{", "is not what `edge-latup --json gate` prints"),
        ("[]", "is not what `edge-latup --json gate` prints: the whole is amiss"),
        ('{"decisions": [{"candidate": "int8"}]}', r"decisions\.0\.candidate_sha256 is amiss"),
        (json.dumps({"decisions": [REFUSED | {"accepted": "yes"}]}), r"decisions\.0\.accepted is amiss"),
        (json.dumps({"decisions": [REFUSED | {"candidate_sha256": "c" * 64}]}), "judged int8, none of which is an artifact of this bundle"),
        ('{"decisions": []}', "judged nothing, none of which"),
    ],
)
def test_a_file_that_says_nothing_of_the_bundle_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "gate.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=told) as caught:
        read_gate(path, (INT8, FP32))
    assert "gate" in caught.value.hint


def test_a_first_bundle_has_a_change_record_with_the_decision(tmp_path: Path) -> None:
    gate = read_gate(printed(tmp_path / "gate.json", REFUSED), (INT8,))
    record = change_record(None, "first", (), {"a": "0" * 64}, gate.printed)
    assert (record.before, record.files, record.reason) == (None, (), "first")
    assert record.gate is not None
    assert record.gate["decisions"][0]["reasons"] == REFUSED["reasons"]


@pytest.mark.parametrize(
    ("spec", "output"),
    [
        (ModelSpec(name="net"), "necrotic core, oedema, enhancing tumour"),
        (ModelSpec(name="net", regions=RegionHead(order=("WT",))), "the regions WT"),
    ],
)
def test_the_model_card_names_what_the_label_map_can_hold(spec: ModelSpec, output: str) -> None:
    one = artifact("fp32", "a", "fp32")
    one.manifest.spec = spec
    assert f"on the exam's own grid: {output}.\n" in model_card((one,), GateFile(printed=None, decisions={}))
