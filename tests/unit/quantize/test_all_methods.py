"""Every method for every runtime from one calibration set: nothing twice, nothing lost without a reason, nothing foreign kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import tree

from edge_latup.artifact import Artifact
from edge_latup.errors import InputError
from edge_latup.quantize import all_methods
from edge_latup.quantize.all_methods import quantize_all, tasks
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.methods import METHODS, quantize

QUICK = ("dynamic-range", "fp16")


def silent(line: str) -> None:
    return


def test_every_method_serves_every_runtime_it_can_with_one_file_each() -> None:
    known = tasks()
    assert len({task.name for task in known}) == len(known)
    for name, method in METHODS.items():
        files = {id(recipe): recipe for recipe in method.recipes.values()}
        mine = [task for task in known if task.method == name]
        assert len(mine) == len(files)
        served = {runtime for task in mine for runtime in method.recipes[task.runtime].runtimes}
        assert served >= set(method.recipes)
    assert {"int8", "int8-onnxruntime", "dynamic-range"} <= {task.name for task in known}


def test_what_cannot_be_made_is_skipped_with_the_reason(
    tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(all_methods.RUNTIMES["onnxruntime"], "is_available", lambda: False)
    lines: list[str] = []
    names = (*QUICK, "int8", "dynamic-int8")
    attempts = quantize_all(tiny_fp32, tmp_path, calibration=None, progress=lines.append, only=names)
    made = {attempt.task.name: attempt for attempt in attempts}
    assert made["int8"].skipped == "it needs calibration cases"
    assert made["dynamic-int8"].skipped.startswith("onnxruntime is not installed: in edge-latup")
    assert "int8 skipped: it needs calibration cases" in lines
    assert {name for name, attempt in made.items() if attempt.artifact} == set(QUICK) == {path.name for path in tmp_path.iterdir()}


def test_a_source_that_no_method_starts_from_is_told(tiny_fp32: Artifact, tmp_path: Path) -> None:
    (small,) = [one.artifact for one in quantize_all(tiny_fp32, tmp_path, calibration=None, progress=silent, only=("fp16",))]
    assert small is not None
    (attempt,) = quantize_all(small, tmp_path / "again", calibration=None, progress=silent, only=("dynamic-range",))
    assert attempt.artifact is None
    assert "compression starts from FP32 ONNX" in attempt.skipped


def test_artifacts_of_the_same_source_and_calibration_are_kept(
    tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:  # fmt: skip
    names = ("fp16", "int8")
    first = quantize_all(tiny_fp32, tmp_path, calibration=tiny_calibration, progress=silent, only=names)
    assert [(attempt.task.name, attempt.kept, attempt.skipped) for attempt in first] == [("fp16", False, ""), ("int8", False, "")]
    before = tree(tmp_path)
    again = quantize_all(tiny_fp32, tmp_path, calibration=tiny_calibration, progress=silent, only=names)
    assert [attempt.kept for attempt in again] == [True, True]
    assert tree(tmp_path) == before
    fewer = Calibration(inputs=tiny_calibration.inputs[:1], cases=tiny_calibration.cases[:1])
    with pytest.raises(InputError, match="from other cases"):
        quantize_all(tiny_fp32, tmp_path, calibration=fewer, progress=silent, only=("int8",))
    kept = first[0].artifact
    assert kept is not None
    with pytest.raises(InputError, match="was made of another artifact"):
        quantize_all(kept, tmp_path, calibration=None, progress=silent, only=("fp16",))
    assert tree(tmp_path) == before


def test_artifacts_of_another_spec_or_other_crops_are_not_kept(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    """The model file is the same: what its outputs mean, and how many crops were looked at, is not in it."""
    quantize_all(tiny_fp32, tmp_path, calibration=tiny_calibration, progress=silent, only=("fp16", "int8"))
    before = tree(tmp_path)
    spec = tiny_fp32.manifest.spec.model_copy(update={"labels": tuple(reversed(tiny_fp32.manifest.spec.labels))})
    corrected = replace(tiny_fp32, manifest=tiny_fp32.manifest.model_copy(update={"spec": spec}))
    assert corrected.digest == tiny_fp32.digest
    with pytest.raises(InputError, match="had another model spec"):
        quantize_all(corrected, tmp_path, calibration=None, progress=silent, only=("fp16",))
    more = Calibration(inputs=(*tiny_calibration.inputs, *tiny_calibration.inputs), cases=tiny_calibration.cases)
    with pytest.raises(InputError, match=f"was calibrated on {len(tiny_calibration.inputs)} crops, not on {len(more.inputs)}"):
        quantize_all(tiny_fp32, tmp_path, calibration=more, progress=silent, only=("int8",))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "made", "told"),
    [
        ("dynamic-range", {"method": "fp16"}, "made with method fp16, .*not dynamic-range"),
        ("int8", {"method": "int8", "runtime": "onnxruntime"}, "made for onnxruntime, not for openvino"),
        ("int8", {"method": "int8", "keep_float": ("decoder1",)}, r"made with keep_float \['decoder1'\], not None"),
        ("int8", {"method": "int8", "estimator": "kl"}, "made with ranges kl, not mean"),
        ("int8", {"method": "int8", "float_precision": "bf16"}, "made with float_precision bf16, not fp32"),
    ],
)
def test_an_artifact_that_was_made_in_another_way_is_not_kept(
    tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path, name: str, made: dict[str, Any], told: str
) -> None:  # fmt: skip
    calibration = tiny_calibration if made["method"] == "int8" else None
    quantize(tiny_fp32, out=tmp_path / name, calibration=calibration, **made)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=told):
        quantize_all(tiny_fp32, tmp_path, calibration=tiny_calibration, progress=silent, only=(name,))
    assert tree(tmp_path) == before


def test_an_artifact_of_other_versions_is_not_kept(tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize_all(tiny_fp32, tmp_path, calibration=None, progress=silent, only=("fp16",))
    monkeypatch.setattr(all_methods, "versions_of", lambda *names: dict.fromkeys(names, "99"))
    with pytest.raises(InputError, match=r"was made with python .*, edge-latup .*, onnx .*, not edge-latup 99, onnx 99"):
        quantize_all(tiny_fp32, tmp_path, calibration=None, progress=silent, only=("fp16",))


def test_a_runtime_that_the_import_found_wrong_does_not_come_back(tiny_fp32: Artifact, tmp_path: Path) -> None:
    right = replace(tiny_fp32, manifest=tiny_fp32.manifest.model_copy(update={"runtimes": ("onnxruntime",)}))
    made = {one.task.name: one for one in quantize_all(right, tmp_path, calibration=None, progress=silent, only=("fp16", "bf16"))}
    assert made["fp16"].artifact is not None
    assert made["fp16"].artifact.manifest.runtimes == ("onnxruntime",)
    assert "is not for openvino" in made["bf16"].skipped
    with pytest.raises(InputError, match="is not for openvino") as caught:
        quantize(right, "fp16", tmp_path / "other", runtime="openvino")
    assert caught.value.hint == "add --runtime onnxruntime"


def test_one_that_fails_does_not_end_the_others(tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(source: Artifact, method: str, out: Path, **options: Any) -> Artifact:
        if method == "fp16":
            raise InputError("a tensor is NaN", "look at the cases")
        return quantize(source, method, out, **options)

    monkeypatch.setattr(all_methods, "quantize", failing)
    made = {one.task.name: one for one in quantize_all(tiny_fp32, tmp_path, calibration=None, progress=silent, only=("fp16", "bf16"))}
    assert made["fp16"].skipped == "a tensor is NaN (look at the cases)"
    assert made["bf16"].artifact is not None


def test_an_unknown_name_is_refused_before_anything_is_made(tiny_fp32: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is called int4"):
        quantize_all(tiny_fp32, tmp_path / "out", calibration=None, progress=silent, only=("fp16", "int4"))
    assert not (tmp_path / "out").exists()
