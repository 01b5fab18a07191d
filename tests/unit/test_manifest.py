"""A manifest survives the disk, names what it does not know, and counts what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_latup.errors import SpecError
from edge_latup.manifest import MODEL_FILES, FileRecord, Manifest, Parity, SeenCase, SeenCases, Step
from edge_latup.records import read_record, write_record
from edge_latup.spec import ModelSpec, NetworkSpec

SHA = "0123456789abcdef" * 4
FULL = Manifest(
    name="int8",
    spec=ModelSpec(name="latup-net", network=NetworkSpec()),
    format="openvino-ir",
    runtimes=("openvino",),
    precision="int8",
    float_precision="bf16",
    storage="int8",
    input_shape=(1, 3, -1, -1, -1),
    recipe=(Step(operation="export", parameters={"size": [128, 128, 128], "dynamic": True}, versions={"torch": "2.13.0"}),),
    parity=(
        Parity(
            reference="pytorch fp32",
            candidate="openvino int8",
            input="crop",
            input_shape=(1, 4, 8, 8, 8),
            max_abs=0.1,
            relative_l2=0.01,
            argmax_agreement=0.999,
            tolerance={"max_abs": 0.2},
        ),
    ),
    trained_on=(SeenCase(name="a", sha256=SHA),),
    calibration=(SeenCase(name="b", sha256=SHA),),
    files=(FileRecord(name="model.xml", size=10, sha256=SHA), FileRecord(name="model.bin", size=32, sha256=SHA)),
)


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_record(FULL, tmp_path / "manifest.json")
    assert read_record(Manifest, tmp_path / "manifest.json") == FULL


def test_the_list_of_seen_cases_comes_back_as_it_was_written(tmp_path: Path) -> None:
    seen = SeenCases(cases=FULL.trained_on)
    write_record(seen, tmp_path / "seen.json")
    assert read_record(SeenCases, tmp_path / "seen.json") == seen


def test_the_model_size_is_that_of_all_files() -> None:
    assert FULL.model_size == 42


def test_every_format_has_files_and_the_first_is_opened() -> None:
    assert {format_: files[0] for format_, files in MODEL_FILES.items()} == {
        "onnx": "model.onnx",
        "openvino-ir": "model.xml",
        "checkpoint": "model.safetensors",
    }


@pytest.mark.parametrize(
    ("where", "key", "message"),
    [
        ((), "calibrations", "unknown key 'calibrations' in Manifest; did you mean 'calibration'?"),
        (("recipe", 0), "opration", "unknown key 'opration' in Step; did you mean 'operation'?"),
        (("files", 1), "sha265", "unknown key 'sha265' in FileRecord; did you mean 'sha256'?"),
        (("spec", "network"), "zzz", "unknown key 'zzz' in NetworkSpec; known keys: family,"),
    ],
)
def test_an_unknown_key_is_named_wherever_it_stands(tmp_path: Path, where: tuple[Any, ...], key: str, message: str) -> None:
    content = FULL.model_dump(mode="json")
    part = content
    for step in where:
        part = part[step]
    part[key] = 1
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(SpecError) as caught:
        read_record(Manifest, tmp_path / "manifest.json")
    assert message in caught.value.message
    assert str(tmp_path / "manifest.json") in caught.value.message


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"format": "tflite"},
        {"runtimes": ["coreml"]},
        {"precision": "int4"},
        {"storage": "int4"},
        {"files": [{"name": "model.onnx", "size": -1, "sha256": SHA}]},
        {"files": [{"name": "model.onnx", "size": 1, "sha256": SHA[:-1]}]},
        {"files": [{"name": "model.onnx", "size": 1, "sha256": SHA.upper()}]},
        {"trained_on": [{"name": "a", "sha256": "unknown"}]},
    ],
)
def test_a_value_that_means_nothing_here_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        Manifest.model_validate({**FULL.model_dump(mode="json"), **change})


def test_a_manifest_is_never_edited_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FULL.name = "other"  # type: ignore[misc]
